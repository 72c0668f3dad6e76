"""Does this data set fit this network? Asked before any work is queued or begun."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from app.domain.errors import InputMismatch
from worker.engine.formats.sources import blocks
from worker.engine.objectives.base import IGNORED, first_tensor
from worker.engine.objectives.choose import LabelFacts, choose, ends_in_sigmoid, label_facts

if TYPE_CHECKING:
    from worker.engine.formats.datasets import Dataset, DatasetInfo
    from worker.engine.formats.splits import Batch, Split
    from worker.engine.graph import CanonicalModel, InputSpec

PROBE = 2


def check_fit(model: CanonicalModel, data: Dataset | DatasetInfo) -> None:
    """Raises InputMismatch unless samples, number of inputs, types and labels fit the network.

    One small batch is run through the network to learn its output's shape. Of an opened Dataset it
    is a real one, so that NaN outputs and token ids beyond an embedding are found too, and all
    labels are read; for a DatasetInfo it is zeros.
    """
    # A Dataset can't be told by its type here: its module imports this one.
    opened: Any = data if hasattr(data, "info") else None
    info: Any = opened.info if opened else data
    splits: list[Split] = [opened.split(name) for name in info.splits] if opened else []
    shapes, dtypes = list(info.input_shapes), list(info.dtypes)
    transformed = list(info.transformed)
    if _lacks_mask(model, info.inputs):
        shapes, dtypes = [*shapes, shapes[0]], [*dtypes, "int64"]
        transformed.append(False)
    elif len(model.inputs) != info.inputs:
        raise InputMismatch(
            f"The network takes {_count(len(model.inputs), 'input')}, "
            f"the data set has {info.inputs}.",
            "Several inputs are saved as x_tune.0, x_tune.1, … in the order of the network's "
            "arguments.",
        )
    for number, spec in enumerate(model.inputs):
        _check_shape(spec, tuple(shapes[number]), len(model.inputs))
        _check_dtype(spec, dtypes[number], transformed[number])
    rows = model.fixed_batch or PROBE
    inputs, labels = _real(model, splits, rows) if splits else (_zeros(model, shapes, rows), None)
    output = _run(model, inputs)
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    if shape and shape[0] != rows:
        raise InputMismatch(
            f"For {rows} samples the network gives an output of the shape {_shape(shape)}, whose "
            f"first axis is not {rows}.",
            "The first axis of the output has to be the batch: one row of predictions a sample.",
        )
    for facts in [label_facts(split) for split in splits] or [_described(info)]:
        objective = choose(info.task, facts, shape, sigmoid=ends_in_sigmoid(model.module))
        if labels is not None and _gives_nan(objective.outputs(output, labels), labels):
            raise InputMismatch(
                "The network gives NaN for the first samples of the data set.",
                "Check scale, mean and std, and the network's weights.",
            )


def _described(info: DatasetInfo) -> LabelFacts:
    whole = np.dtype(info.label_dtype).kind in "iub"
    high = info.classes - 1 if info.classes else None
    return LabelFacts(tuple(info.label_shape), whole, high=high)


def _gives_nan(outputs: Tensor, labels: Tensor) -> bool:
    """In a position that is judged: where all of a mask is filling, attention may give NaN."""
    found = outputs.isnan()
    if outputs.ndim == labels.ndim + 1:
        found = found[labels != IGNORED]
    return bool(found.any())


def _check_shape(spec: InputSpec, sample: tuple[int, ...], inputs: int) -> None:
    wanted = tuple(spec.shape[1:])
    if _matches(wanted, sample):
        return
    which = f" for its input {spec.name}" if inputs > 1 else ""
    raise InputMismatch(
        f"The network expects samples of the shape {_shape(wanted)}{which}, the data set has "
        f"{_shape(sample)}.",
        _shape_hint(wanted, sample),
    )


def _shape_hint(wanted: tuple[int | None, ...], sample: tuple[int, ...]) -> str:
    if len(sample) == len(wanted) == 3:
        if _matches(wanted, (sample[2], sample[0], sample[1])):
            return 'The channels come last in the file: save it with layout="NHWC".'
        if _matches(wanted, (sample[1], sample[2], sample[0])):
            return 'The channels already come first in the file: remove layout="NHWC" from it.'
    if len(sample) == len(wanted) == 2 and _matches(wanted, sample[::-1]):
        return "The two axes are swapped: save x.transpose(0, 2, 1)."
    for axis in range(len(wanted)):
        if wanted[axis] in (1, None) and _matches(wanted[:axis] + wanted[axis + 1 :], sample):
            if axis == 0:
                return "The channel axis is missing: save x[:, None]."
            return f"An axis is missing: save np.expand_dims(x, {axis + 1})."
    for axis in range(len(sample)):
        if sample[axis] == 1 and _matches(wanted, sample[:axis] + sample[axis + 1 :]):
            return f"There is an axis too many: save x.squeeze({axis + 1})."
    if None not in wanted and math.prod(s for s in wanted if s is not None) == math.prod(sample):
        target = ", ".join(str(s) for s in wanted)
        return f"The number of values is right: save x.reshape(len(x), {target})."
    return (
        "Bring the samples to the network's shape, or export the network with example inputs of "
        "the data set's shape."
    )


def _check_dtype(spec: InputSpec, stored: str, transformed: bool) -> None:
    whole = not spec.dtype.is_floating_point
    name = str(spec.dtype).removeprefix("torch.")
    if whole and (stored == "bfloat16" or np.dtype(stored).kind == "f"):
        raise InputMismatch(
            f"The network's input {spec.name} takes whole numbers ({name}), the data set holds "
            f"{stored}.",
            "Save the token ids with .astype(np.int64).",
        )
    if whole and transformed:
        raise InputMismatch(
            f"The network's input {spec.name} takes whole numbers ({name}), which scale, mean and "
            "std would change.",
            "Remove them from the file; with several inputs, name the one they are for: scale.0.",
        )


def _lacks_mask(model: CanonicalModel, inputs: int) -> bool:
    """Whether the data set has everything but the attention mask, which is then all ones."""
    last = model.inputs[-1]
    return (
        inputs == len(model.inputs) - 1 >= 1
        and last.name == "attention_mask"
        and not last.dtype.is_floating_point
    )


def _zeros(model: CanonicalModel, shapes: Sequence[Sequence[int]], rows: int) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros((rows, *shape), dtype=spec.dtype)
        for shape, spec in zip(shapes, model.inputs, strict=True)
    )


def _real(model: CanonicalModel, splits: Sequence[Split], rows: int) -> Batch:
    """The first samples; whole-number inputs carry the extremes of all splits as well."""
    first = splits[0].cast([spec.dtype for spec in model.inputs])
    inputs, labels = first.gather(np.arange(rows) % len(first))
    for number, (tensor, spec) in enumerate(zip(inputs, model.inputs, strict=True)):
        stored_here = number < len(first.arrays)
        if spec.dtype.is_floating_point or spec.dtype is torch.bool or not stored_here:
            continue
        stored = {id(split.arrays[number]): split.arrays[number] for split in splits}.values()
        flat = tensor.view(-1)
        flat[0] = min(int(block.min()) for array in stored for block in blocks(array))
        flat[-1] = max(int(block.max()) for array in stored for block in blocks(array))
    return inputs, labels


def _run(model: CanonicalModel, inputs: Sequence[Tensor]) -> Any:
    model.train_mode(False)
    try:
        with torch.inference_mode():
            output = model.module(*inputs)
    except (RuntimeError, IndexError, ValueError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputMismatch(
            f"The network can't be run on samples of this data set: {reason}",
            "Whole-number inputs must stay below the size of the embedding they index; other "
            "inputs must have the shape the network was exported with.",
        ) from error
    return first_tensor(output)


def _matches(wanted: Sequence[int | None], sample: Sequence[int]) -> bool:
    return len(wanted) == len(sample) and all(
        w is None or w == s for w, s in zip(wanted, sample, strict=True)
    )


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
