"""What an upload is: judged by its content; its name counts for nothing, wrong files are named."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from app.domain.errors import InvalidFile, UnsafeFile
from worker.engine.formats.dataset_sniff import sniff_dataset
from worker.engine.formats.datasets import inspect_dataset, open_dataset
from worker.engine.formats.prepared import KEY, PreparedFile


def _zip(*names: str, content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return out.getvalue()


def _torch(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a/1.png"))
    return out.getvalue()


def _image() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2, 2)).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (_zip("x.npy", "y.npy"), "npz"),
        (_zip("x.npy", "preview.png"), "npz"),
        (_zip("d/train/a/1.JPG", "d/labels.npy"), "images"),
        (_zip("a/1.tiff"), "images"),
        (b"PAR1 and more", "parquet"),
        (b"a,b\n1,2\n", "csv"),
        ("\ufeffäöü;b\n1;2\n".encode(), "csv"),
        ((2).to_bytes(8, "little") + b"{}", "safetensors"),
        (b'{"x": {"dtyp,a\n1,2', "JSON"),
    ],
)
def test_known_forms(tmp_path: Path, content: bytes, form: str) -> None:
    (tmp_path / "upload.bin").write_bytes(content)
    if form.isupper():
        with pytest.raises(InvalidFile, match=form):
            sniff_dataset(tmp_path / "upload.bin")
    else:
        assert sniff_dataset(tmp_path / "upload.bin") == form


@pytest.mark.parametrize(
    ("content", "kind", "sentence", "hint"),
    [
        (b"", InvalidFile, "empty", ".npz"),
        (pickle.dumps([1]), UnsafeFile, "pickle", "np.savez"),
        (_torch({"w": torch.ones(2)}), UnsafeFile, "torch.save", "Upload it as a model"),
        (_zip("net/archive_format", "net/models/model.json"), InvalidFile, "torch.export",
         "Upload it as a model"),
        (_zip("xl/workbook.xml"), InvalidFile, "Excel", ".csv"),
        (_zip("table.csv"), InvalidFile, "archive of tables", "table itself"),
        (_zip("readme.txt"), InvalidFile, "no arrays", "one folder of images"),
        (_tar(), InvalidFile, "tar archive", ".zip"),
        (_image(), InvalidFile, "single image", "folders"),
        (b"\x1f\x8b\x08\0", InvalidFile, "gzip", "Unpack"),
        (b"\x89HDF\r\n\x1a\n", InvalidFile, "HDF5", "np.savez"),
        (b"\0\1\2\3\4" * 9, InvalidFile, "no data set", ".parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_wrong_files_are_named(
    tmp_path: Path, content: bytes, kind: type[InvalidFile], sentence: str, hint: str
) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InvalidFile, match=sentence) as caught:
        inspect_dataset(tmp_path / "data.npz", folder=tmp_path / "made")
    assert type(caught.value) is kind
    assert hint in caught.value.hint


def _prepared(folder: Path) -> Path:
    np.savez_compressed(folder / "d.npz", x_tune=np.ones((9, 3)), y_tune=np.arange(9) % 2)
    inspect_dataset(folder / "d.npz", folder=folder)
    return folder / "prepared"


def test_a_prepared_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    made = _prepared(tmp_path)
    said = json.loads(PreparedFile(made).metadata[KEY])
    tensors = {"x_tune": np.ones((9, 3)), "y_tune": np.arange(9) % 2}
    lies = [
        {**said, "format": "images"}, {**said, "version": 2}, {**said, "notes": [1]},
        {**said, "more": 1}, {**said, "options": []}, [], "x", {**said, "class_names": "ab"},
    ]  # fmt: skip
    for lie in lies:
        save_file(tensors, made, {KEY: json.dumps(lie)})
        with pytest.raises(InvalidFile, match="unpacked data set"):
            open_dataset(tmp_path / "d.npz", prepared=made)
    save_file(tensors, made)
    with pytest.raises(InvalidFile, match="unpacked data set is damaged"):
        open_dataset(tmp_path / "d.npz", prepared=made)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutations_of_a_prepared_file(tmp_path: Path, data: st.DataObject) -> None:
    made = tmp_path / "prepared"
    raw = bytearray(made.read_bytes() if made.exists() else _prepared(tmp_path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    other = tmp_path / "other"
    other.write_bytes(raw[: data.draw(st.just(len(raw)) | st.integers(0, len(raw)))])
    try:
        with open_dataset(tmp_path / "d.npz", prepared=other) as opened:
            opened.split("tune").batch(0, 9)
    except InvalidFile as error:
        event(error.message[:40])


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutations_of_a_table(tmp_path: Path, data: st.DataObject) -> None:
    lines = ['a,"b, c",y'] + [f"{i}.5,{'xyz'[i % 3]},{i % 2}" for i in range(40)]
    raw = bytearray("\n".join(lines).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(
            st.sampled_from(list(b'",;\n\r\t|\0\xff\xc3 e9-nN')) | st.integers(0, 255)
        )
    (tmp_path / "d.csv").write_bytes(raw)
    try:
        inspect_dataset(tmp_path / "d.csv", folder=tmp_path / "made")
    except InvalidFile as error:
        event(error.message[:40])
