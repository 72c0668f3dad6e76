"""Mutated archives of images, in every format that is decoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.attacks import kit, zips

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF",
           "ppm": "PPM"}  # fmt: skip


def test_each_is_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    entries = {}
    for number, (suffix, form) in enumerate(list(FORMATS.items()) * 2):
        raw = io.BytesIO()
        pixels = rng.integers(0, 256, (8 + number, 9, 3), np.uint8)
        Image.fromarray(pixels).save(raw, form)
        entries[f"{'cat' if number % 2 else 'dog'}/{number}.{suffix}"] = raw.getvalue()
    seed = tmp_path / "images.zip"
    seed.write_bytes(zips.archive(zips.members(entries)))
    options = {"size": 8, "resize": 8}
    kit.fuzzed([seed], "images", "dataset", tmp_path, options=options)
