"""The optional arrays scale, mean, std and layout: how a stored array becomes the input."""

from __future__ import annotations

import numpy as np

from app.domain.errors import InvalidFile
from worker.engine.formats.dataset_checks import Contents
from worker.engine.formats.sources import Source, kind_of
from worker.engine.formats.splits import Transform


def read_transform(source: Source, contents: Contents, number: int) -> tuple[Transform, list[str]]:
    """How input `number` is turned into the network's input. Raises InvalidFile."""

    def option(name: str) -> str | None:
        return contents.options.get((name, number), contents.options.get((name, None)))

    shape = source.header(next(iter(contents.x.values()))[number]).shape[1:]
    notes: list[str] = []
    channels_last = False
    if name := option("layout"):
        shared = "." not in name and contents.inputs > 1
        channels_last = _is_channels_last(source, name, shape, shared)
        if channels_last:
            shape = (shape[-1], *shape[:-1])
    scale = None
    if name := option("scale"):
        value = _numbers(source, name)
        if value.size != 1:
            raise InvalidFile(
                f"{name} has {value.size} values; it is one number for the whole array.",
                "Give per-channel values as std instead: std = 1 / scale.",
            )
        scale = float(value.reshape(()))
        if scale == 0:
            raise InvalidFile(f"{name} is 0, which wipes out every sample.", "Use 1/255 or so.")
    mean = std = None
    if name := option("mean"):
        mean = _per_channel(name, _numbers(source, name), shape, notes)
    if name := option("std"):
        std = _per_channel(name, _numbers(source, name), shape, notes)
        if (std <= 0).any():
            raise InvalidFile(
                f"{name} has a value that is {'0' if (std == 0).any() else 'negative'}; "
                "samples are divided by it.",
                "Use 1 for a channel that never varies.",
            )
    return Transform(channels_last, scale, mean, std), notes


def _is_channels_last(source: Source, name: str, shape: tuple[int, ...], shared: bool) -> bool:
    word = source.word(name)
    if word is None:
        raise InvalidFile(f"{name} is not a word.", 'Save it as layout="NHWC" or layout="NCHW".')
    if word.upper() not in ("NHWC", "NCHW"):
        raise InvalidFile(
            f"{name} is {word[:20]!r}, which isn't known.",
            'Use "NHWC" or "NCHW"; turn other layouts with np.transpose before saving.',
        )
    if len(shape) != 3:
        if shared:
            return False
        raise InvalidFile(
            f"{name} is {word.upper()}, which needs samples of three axes, but theirs have the "
            f"shape {shape}.",
            f"Remove {name}, or add the missing axis with x[..., None].",
        )
    return word.upper() == "NHWC"


def _numbers(source: Source, name: str) -> np.ndarray:
    header = source.header(name)
    if header.dtype.kind not in "biuf" or header.dtype.itemsize > 8:
        raise InvalidFile(f"{name} holds {kind_of(header.dtype)}.", "It must hold numbers.")
    values = np.asarray(source.array(name), dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise InvalidFile(f"{name} has values that are missing or not finite.", "Compute it anew.")
    return values


def _per_channel(
    name: str, values: np.ndarray, shape: tuple[int, ...], notes: list[str]
) -> np.ndarray:
    """Values shaped to broadcast against one sample of `shape` (network's layout)."""
    if values.size == 1:
        return values.reshape(())
    if values.ndim > 1:
        if values.ndim == len(shape) + 1 and values.shape[0] == 1:
            values = values[0]
        if values.ndim == len(shape) and all(
            v in (1, s) for v, s in zip(values.shape, shape, strict=True)
        ):
            return values
    elif shape and values.size == shape[0]:
        return values.reshape(-1, *(1,) * (len(shape) - 1))
    elif len(shape) == 2 and values.size == shape[1]:
        notes.append(f"The {values.size} values of {name} were taken along the last axis.")
        return values.reshape(1, -1)
    channels = f"{shape[0]} channels" if shape else "no channels"
    size = f"{values.size} values" if values.ndim == 1 else f"the shape {values.shape}"
    hint = "Give one value, or one a channel."
    if len(shape) == 3 and values.ndim == 1 and values.size == shape[-1]:
        hint = 'The channels seem to come last: add layout="NHWC" to the file.'
    raise InvalidFile(f"{name} has {size}, but samples of the shape {shape} have {channels}.", hint)
