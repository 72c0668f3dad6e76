"""What a network predicts, found out from the task, the labels and the network's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from app.domain.errors import InputMismatch
from app.domain.metrics import Kind, Task
from worker.engine.batches import evaluating, load_batch, require_samples
from worker.engine.formats.sources import blocks
from worker.engine.objectives.base import IGNORED, Objective, first_tensor
from worker.engine.objectives.labels import MultiLabel
from worker.engine.objectives.numbers import MOST_NUMBERS, Regression
from worker.engine.objectives.positions import Positions
from worker.engine.objectives.single import SingleLabel

if TYPE_CHECKING:
    from worker.engine.formats.splits import Split
    from worker.engine.graph import CanonicalModel

PROBE = 2


@dataclass(frozen=True)
class LabelFacts:
    """What labels look like: the shape of one sample's, the kind of numbers, and their range.

    `low` and `high` leave -100 out, except in a regression; None when there is nothing else or
    nothing is known. `whole`: integers or booleans. `binary`: nothing but 0 and 1.
    """

    shape: tuple[int, ...]
    whole: bool
    low: float | None = None
    high: float | None = None
    binary: bool = True


def label_facts(split: Split) -> LabelFacts:
    """Reads all labels of a split once, in blocks."""
    labels = split.labels
    whole = labels.dtype.kind in "iub"
    low = high = None
    binary = True
    for block in blocks(labels):
        values = block[block != IGNORED] if whole and split.task != Task.REGRESSION else block
        if not values.size:
            continue
        least, most = float(values.min()), float(values.max())
        low = least if low is None else min(low, least)
        high = most if high is None else max(high, most)
        binary = binary and bool(np.isin(block, (0, 1)).all())
    return LabelFacts(tuple(labels.shape[1:]), whole, low, high, binary)


def objective_for(model: CanonicalModel, split: Split) -> Objective:
    """The objective of this network on this split. Runs the network on two samples.

    Raises InputMismatch, with what to do, where output and labels don't belong together, and
    InvalidInput for an empty split.
    """
    samples = require_samples(split)
    inputs, _ = load_batch(model, split, 0, min(PROBE, samples))
    with evaluating(model), torch.inference_mode():
        output = first_tensor(model.module(*inputs))
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    found = choose(split.task, label_facts(split), shape, sigmoid=ends_in_sigmoid(model.module))
    if isinstance(found, Regression):
        mean, variance = _moments(split)
        few = found.numbers <= MOST_NUMBERS
        return replace(found, mean=mean if few else None, steepness=max(1.0, variance))
    return found


def choose(
    task: str, labels: LabelFacts, output: tuple[int, ...] | None, *, sigmoid: bool = False
) -> Objective:
    """The objective for labels and an output of this shape (with its batch axis).

    `output` None: the network returns no tensor. `sigmoid`: it ends in one.
    """
    if not output:
        shape = "no tensor" if output is None else "a single number for the whole batch"
        raise InputMismatch(
            f"The network returns {shape}.",
            "Export a network whose first output is one row of predictions a sample.",
        )
    sample = output[1:]
    if task == Task.REGRESSION:
        return _regression(labels, sample)
    if task == Task.LANGUAGE_MODELLING:
        return _words(labels, sample)
    if not labels.shape:
        return _single(labels, sample)
    if len(sample) == len(labels.shape) + 1 and len(labels.shape) >= 1:
        return _positions(labels, sample)
    return _multi(labels, sample, sigmoid)


def _single(labels: LabelFacts, sample: tuple[int, ...]) -> Objective:
    if not labels.whole and not labels.binary:
        raise InputMismatch(
            "The labels are numbers with fractions; classification needs whole numbers from 0.",
            "Upload the data set as a regression, or save the labels as class numbers.",
        )
    if len(sample) == 2:
        raise InputMismatch(
            f"The network gives {_shape(sample)} for each sample, the data set has one label a "
            "sample; classification needs one row of class scores a sample.",
            "Upload labels for each position, (samples, positions), or export a network that gives "
            "one row of class scores a sample.",
        )
    if len(sample) != 1:
        raise InputMismatch(
            f"For each sample the network gives {_shape(sample)}; classification needs one row of "
            "class scores a sample.",
            "Export a network whose forward returns scores of the shape (batch, classes).",
        )
    width = sample[0]
    if width == 1:
        raise InputMismatch(
            "The network has a single output; classification needs one score for each class.",
            "Export it with one output a class (two for yes and no), or save the labels as floats "
            "of the shape (samples, 1): one yes/no label each; a network that predicts a "
            "number needs the data set uploaded as a regression.",
        )
    _check_classes(labels, width)
    return SingleLabel(width)


def _positions(labels: LabelFacts, sample: tuple[int, ...]) -> Objective:
    places = labels.shape
    last, first = sample[:-1] == places, sample[1:] == places
    if not (last or first):
        raise InputMismatch(
            f"The data set has labels for {_shape(places)} positions a sample, the network gives "
            f"{_shape(sample)}.",
            "The output needs the classes as its last axis or right after the batch axis, and "
            "otherwise the shape of the labels. Resize the labels, or export a network that "
            "predicts at every position.",
        )
    # Where both fit, taggers have the classes last and maps of pixels have them first.
    axis = -1 if last and not (first and len(places) >= 2) else 1
    width = sample[axis if axis == -1 else 0]
    if not labels.whole:
        raise InputMismatch(
            f"The labels are numbers of the shape {_shape(places)}; one class for each position "
            "has to be a whole number.",
            "Save the labels as integers, with -100 where a position is not to be judged.",
        )
    if width == 1:
        raise InputMismatch(
            "The network has a single output for each position; classification needs one score "
            "for each class.",
            "Export it with one output a class (two for yes and no).",
        )
    _check_classes(labels, width)
    return Positions(Kind.PER_POSITION, width, places, axis)


def _multi(labels: LabelFacts, sample: tuple[int, ...], sigmoid: bool) -> Objective:
    if len(labels.shape) == 1 and sample == labels.shape:
        if not labels.binary:
            what = (
                f"go up to {_number(labels.high)}" if labels.high is not None else "are not 0 and 1"
            )
            raise InputMismatch(
                f"The network gives one number for each of {labels.shape[0]} labels, which are "
                f"yes or no, but the labels {what}.",
                "Save 0 and 1 for labels that are there or not. For one class out of several at "
                "each position the network has to give a score for each class, "
                "(batch, positions, classes); numbers to predict are a regression.",
            )
        return MultiLabel(labels.shape[0], probabilities=sigmoid)
    if labels.shape == (1,) and len(sample) == 1:
        raise InputMismatch(
            f"The labels have the shape (samples, 1), the network gives {sample[0]} numbers a "
            "sample.",
            "If they are class numbers, save y.reshape(-1).",
        )
    if len(labels.shape) == 1 and len(sample) == 1:
        kind = "yes/no labels" if labels.binary else "labels"
        raise InputMismatch(
            f"The data set has {labels.shape[0]} {kind} a sample, the network {sample[0]} outputs.",
            "Yes/no labels need one output each; a class for each position needs the scores of all "
            "classes at each position, (batch, positions, classes).",
        )
    raise InputMismatch(
        f"The data set has labels of the shape {_shape(labels.shape)}, the network gives "
        f"{_shape(sample)} a sample.",
        "One class for each position needs an output with one more axis, of the scores of its "
        "classes; export two of them for yes and no.",
    )


def _regression(labels: LabelFacts, sample: tuple[int, ...]) -> Objective:
    wanted = () if labels.shape == (1,) else labels.shape
    given = () if sample == (1,) else sample
    if wanted != given:
        raise InputMismatch(
            f"The data set has {_numbers(wanted)} to predict for each sample, the network gives "
            f"{_numbers(given)}.",
            "Export a network with as many outputs as numbers to predict, in the labels' shape.",
        )
    return Regression(labels.shape)


def _words(labels: LabelFacts, sample: tuple[int, ...]) -> Objective:
    if len(labels.shape) != 1 or not labels.whole:
        raise InputMismatch(
            "Language modelling needs one token id a position as labels, of the shape "
            f"(samples, length); the data set has {_shape(labels.shape)} a sample.",
            "Save the labels as integers shifted by one, with -100 where nothing follows.",
        )
    length = labels.shape[0]
    if len(sample) != 2 or sample[0] != length:
        raise InputMismatch(
            f"Samples have {length} tokens, the network gives {_shape(sample)} a sample; language "
            "modelling needs scores of the whole vocabulary at each token, "
            f"({length}, vocabulary).",
            "Export the network with logits of the shape (batch, length, vocabulary) as its first "
            "output.",
        )
    width = sample[1]
    low, high = labels.low or 0, labels.high or 0
    if high >= width or low < 0:
        wrong = f"up to {_number(high)}" if high >= width else f"down to {_number(low)}"
        raise InputMismatch(
            f"Token ids go {wrong}, but the network knows {width} tokens (0 to {width - 1}).",
            "The data set was made with another tokeniser, or this is not the output of a "
            "language model. -100 marks a position that is not to be judged.",
        )
    return Positions(Kind.LANGUAGE_MODELLING, width, (length,))


def _check_classes(labels: LabelFacts, width: int) -> None:
    if labels.low is not None and labels.low < 0:
        raise InputMismatch(
            f"Labels go down to {_number(labels.low)}; the model knows {width} classes (0 to "
            f"{width - 1}).",
            "Number the classes from 0. -100 marks a position that is not to be judged, where a "
            "sample has several.",
        )
    if labels.high is not None and labels.high >= width:
        raise InputMismatch(
            f"Labels go up to {_number(labels.high)}, but the network has {width} outputs "
            f"(labels 0 to {width - 1}).",
            "If the labels start at 1, subtract 1; otherwise this data set belongs to another "
            "network.",
        )


def ends_in_sigmoid(module: fx.GraphModule) -> bool:
    """Is what the network predicts with the result of a sigmoid?"""
    output = next(node for node in module.graph.nodes if node.op == "output")
    node: Any = first_tensor(output.args[0])
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        return isinstance(module.get_submodule(str(node.target)), nn.Sigmoid)
    name = str(getattr(node.target, "__name__", node.target))
    return name.split(".")[0].rstrip("_") == "sigmoid"


def _moments(split: Split) -> tuple[np.ndarray, float]:
    """The mean of each number over the samples [numbers], and the mean of their variances."""

    def rows() -> Iterator[np.ndarray]:
        for block in blocks(split.labels):
            yield np.asarray(block, np.float64).reshape(len(block), -1)

    mean = np.asarray(sum(values.sum(axis=0) for values in rows()) / len(split))
    squares = sum(float(((values - mean) ** 2).sum()) for values in rows())
    variance = squares / (len(split) * max(1, mean.size))
    return mean, variance if np.isfinite(variance) else 1.0


def _shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _numbers(shape: Sequence[int]) -> str:
    if not shape:
        return "one number"
    return f"{shape[0]} numbers" if len(shape) == 1 else f"numbers of the shape {_shape(shape)}"
