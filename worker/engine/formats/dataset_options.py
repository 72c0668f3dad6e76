"""What the uploader says about a data set beside the file: checked before the file is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.errors import InvalidInput
from app.domain.metrics import Task

MAX_SIZE = 4096
MAX_BLOCK = 1 << 20
MAX_NAMES = 2000


@dataclass(frozen=True)
class ArrayOptions:
    """`labels`: how rows of 0 and 1 are to be read, "one-hot" or "multi-label"."""

    labels: str | None = None


@dataclass(frozen=True)
class TokenOptions:
    """`block`: length of the windows of one long text. `mask`: number of the input that is the
    attention mask, False for none. `labels`: "aligned" (labels[t] is the token after t) or "shift"
    (labels are like the ids and are moved by one here)."""

    block: int = 128
    pad_token: int | None = None
    mask: int | bool | None = None
    labels: str = "aligned"


@dataclass(frozen=True)
class ImageOptions:
    """As said by the user; None where nothing was said. Sizes are (height, width)."""

    preset: str | None = None
    size: tuple[int, int] | None = None
    resize: int | tuple[int, int] | None = None
    crop: str | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int | None = None


@dataclass(frozen=True)
class TableOptions:
    """Columns by their names. `as_form`: categories as "one-hot" columns or as an "index" input."""

    target: str | None = None
    ignore: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    as_form: str = "one-hot"


Options = ArrayOptions | TokenOptions | ImageOptions | TableOptions
PRESETS = ("imagenet", "clip", "cifar10", "half", "none")


def read_options(form: str, task: str, options: Mapping[str, Any] | None) -> Options:
    """The options for a file of the format `form` ("npz", "images", …). None means not given.

    Raises InvalidInput naming every wrong option in `fields`.
    """
    if task not in tuple(Task):
        raise InvalidInput(
            f"The task {task!r} is not known.",
            f"It is one of {', '.join(Task)}.",
            fields={"task": f"must be one of {', '.join(Task)}"},
        )
    if options is not None and not isinstance(options, Mapping):
        raise InvalidInput(
            "The options are no JSON object.",
            'Give them as {"name": value}.',
            fields={"options": "must be a JSON object"},
        )
    given = {str(k): v for k, v in (options or {}).items() if v is not None}
    if form == "images":
        _only(task, Task.CLASSIFICATION, "Images in folders are labelled by their folders")
        return _checked(ImageOptions, _IMAGES, given, form)
    if form in ("csv", "parquet"):
        if task == Task.LANGUAGE_MODELLING:
            _only(task, Task.CLASSIFICATION, "A table holds no rows of tokens")
        renamed = {("as_form" if k == "as" else k): v for k, v in given.items()}
        read: TableOptions = _checked(TableOptions, _TABLES, renamed, form)
        return read
    if task == Task.LANGUAGE_MODELLING:
        return _checked(TokenOptions, _TOKENS, given, task)
    checks = _ARRAYS if task == Task.CLASSIFICATION else {}
    return _checked(ArrayOptions, checks, given, f"{form} and {task}")


class _Wrong(ValueError):
    pass


def _checked(
    kind: type[Any], checks: Mapping[str, Callable[[Any], Any]], given: dict[str, Any], where: str
) -> Any:
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for key, value in given.items():
        if key not in checks:
            known = ", ".join("as" if k == "as_form" else k for k in checks) or "none"
            wrong[key[:40]] = f"not known for {where}; known: {known}"
            continue
        try:
            values[key] = checks[key](value)
        except _Wrong as error:
            wrong["as" if key == "as_form" else key] = str(error)
    if not wrong and kind is ImageOptions:
        wrong = _channel_faults(values)
    if wrong:
        key, fault = next(iter(wrong.items()))
        raise InvalidInput(
            f"The option {key!r} can't be used: {fault}.",
            "Correct it or leave it out.",
            fields={f"options.{k}": v for k, v in wrong.items()},
        )
    return kind(**values)


def _channel_faults(values: Mapping[str, Any]) -> dict[str, str]:
    channels = values.get("channels", 3)
    coloured = values.get("preset") in ("imagenet", "clip", "cifar10")
    if coloured and channels == 1 and not ("mean" in values and "std" in values):
        return {"preset": "is for colour images; give mean and std with channels 1"}
    return {
        key: f"must have one number, or {channels} (one a channel)"
        for key in ("mean", "std")
        if key in values and len(values[key]) not in (1, channels)
    }


def _only(task: str, wanted: str, why: str) -> None:
    if task != wanted:
        raise InvalidInput(
            f"{why}; the task {task} can't be read from them.",
            f"Upload it as {wanted}, or bring arrays (.npz, .safetensors).",
            fields={"task": f"must be {wanted} for this file"},
        )


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _Wrong(f"must be a whole number from {low:,} to {high:,}")
        return value

    return check


def _word(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise _Wrong("must be " + " or ".join(f'"{w}"' for w in words))
        return str(value)

    return check


def _pair(value: Any) -> tuple[int, int]:
    side = _whole(1, MAX_SIZE)
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise _Wrong("must be one whole number or [height, width]")
        return side(value[0]), side(value[1])
    return side(value), side(value)


def _resize(value: Any) -> int | tuple[int, int]:
    return _pair(value) if isinstance(value, list | tuple) else _whole(1, MAX_SIZE)(value)


def _numbers(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    fine = values and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )
    if not fine or len(values) > 3:
        raise _Wrong("must be a list of numbers, one a channel")
    return tuple(float(v) for v in values)


def _positive(value: Any) -> tuple[float, ...]:
    values = _numbers(value)
    if min(values) <= 0:
        raise _Wrong("must be above 0: samples are divided by it")
    return values


def _channels(value: Any) -> int:
    if type(value) is not int or value not in (1, 3):
        raise _Wrong("must be 3 (colour) or 1 (grey)")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise _Wrong("must be the name of a column")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_NAMES:
        raise _Wrong("must be a list of column names")
    return tuple(_name(v) for v in value)


def _mask(value: Any) -> int | bool:
    return False if value is False else _whole(1, 99)(value)


_ARRAYS = {"labels": _word("one-hot", "multi-label")}
_TOKENS = {
    "block": _whole(2, MAX_BLOCK),
    "pad_token": _whole(0, 10_000_000),
    "mask": _mask,
    "labels": _word("aligned", "shift"),
}
_IMAGES = {
    "preset": _word(*PRESETS),
    "size": _pair,
    "resize": _resize,
    "crop": _word("center", "none"),
    "interpolation": _word("bilinear", "bicubic"),
    "mean": _numbers,
    "std": _positive,
    "channels": _channels,
}
_TABLES = {
    "target": _name,
    "ignore": _names,
    "categorical": _names,
    "as_form": _word("one-hot", "index"),
}
