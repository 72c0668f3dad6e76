"""Whether uploaded tensors are those of a network, and a sentence about every one that is not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from app.domain.errors import InvalidFile

LISTED = 10
_COUNTERS = "num_batches_tracked"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """`missing`, `unexpected` and `misshaped` are keys of the network (of the upload for
    `unexpected`); `tied` maps a missing key to a present one of the same tensor; `counters` are
    missing counters of batches, which start at zero; `passed_over` are keys of the upload that the
    network has no use for."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]
    tied: Mapping[str, str]
    counters: tuple[str, ...]
    passed_over: tuple[str, ...]

    @property
    def faults(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)


def tie_groups(module: nn.Module) -> list[tuple[str, ...]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [tuple(group) for group in names.values() if len(group) > 1]


def compare(module: nn.Module, uploaded: Mapping[str, Shape], ignored: Iterable[str] = ()) -> Fit:
    """How the uploaded shapes, by key, fit the network's state_dict."""
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    patterns = [re.compile(pattern) for pattern in ignored]
    tied = {
        key: next(name for name in group if name in uploaded)
        for group in tie_groups(module)
        if any(name in uploaded for name in group)
        for key in group
        if key not in uploaded
    }
    absent = [key for key in own if key not in uploaded and key not in tied]
    counters = tuple(key for key in absent if key.endswith(_COUNTERS))
    surplus = [key for key in uploaded if key not in own]
    passed_over = tuple(key for key in surplus if any(p.search(key) for p in patterns))
    return Fit(
        tuple(key for key in absent if key not in counters),
        tuple(key for key in surplus if key not in passed_over),
        tuple(key for key in own if key in uploaded and uploaded[key] != own[key]),
        tied,
        counters,
        passed_over,
    )


def misfit(
    fit: Fit, module: nn.Module, uploaded: Mapping[str, Shape], name: str, hint: str = ""
) -> InvalidFile:
    """The error that lists what doesn't fit, with the nearest of what is there."""
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    parts = []
    if fit.missing:
        free = {key: uploaded[key] for key in fit.unexpected}
        lines = [f"{key}{_nearest(key, own[key], free)}" for key in fit.missing[:LISTED]]
        parts.append(_list("missing in the file", lines, len(fit.missing)))
    if fit.unexpected:
        wanted = {key: own[key] for key in fit.missing}
        lines = [f"{key}{_nearest(key, uploaded[key], wanted)}" for key in fit.unexpected[:LISTED]]
        parts.append(_list("unknown to the architecture", lines, len(fit.unexpected)))
    if fit.misshaped:
        lines = [
            f"{key} is {list(uploaded[key])} in the file, {list(own[key])} in the architecture"
            for key in fit.misshaped[:LISTED]
        ]
        parts.append(_list("of another shape", lines, len(fit.misshaped)))
    return InvalidFile(
        f"The weights are not those of {name}.\n" + "\n".join(parts),
        hint or "Name the architecture the weights were trained with, with its arguments.",
    )


def _list(what: str, lines: Sequence[str], count: int) -> str:
    more = f"\n  … and {count - len(lines):,} more" if count > len(lines) else ""
    return f"{count:,} {what}:\n  " + "\n  ".join(lines) + more


def _nearest(key: str, shape: Shape, others: Mapping[str, Shape]) -> str:
    """The most similar name, one of the same shape before others."""
    # Comparing everything with everything takes long for thousands of keys.
    same = [other for other in others if others[other] == shape][:500]
    close = difflib.get_close_matches(key, same, 1, 0.4)
    if close:
        return f" (nearest, of the same shape: {close[0]})"
    close = difflib.get_close_matches(key, list(others)[:500], 1, 0.6)
    return f" (nearest: {close[0]}, {list(others[close[0]])})" if close else ""
