"""What a child may say of an upload it has read. Names in it are text to be shown, nothing more."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from worker.tasks.reports import (
    MAX_COUNT,
    MAX_NAMES,
    Count,
    Name,
    Number,
    OpenShape,
    Report,
    Sentence,
    Shape,
    Word,
    check_json,
    require,
)


class Layer(Report):
    path: Name
    type: Name
    parameters: Count
    macs: Count
    output_shape: OpenShape


class Unit(Report):
    id: Name
    size: Count
    shape: Shape
    members: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    layer: Name
    macs: Count
    itemsize: Annotated[int, Field(ge=1, le=16)]
    prunable: bool
    reason: Sentence | None


class NetworkInput(Report):
    name: Name
    shape: OpenShape
    dtype: Word


class Histogram(Report):
    low: Number | None
    high: Number | None
    counts: Annotated[list[Count], Field(max_length=1000)]


class TensorLook(Report):
    """A look at one tensor of a file of weights alone, as `weights_look` takes it."""

    key: Name
    also: Annotated[list[Name], Field(max_length=10_000)]
    shape: Shape
    dtype: Word
    numel: Count
    zeros: Count
    nan: Count
    inf: Count
    min: Number | None
    max: Number | None
    mean: Number | None
    std: Number | None
    histogram: Histogram | None
    thresholds: Annotated[dict[Word, Number | None], Field(max_length=1000)] | None


class ModelDetails(Report):
    """`key_prefix`, `renamed`: how the keys of uploaded weights differ from the network's."""

    kind: Literal["network", "weights"]
    notes: Annotated[list[Sentence], Field(max_length=1000)]
    key_prefix: Name | None = None
    renamed: Annotated[dict[Name, Name], Field(max_length=MAX_NAMES)] | None = None
    nested_under: Name | None = None
    architecture: Name | None = None
    architecture_args: dict[str, Any] | None = None
    weights: Annotated[list[TensorLook], Field(max_length=MAX_NAMES)] | None = None
    totals: Annotated[dict[Word, Count], Field(max_length=100)] | None = None


class ImportedModel(Report):
    """What `worker.inside.import_model` gives."""

    format: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,16}$")]
    details: ModelDetails
    derived: bool
    layers: Annotated[list[Layer], Field(max_length=MAX_NAMES)]
    units: Annotated[list[Unit], Field(max_length=MAX_NAMES)]
    inputs: Annotated[list[NetworkInput], Field(max_length=1000)]
    parameters: Count | None
    macs: Count | None
    state_bytes: Count | None
    fixed_batch: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None

    def check(self) -> None:
        """Raises ChildMalformed for a description that contradicts itself."""
        check_json(self.details.architecture_args, "arguments")
        if self.details.kind == "weights":
            nothing = not (self.layers or self.units or self.inputs or self.derived)
            require(nothing, "weights alone that have a network")
            return
        ids = [unit.id for unit in self.units]
        require(len(set(ids)) == len(ids), "two units of one name")
        for unit in self.units:
            require(math.prod(unit.shape) == unit.size, "a unit whose size is not its shape's")
            require(unit.id in unit.members, "a unit that is none of its members")
            require(not unit.prunable or unit.size > 0, "an empty unit to be pruned")
        require(self.parameters == sum(unit.size for unit in self.units), "parameters of no unit")
        require(self.macs == sum(layer.macs for layer in self.layers), "operations of no layer")
        require(self.state_bytes is not None, "a network of no size")


class ImportedDataset(Report):
    """What `worker.inside.import_dataset` gives: a DatasetInfo."""

    task: Word
    format: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,16}$")]
    splits: Annotated[
        dict[Literal["train", "tune", "test"], Annotated[int, Field(ge=1, le=2**31 - 1)]],
        Field(min_length=1),
    ]
    input_shape: Shape
    input_shapes: Annotated[list[Shape], Field(max_length=1000)]
    inputs: Annotated[int, Field(ge=1, le=1000)]
    dtype: Word
    dtypes: Annotated[list[Word], Field(max_length=1000)]
    transformed: Annotated[list[bool], Field(max_length=1000)]
    classes: Annotated[int, Field(ge=0, le=2**31 - 1)] | None
    counts: dict[
        Literal["train", "tune", "test"], Annotated[list[Count], Field(max_length=MAX_NAMES)]
    ]
    notes: Annotated[list[Sentence], Field(max_length=1000)]
    label_shape: Shape
    label_dtype: Word
    class_names: Annotated[list[Name], Field(max_length=MAX_NAMES)]
    feature_names: Annotated[list[Name], Field(max_length=MAX_NAMES)]
    options: dict[str, Any]
    prepared: bool

    def check(self, task: str) -> None:
        """Raises ChildMalformed for a description that contradicts itself, or is of another task.

        `task` is what the uploader asked for.
        """
        require(self.task == task, "a data set of another task")
        check_json(self.options, "options")
        require(len(self.input_shapes) == self.inputs, "inputs without a shape")
        require(self.input_shapes[0] == self.input_shape, "two shapes of one input")
        require(len(self.dtypes) == self.inputs, "inputs without a type")
        require(self.counts.keys() <= self.splits.keys(), "counts of no split")
