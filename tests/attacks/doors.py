"""The ways into the server that are zip archives, each with a sound file to be made hostile."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.attacks import kit
from tests.attacks.exported import sound


@dataclass(frozen=True)
class Door:
    """`entries` of a sound file, and the import that it goes through."""

    suffix: str
    entries: Callable[[], dict[str, bytes]]
    read: Callable[..., kit.Outcome]

    def written(self, folder: Path, content: bytes, name: str = "evil") -> Path:
        path = folder / f"{name}{self.suffix}"
        path.write_bytes(content)
        return path


def unzipped(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@functools.cache
def npz() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    raw = io.BytesIO()
    np.savez(
        raw,
        x_train=rng.random((20, 3), np.float32),
        y_train=np.arange(20) % 2,
        x_test=rng.random((8, 3), np.float32),
        y_test=np.arange(8) % 2,
    )
    return unzipped(raw.getvalue())


@functools.cache
def pth() -> dict[str, bytes]:
    import torch

    raw = io.BytesIO()
    torch.save({"0.weight": torch.rand(4, 3), "0.bias": torch.rand(4)}, raw)
    return unzipped(raw.getvalue())


@functools.cache
def images() -> dict[str, bytes]:
    from PIL import Image

    rng = np.random.default_rng(0)
    made = {}
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            for number in range(4):
                raw = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(raw, "PNG")
                made[f"{split}/{kind}/{number}.png"] = raw.getvalue()
    return made


def read_images(path: Path, **options: object) -> kit.Outcome:
    return kit.read_dataset(path, options={"size": 8, "resize": 8}, **options)


DOORS = {
    "pt2": Door(".pt2", lambda: dict(sound()), kit.read_model),
    "pth": Door(".pth", pth, kit.read_model),
    "npz": Door(".npz", npz, kit.read_dataset),
    "images": Door(".zip", images, read_images),
}
