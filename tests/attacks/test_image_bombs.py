"""Images that are small files and large pictures, or that lie about what they are."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.attacks import kit, pickles, zips
from tests.attacks.doors import images, read_images


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(width: int, height: int, data: bytes = b"", *more: bytes, bits: int = 8) -> bytes:
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(form: str, *, size: tuple[int, int] = (8, 8), **options: object) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(raw, form, **options)
    return raw.getvalue()


def gif_of_frames(number: int) -> bytes:
    raw = io.BytesIO()
    frames = [Image.new("P", (8, 8), n % 250) for n in range(number)]
    frames[0].save(raw, "GIF", save_all=True, append_images=frames[1:], duration=10)
    return raw.getvalue()


def tiff(**lies: int) -> bytes:
    """A tiny TIFF, whose directory entries are replaced by tag number."""
    raw = bytearray(saved("TIFF"))
    at = struct.unpack_from("<I", raw, 4)[0]
    for place in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", raw, at)[0], 12):
        tag = struct.unpack_from("<H", raw, place)[0]
        if f"t{tag}" in lies:
            struct.pack_into("<HII", raw, place + 2, 4, 1, lies[f"t{tag}"])
    return bytes(raw)


def looping_tiff() -> bytes:
    """Its second picture is its first."""
    raw = bytearray(saved("TIFF"))
    at = struct.unpack_from("<I", raw, 4)[0]
    count = struct.unpack_from("<H", raw, at)[0]
    struct.pack_into("<I", raw, at + 2 + 12 * count, at)
    return bytes(raw)


def black(width: int, height: int) -> bytes:
    packer = zlib.compressobj(9)
    line = bytes(1 + 3 * width)
    return b"".join(packer.compress(line) for _ in range(height)) + packer.flush()


IMAGES: dict[str, Callable[[], bytes]] = {
    "60,000 x 60,000": lambda: png(60_000, 60_000, zlib.compress(bytes(1000))),
    "2^31 x 2^31": lambda: png((1 << 31) - 1, (1 << 31) - 1),
    "1 x 2^31": lambda: png(1, (1 << 31) - 1),
    "13,000 x 13,000 of black": lambda: png(13_000, 13_000, black(13_000, 13_000)),
    "no pixels": lambda: png(0, 0),
    "no data": lambda: png(8, 8),
    "16 bits": lambda: png(8, 8, zlib.compress(bytes(8 * 49)), bits=16),
    "3 bits": lambda: png(8, 8, zlib.compress(bytes(8 * 25)), bits=3),
    "a text that unpacks to 200 MB": lambda: png(
        8, 8, zlib.compress(bytes(8 * 25)),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 1))),
    "a colour profile of 200 MB": lambda: png(
        8, 8, zlib.compress(bytes(8 * 25)),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 << 20), 1))),
    "a million chunks": lambda: png(
        8, 8, zlib.compress(bytes(8 * 25)), chunk(b"tEXt", b"a\0b") * 300_000),
    "pixels that unpack to 200 MB": lambda: png(8, 8, zlib.compress(bytes(200 << 20), 1)),
    "a profile of 30 MB": lambda: saved("JPEG", icc_profile=bytes(30 << 20)),
    "EXIF of loops": lambda: saved(
        "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
        + b"\x69\x87\x04\0\x01\0\0\0\x08\0\0\0" * 2000),
    "3,000 frames": lambda: gif_of_frames(3000),
    "a GIF of 65,535 x 65,535": lambda: b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6)
    + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    "a BMP of 2^31 x 2^31": lambda: saved("BMP")[:18] + b"\xff\xff\xff\x7f" * 2 + saved("BMP")[26:],
    "a BMP upside down": lambda: saved("BMP")[:18] + b"\x00\x00\x00\x80" * 2 + saved("BMP")[26:],
    "a PPM of 10^9 x 10^9": lambda: b"P6 1000000000 1000000000 255\n",
    "a PPM of letters": lambda: b"P3 4000 4000 255\n" + b"0 " * 100,
    "a PPM with an endless number": lambda: b"P6 " + b"9" * (1 << 20),
    "a PPM with an endless remark": lambda: b"P6\n#" + b"x" * (1 << 20),
    "a TIFF of 2^31 x 2^31": lambda: tiff(t256=(1 << 31) - 1, t257=(1 << 31) - 1),
    "a TIFF of 6,000 x 6,000": lambda: tiff(t256=6000, t257=6000),
    "a TIFF of strips elsewhere": lambda: tiff(t273=(1 << 32) - 1),
    "a TIFF of endless strips": lambda: tiff(t279=(1 << 32) - 1),
    "a TIFF of 65,535 samples": lambda: tiff(t277=65_535),
    "a TIFF of another packing": lambda: tiff(t259=34_712),
    "a TIFF without end": looping_tiff,
    "a WebP of 16,383 x 16,383": lambda: saved("WEBP")[:26] + b"\xff\x3f\xff\x3f"
    + saved("WEBP")[30:],
    "a WebP that is a lie": lambda: saved("WEBP")[:24] + b"\xff" * 6 + saved("WEBP")[30:],
    "a JPEG of 65,500 x 65,500": lambda: saved("JPEG").replace(
        b"\x00\x11\x08\x00\x08\x00\x08", b"\x00\x11\x08\xff\xdc\xff\xdc"),
    "half a PNG": lambda: next(iter(images().values()))[:-40],
    "half a JPEG": lambda: saved("JPEG", size=(64, 64))[:-200],
    "the head of a JPEG": lambda: saved("JPEG")[:4],
    "EPS, which Ghostscript would run": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    b"%%EndComments\n(%pipe%touch dead) (w) file\n",
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>x</script></svg>',
    "PSD": lambda: b"8BPS" + bytes(600),
    "FLI": lambda: bytes(4) + b"\x11\xaf" + bytes(600),
    "PDF": lambda: b"%PDF-1.4\n",
    "ICNS": lambda: b"icns" + bytes(600),
    "JPEG 2000": lambda: b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(600),
    "a pickle": lambda: pickles.whole(pickles.shell("touch dead")),
    "an archive": lambda: zips.archive([zips.Member(b"x.png", b"")]),
    "nothing": lambda: b"",
}  # fmt: skip
READ_ALL_THE_SAME = {
    "3,000 frames",
    "a profile of 30 MB",
    "EXIF of loops",
    "a million chunks",
    "16 bits",
    "a TIFF without end",
    "pixels that unpack to 200 MB",
    "a TIFF of endless strips",
}


@pytest.mark.parametrize("image", IMAGES)
def test_one_among_sound_ones(tmp_path: Path, canary: kit.Canary, image: str) -> None:
    entries = images() | {"train/cat/evil.png": IMAGES[image]()}
    path = tmp_path / "images.zip"
    path.write_bytes(zips.archive(zips.members(entries)))
    outcome = read_images(path)
    kit.harmless(outcome, canary, seconds=6, memory_bytes=300 * kit.MIB)
    if outcome.error:
        assert "evil.png" in kit.refused(outcome)
    else:
        assert image in READ_ALL_THE_SAME


def test_pictures_of_the_largest_size(tmp_path: Path, canary: kit.Canary) -> None:
    """Each is just within the limit: one after the other is decoded, never two at once."""
    side = 6_300
    evil = png(side, side, black(side, side))
    entries = images() | {f"train/cat/{n}.png": evil for n in range(4)}
    path = tmp_path / "images.zip"
    path.write_bytes(zips.archive(zips.members(entries)))
    outcome = read_images(path, seconds=100)
    kit.harmless(outcome, canary, seconds=60, memory_bytes=500 * kit.MIB)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 1 << 30},
        {"size": [1 << 20, 1 << 20]},
        {"size": -1},
        {"size": 0},
        {"size": 8, "resize": 1 << 40},
        {"size": "8"},
        {"mean": [1e400, 0, 0]},
        {"std": [0, 0, 0]},
        {"std": [float("nan")] * 3},
        {"mean": [0] * 1000},
        {"preset": "__import__('os')"},
        {"channels": 1 << 30},
        {"crop": "../../etc"},
        {"__class__": "x"},
    ],
    ids=str,
)
def test_options_of_impossible_sizes(tmp_path: Path, canary: kit.Canary, options: dict) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(zips.archive(zips.members(images())))
    kit.refused(kit.read_dataset(path, options=options), "", canary)


def test_sound_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(zips.archive(zips.members(images())))
    assert read_images(path).value["shape"] == [3, 8, 8]
    assert np.prod([3, 8, 8]) == 192
