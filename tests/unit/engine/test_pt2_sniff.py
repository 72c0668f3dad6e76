"""What is no `.pt2` is recognised for what it is, unopened, with the lines that export it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from app.domain.errors import InvalidFile, UnsafeFile
from app.domain.export_lines import EXPORT_LINES
from tests.unit.engine.archives import Bomb, small
from worker.engine.formats.models import open_model
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.sniff import sniff_model_format


def said(path: Path, kind: type[InvalidFile]) -> str:
    with pytest.raises(InvalidFile) as caught:
        sniff_model_format(path)
    assert type(caught.value) is kind
    assert "\n".join(EXPORT_LINES) in caught.value.hint
    return caught.value.message


def test_a_pt2_file_is_one(tmp_path: Path) -> None:
    assert sniff_model_format(small(tmp_path)) == "pt2"


def test_a_safetensors_file_is_one(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert sniff_model_format(tmp_path / "a.safetensors") == "safetensors"


def test_the_export_lines_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"model": nn.Sequential(nn.Linear(4, 3)), "example": torch.randn(2, 4)}
    for line in EXPORT_LINES:
        exec(line, names)  # noqa: S102 - these are our own lines, as a user would run them
    path = tmp_path / "model.pt2"
    model = load_model(path, sniff_model_format(path))
    assert model.fixed_batch is None
    x = torch.randn(5, 4)
    assert torch.equal(model.module(x), names["model"](x))


def test_a_whole_module_and_a_state_dict(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    torch.save(net, tmp_path / "whole.pth")
    torch.save(net.state_dict(), tmp_path / "state.pth")
    torch.save(net, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert "whole network saved with torch.save" in said(tmp_path / "whole.pth", UnsafeFile)
    assert "whole network saved with torch.save" in said(tmp_path / "old.pth", UnsafeFile)
    torch.save(net.state_dict(), tmp_path / "older.pth", _use_new_zipfile_serialization=False)
    for name in ("state.pth", "older.pth"):
        assert sniff_model_format(tmp_path / name) == "pth"
        with pytest.raises(InvalidFile, match="not the network they belong to"):
            load_model(tmp_path / name, "pth")


def test_no_pickle_is_opened_to_find_out(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for zipped in (True, False):
        path = tmp_path / "bomb.pt"
        torch.save(Bomb(marker), path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UnsafeFile, match="asks for"):
            open_model(path)
        with pytest.raises(InvalidFile):
            load_model(path, "pt2")
    assert not marker.exists()


def test_torchscript(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"m/{name}", b"x")
    assert "TorchScript" in said(tmp_path / "m.pt", UnsafeFile)


def test_other_formats_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros(3))
    np.save(tmp_path / "a.npy", np.zeros(3))
    contents = {
        "a.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 64,
        "a.onnx": b"\x08\x07\x12\x07pytorch\x1a\x052.0.0",
        "a.gz": b"\x1f\x8b" + b"\0" * 64,
        "a.txt": b"import torch\n",
        "a.bin": bytes(range(200, 256)),
        "empty": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/readme.txt", "x")
    expected = {
        "a.npz": ".npz",
        "b.npz": ".npz",
        "a.npy": "NumPy",
        "a.h5": "HDF5",
        "a.onnx": "ONNX",
        "a.gz": "gzip",
        "a.txt": "text file",
        "a.bin": "not a .pt2",
        "empty": "empty",
        "a.keras": "Keras",
        "a.zip": "not a .pt2",
    }
    for name, words in expected.items():
        assert words in said(tmp_path / name, InvalidFile), name


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_archive(tmp_path: Path, share: float) -> None:
    path = small(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InvalidFile, match="cut short"):
        sniff_model_format(path)
