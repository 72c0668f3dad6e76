"""Folders of images: equal to Pillow and torchvision's formulas written out by hand."""

from __future__ import annotations

import io
import json
import stat
import struct
import time
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.domain.errors import InvalidFile, InvalidInput
from worker.engine.formats import image_folders, images, zip_walls
from worker.engine.formats.datasets import inspect_dataset, open_dataset

RNG = np.random.default_rng(3)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def picture(height: int = 8, width: int = 8, mode: str = "RGB") -> Image.Image:
    smooth = RNG.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def packed(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def archive(path: Path, entries: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return path


def folders(per_class: int = 5, *, top: str = "", splits: tuple[str, ...] = ("",)) -> Any:
    return {
        f"{top}{split}{label}/{i}.png": packed(picture())
        for split in splits
        for label in ("dog", "cat")
        for i in range(per_class)
    }


def read(path: Path, options: Any = None) -> tuple[Any, dict[str, tuple[np.ndarray, list[int]]]]:
    info = inspect_dataset(path, "classification", options, folder=path.parent / "made")
    assert json.loads(json.dumps(asdict(info)))
    with open_dataset(
        path, "classification", options, prepared=path.parent / "made" / "prepared"
    ) as data:
        assert data.info == info
        batches = {name: data.split(name).batch(0, 9999) for name in data.names}
    return info, {n: (x[0].numpy(), y.tolist()) for n, (x, y) in batches.items()}


@pytest.mark.parametrize("top", ["", "flowers/", "a/b/"])
@pytest.mark.parametrize(
    ("splits", "names"),
    [
        (("train/", "test/"), {"train", "tune", "test"}),
        (("train/", "val/", "test/"), {"train", "tune", "test"}),
        (("Training/", "Validation/"), {"train", "tune"}),
        (("tune/",), {"tune"}),
        (("",), {"train", "tune", "test"}),
        (("train/",), {"train", "tune", "test"}),
    ],
)
def test_folders_say_split_and_class(
    tmp_path: Path, top: str, splits: tuple[str, ...], names: set[str]
) -> None:
    entries = folders(10, top=top, splits=splits)
    info, got = read(archive(tmp_path / "d.zip", entries))
    assert set(info.splits) == names
    assert info.class_names == ["cat", "dog"]
    assert sum(info.splits.values()) == len(entries)
    plain = {
        np.asarray(Image.open(io.BytesIO(data))).tobytes(): name for name, data in entries.items()
    }
    for part, (x, labels) in got.items():
        for row, label in zip(x, labels, strict=True):
            pixels = np.round((row * STD[:, None, None] + MEAN[:, None, None]) * 255)
            name = plain[pixels.astype(np.uint8).transpose(1, 2, 0).tobytes()]
            assert ["cat", "dog"][label] in name
            if len(splits) == 3:
                assert {"train": "train/", "tune": "val/", "test": "test/"}[part] in name


def test_normalised_as_torchvision_does(tmp_path: Path) -> None:
    image = picture()
    path = archive(tmp_path / "d.zip", {"tune/a/1.png": packed(image)})
    info, got = read(path)
    expected = (np.asarray(image).transpose(2, 0, 1) / 255 - MEAN[:, None, None]) / STD[
        :, None, None
    ]
    np.testing.assert_allclose(got["tune"][0][0], expected, atol=3e-6)
    assert any("ImageNet" in note for note in info.notes)
    assert info.dtype == "uint8"
    assert info.prepared
    _, got = read(path, info.options)
    np.testing.assert_allclose(got["tune"][0][0], expected, atol=3e-6)


def torchvision_by_hand(
    image: Image.Image, short: int, crop: int, how: Image.Resampling
) -> np.ndarray:
    """Resize(short) and CenterCrop(crop), as torchvision 0.28 computes them on PIL images."""
    width, height = image.size
    if width <= height:
        image = image.resize((short, int(short * height / width)), how)
    else:
        image = image.resize((int(short * width / height), short), how)
    width, height = image.size
    left, top = round((width - crop) / 2.0), round((height - crop) / 2.0)
    return np.asarray(image.crop((left, top, left + crop, top + crop))).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("options", "short", "crop", "how"),
    [
        ({}, 256, 224, Image.Resampling.BILINEAR),
        ({"preset": "imagenet"}, 256, 224, Image.Resampling.BILINEAR),
        ({"preset": "clip"}, 224, 224, Image.Resampling.BICUBIC),
        ({"size": 21}, 24, 21, Image.Resampling.BILINEAR),
        ({"size": 21, "resize": 30, "interpolation": "bicubic"}, 30, 21, Image.Resampling.BICUBIC),
        ({"resize": 33}, 33, 33, Image.Resampling.BILINEAR),
    ],
)
def test_resized_and_cropped_as_torchvision_does(
    tmp_path: Path, options: Any, short: int, crop: int, how: Image.Resampling
) -> None:
    shapes = [(40, 60), (61, 37), (300, 511)]
    pictures = [picture(*shape) for shape in shapes]
    entries = {f"tune/a/{i}.png": packed(image) for i, image in enumerate(pictures)}
    plain = {"mean": [0], "std": [1 / 255]} | options
    info, got = read(archive(tmp_path / "d.zip", entries), plain)
    assert info.input_shape == [3, crop, crop]
    for row, image in zip(got["tune"][0], pictures, strict=True):
        np.testing.assert_allclose(row, torchvision_by_hand(image, short, crop, how), atol=1e-3)
    again, other = read(tmp_path / "d.zip", info.options)
    assert again.input_shape == info.input_shape
    np.testing.assert_array_equal(other["tune"][0], got["tune"][0])


def test_exact_sizes_and_no_crop(tmp_path: Path) -> None:
    pictures = [picture(40, 60), picture(20, 10)]
    entries = {f"tune/a/{i}.png": packed(image) for i, image in enumerate(pictures)}
    path = archive(tmp_path / "d.zip", entries)
    for options in ({"size": [12, 16]}, {"size": [12, 16], "crop": "none"}, {"resize": [12, 16]}):
        _, got = read(path, {**options, "preset": "none"})
        for row, image in zip(got["tune"][0], pictures, strict=True):
            expected = np.asarray(image.resize((16, 12), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(row * 255, expected.transpose(2, 0, 1), atol=1e-3)
    with pytest.raises(InvalidFile, match=r"differ in size \(10 x 20 to 60 x 40 pixels\)"):
        read(path, {"crop": "none"})


def test_a_picture_smaller_than_the_crop_gets_a_black_border(tmp_path: Path) -> None:
    image = picture(5, 8)
    path = archive(tmp_path / "d.zip", {"tune/a/1.png": packed(image)})
    _, got = read(path, {"resize": 5, "size": 9, "preset": "none"})
    expected = np.zeros((3, 9, 9))
    # torchvision: (9-5)//2 = 2 above, (9-8)//2 = 0 left; Resize(5) keeps 5 x 8.
    expected[:, 2:7, 0:8] = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_allclose(got["tune"][0][0] * 255, expected, atol=1e-3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I"])
def test_modes_are_converted_as_loaders_do(tmp_path: Path, mode: str) -> None:
    if mode.startswith("I"):
        image = Image.fromarray(RNG.integers(0, 400, (8, 8)).astype("u2" if ";" in mode else "i4"))
    else:
        image = picture().convert(mode)
    kind = "TIFF" if mode in ("CMYK", "I") else "PNG"
    data = packed(image, kind)
    name = f"tune/a/1.{kind.lower()}"
    path = archive(tmp_path / "d.zip", {name: data})
    for channels, target in ((3, "RGB"), (1, "L")):
        _, got = read(path, {"channels": channels, "preset": "none"})
        expected = np.asarray(Image.open(io.BytesIO(data)).convert(target)).reshape(8, 8, -1)
        np.testing.assert_allclose(got["tune"][0][0] * 255, expected.transpose(2, 0, 1), atol=1e-3)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    original = picture(12, 16)
    data = packed(original, kind, exif=exif)
    info, got = read(
        archive(tmp_path / "d.zip", {"tune/a/1.jpg": data}), {"preset": "none", "crop": "none"}
    )
    # Pillow turns TIFFs itself; the others it gives as they are stored.
    exact = kind in ("PNG", "TIFF")
    stored = np.asarray(original if exact else Image.open(io.BytesIO(data)).convert("RGB"))
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored),
    }[turn]  # fmt: skip
    assert info.input_shape[1:] == ([12, 16] if turn < 5 else [16, 12])
    np.testing.assert_allclose(got["tune"][0][0] * 255, upright.transpose(2, 0, 1), atol=1e-3)
    if kind != "TIFF":
        assert any("EXIF" in note for note in info.notes) == (turn > 1)


def test_litter_is_left_out_and_counted(tmp_path: Path) -> None:
    litter = {
        "d/cat/.DS_Store": b"x", "__MACOSX/d/cat/._1.png": b"x", "d/Thumbs.db": b"x",
        "d/.hidden/1.png": b"x", "d/README.txt": b"x", "d/more.zip": b"PK\x03\x04",
    }  # fmt: skip
    info, _ = read(archive(tmp_path / "d.zip", folders(10, top="d/") | litter))
    assert sum(info.splits.values()) == 20
    assert any(note.startswith("4 hidden files") for note in info.notes)
    assert any(note.startswith("2 files") for note in info.notes)


FAULTS: list[tuple[dict[str, bytes], str]] = [
    ({"tune/1.png": packed(picture())}, "'tune/1.png' lies in no folder of its class"),
    ({"1.png": packed(picture())}, "lies in no folder"),
    ({"tune/a/1.png": packed(picture())[:60]}, "'tune/a/1.png' is (cut short|damaged)"),
    ({"tune/a/1.jpg": packed(picture(64, 64), "JPEG")[:-40]}, "'tune/a/1.jpg' is cut short"),
    ({"tune/a/1.png": b"not an image"}, "'tune/a/1.png' is no image"),
    ({"tune/a/1.png": b""}, "is no image"),
    ({"tune/a/1.png": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, "is no image"),
    ({"train/a/1.png": packed(picture()), "test/a/1.png": packed(picture()),
      "other/a/1.png": packed(picture())}, "splits or classes"),
    ({"train/a/1.png": packed(picture()), "val/b/1.png": packed(picture())},
     "tune has the class 'b', which train hasn't"),
    ({"test/a/1.png": packed(picture())}, "only test"),
    ({"../a/1.png": packed(picture())}, "with the name"),
    ({"/etc/a/1.png": packed(picture())}, "with the name"),
    ({"a\\b\\1.png": packed(picture()), "a/1.png": packed(picture())}, "with the name"),
    ({"C:/a/1.png": packed(picture())}, "with the name"),
    ({"a/" + "x" * 1100 + ".png": packed(picture())}, "with the name"),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "sentence"), FAULTS, ids=[f[1][:30] for f in FAULTS])
def test_faults_name_the_entry(tmp_path: Path, entries: Any, sentence: str) -> None:
    path = archive(tmp_path / "d.zip", entries)
    with pytest.raises(InvalidFile, match=sentence) as caught:
        inspect_dataset(path, folder=tmp_path / "made")
    assert caught.value.hint
    assert not list((tmp_path / "made").iterdir())


def test_links_passwords_and_odd_packing(tmp_path: Path) -> None:
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w") as out:
        link = zipfile.ZipInfo("a/1.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidFile, match="is a link"):
        inspect_dataset(path, folder=tmp_path)
    raw = bytearray(archive(path, {"a/1.png": packed(picture())}).read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(InvalidFile, match="encrypted"):
        inspect_dataset(path, folder=tmp_path)
    archive(path, {"a/1.png": packed(picture())}, zipfile.ZIP_BZIP2)
    with pytest.raises(InvalidFile, match="packed in a way"):
        inspect_dataset(path, folder=tmp_path)


def _png_of(width: int, height: int) -> bytes:
    """A tiny file whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (8_000, 8_000), (2**31 - 1, 1)])
def test_a_bomb_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    path = archive(tmp_path / "d.zip", {"tune/a/1.png": _png_of(*size)})
    with pytest.raises(InvalidFile, match=r"'tune/a/1.png' has .* pixels; at most 40,000,000"):
        inspect_dataset(path, folder=tmp_path / "made")


def test_a_long_thin_picture_is_no_bomb_once_resized(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.zip", {"tune/a/1.png": packed(Image.new("RGB", (200_000, 1)))})
    with pytest.raises(InvalidFile, match="long and thin"):
        inspect_dataset(path, options={"size": 224}, folder=tmp_path / "made")


def test_an_archive_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_walls, "RATIO_COUNTS_FROM", 1 << 20)
    bomb = packed(picture()) + b"\0" * (8 << 20)
    path = archive(tmp_path / "d.zip", {"tune/a/1.png": bomb}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidFile, match="decompression bomb"):
        inspect_dataset(path, folder=tmp_path / "made")


def test_limits_of_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "d.zip", folders(5))
    monkeypatch.setattr(image_folders, "MAX_CLASSES", 1)
    with pytest.raises(InvalidFile, match="2 class folders; at most 1"):
        inspect_dataset(path, folder=tmp_path / "made")
    monkeypatch.setattr(image_folders, "MAX_IMAGES", 9)
    with pytest.raises(InvalidFile, match="10 images; at most 9"):
        inspect_dataset(path, folder=tmp_path / "made")
    assert images.MAX_PIXELS == 40_000_000


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 0}, "options.size"),
        ({"size": [1, 2, 3]}, "options.size"),
        ({"size": 1e9}, "options.size"),
        ({"preset": "mine"}, "options.preset"),
        ({"crop": "left"}, "options.crop"),
        ({"mean": [1, 2]}, "options.mean"),
        ({"std": [1, 0, 1]}, "options.std"),
        ({"std": "1"}, "options.std"),
        ({"mean": [float("nan")]}, "options.mean"),
        ({"channels": 4}, "options.channels"),
        ({"channels": 1, "preset": "imagenet"}, "options.preset"),
        ({"sizes": 3}, "options.sizes"),
    ],
)
def test_wrong_options(tmp_path: Path, options: Any, field: str) -> None:
    path = archive(tmp_path / "d.zip", folders(2))
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(path, options=options, folder=tmp_path)
    assert list(caught.value.fields) == [field]
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(path, "regression", folder=tmp_path)
    assert list(caught.value.fields) == ["task"]


def test_numbers_as_classes_are_sorted_as_text(tmp_path: Path) -> None:
    entries = {f"tune/{i}/1.png": packed(picture()) for i in (0, 1, 2, 10)}
    info, _ = read(archive(tmp_path / "d.zip", entries))
    assert info.class_names == ["0", "1", "10", "2"]
    assert any("'10' is class 2" in note for note in info.notes)


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    entries = {
        "tune/a/1.png": packed(picture()), "tune/a/2.jpg": packed(picture(), "JPEG"),
        "tune/b/3.webp": packed(picture(), "WEBP"), "tune/b/4.gif": packed(picture(), "GIF"),
        "tune/b/5.tif": packed(picture(), "TIFF"), "tune/b/6.bmp": packed(picture(), "BMP"),
    }  # fmt: skip
    refused = 0
    rng = np.random.default_rng(0)
    for name in entries:
        for _ in range(60):
            raw = bytearray(entries[name])
            for place in rng.integers(0, len(raw), 3):
                raw[place] = rng.integers(0, 256)
            archive(tmp_path / "d.zip", {**entries, name: bytes(raw)})
            try:
                inspect_dataset(tmp_path / "d.zip", options={"size": 8}, folder=tmp_path / "made")
            except InvalidFile as error:
                refused += name in error.message
    assert refused > 50


@pytest.mark.benchmark
def test_ten_thousand_small_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = {f"train/{i % 10}/{i}.png": packed(picture(32, 32)) for i in range(10_000)}
    path = archive(tmp_path / "d.zip", entries)
    began = time.process_time()
    info = inspect_dataset(path, folder=tmp_path / "made")
    spent = time.process_time() - began
    with capsys.disabled():
        print(f"\n10,000 PNGs of 32 x 32 imported in {spent:.1f} s of processor time")
    assert sum(info.splits.values()) == 10_000
    assert spent < 60
