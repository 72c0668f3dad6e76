"""What a user's own `DataLoader` gives, gathered into a data set file like an uploaded one.

The file is then read by the same reader as an upload, with the same checks, and mapped rather than
held: what is in memory at once is one batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from app.domain.errors import InvalidInput
from app.domain.metrics import Task

EXAMPLES = 2
"""Samples kept as they came: torch.export takes no fewer for a free batch dimension."""
_WHOLE_BATCH = 256
_COLLATE = (
    "Give the loader a collate_fn that returns a tuple, the inputs in the order of the network's "
    "forward and the labels last: (images, labels) or (ids, mask, labels)."
)


@dataclass
class _Column:
    """One array, written to a file as its rows come. `shape`: of one sample."""

    file: BinaryIO
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()
    rows: int = 0

    def add(self, values: np.ndarray, what: str) -> None:
        if self.dtype is None:
            self.dtype, self.shape = values.dtype, values.shape[1:]
        if values.shape[1:] != self.shape:
            raise InvalidInput(
                f"{what} have different shapes: {self.shape} and {values.shape[1:]}.",
                "Pad or resize all samples to one shape.",
            )
        values.astype(self.dtype, order="C", copy=False).tofile(self.file)
        self.rows += len(values)

    def mapped(self) -> np.ndarray:
        self.file.flush()
        assert self.dtype is not None
        shape = (self.rows, *self.shape)
        if 0 in shape:
            return np.zeros(shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", shape=shape)


@dataclass
class Gathered:
    """Everything of one loader: inputs, labels (none for running text), the first samples as given.

    `examples` [2, ...] are in the loader's own number types.
    """

    inputs: list[_Column]
    labels: _Column | None
    examples: tuple[Tensor, ...] = ()
    _first: list[tuple[Tensor, ...]] = field(default_factory=list)

    @property
    def samples(self) -> int:
        return self.inputs[0].rows if self.inputs else 0


def gather(loader: Any, name: str, folder: Path, *, task: str, seed: int = 0) -> Gathered:
    """All samples of a loader, in the order of its data set where it would shuffle them.

    `loader` is a DataLoader, a map-style Dataset of (input, label) pairs, or any iterable of
    batches: `(inputs..., labels)`, for language modelling also tokens alone. `name` is what errors
    call it. Random transforms draw from `seed`; torch's own generator is left as it was. Raises
    InvalidInput with a sentence for whatever can't be used.
    """
    found: Gathered | None = None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for batch in _batches(loader, name):
            inputs, labels = _parts(batch, name, task)
            if found is None:
                columns = [_Column(_file(folder)) for _ in inputs]
                found = Gathered(columns, None if labels is None else _Column(_file(folder)))
            _add(found, inputs, labels, name)
    if found is None or found.samples == 0:
        raise InvalidInput(f"{name} yields nothing.", "Give a loader with at least two samples.")
    if found.samples < EXAMPLES:
        raise InvalidInput(
            f"{name} yields a single sample; no interval and no curve rests on one.",
            "Give a loader with at least two samples, better with hundreds.",
        )
    found.examples = tuple(torch.cat(each)[:EXAMPLES] for each in zip(*found._first, strict=True))
    return found


def write_dataset(parts: Mapping[str, Gathered], path: Path) -> None:
    """The `.npz` that an upload of these would be; `parts` are `tune`, and `train` if there is one.

    Raises InvalidInput where they don't go together.
    """
    arrays: dict[str, np.ndarray] = {}
    for part, gathered in parts.items():
        one = len(gathered.inputs) == 1
        for at, column in enumerate(gathered.inputs):
            arrays[f"x_{part}" if one else f"x_{part}.{at}"] = column.mapped()
        if gathered.labels is not None:
            arrays[f"y_{part}"] = gathered.labels.mapped()
    np.savez(path, allow_pickle=False, **arrays)


def _file(folder: Path) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder)


def _batches(loader: Any, name: str) -> Iterator[Any]:
    if isinstance(loader, IterableDataset):
        raise InvalidInput(f"{name} is a data set that yields samples.", "Put it in a DataLoader.")
    if isinstance(loader, Dataset):
        loader = DataLoader(loader, batch_size=_WHOLE_BATCH)
    loader = _in_order(loader)
    if isinstance(loader, str | bytes | Mapping | Tensor | np.ndarray) or not isinstance(
        loader, Iterable
    ):
        raise InvalidInput(
            f"{name} is a {type(loader).__name__}, which yields no batches.",
            "Give a torch.utils.data.DataLoader, or a list of (inputs, labels) batches.",
        )
    return iter(loader)


def _in_order(loader: Any) -> Any:
    """The same without shuffling and without leaving out a last batch: figures are of all samples.

    A sampler of the user's own is left alone: it may choose samples.
    """
    if not isinstance(loader, DataLoader) or loader.batch_size is None:
        return loader
    sampler = loader.sampler
    shuffles = isinstance(sampler, RandomSampler) and not sampler.replacement
    whole = shuffles and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    if not whole and not (loader.drop_last and not isinstance(sampler, RandomSampler)):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=None if whole else sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )


def _parts(batch: Any, name: str, task: str) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The inputs and labels of one batch."""
    if isinstance(batch, Mapping):
        keys = ", ".join(str(key) for key in list(batch)[:6])
        raise InvalidInput(f"{name} yields dictionaries ({keys}).", _COLLATE)
    several = isinstance(batch, Sequence) and not isinstance(batch, str)
    parts = list(batch) if several else [batch]
    flat = [*(part for given in parts[:-1] for part in _flat(given)), *parts[-1:]]
    if len(parts) == 1 and isinstance(parts[0], list | tuple):
        flat = list(parts[0])
    tensors = [_tensor(part, name) for part in flat]
    if not tensors or any(tensor.dim() == 0 for tensor in tensors):
        raise InvalidInput(
            f"{name} yields single samples, not batches.", "Give the DataLoader a batch_size."
        )
    if task == Task.LANGUAGE_MODELLING and len(tensors) == 1:
        return tuple(tensors), None
    if len(tensors) == 1:
        raise InvalidInput(f"{name} yields no labels, only inputs.", _COLLATE)
    return tuple(tensors[:-1]), tensors[-1]


def _flat(given: Any) -> list[Any]:
    """Inputs that come as a tuple of their own: ((ids, mask), labels)."""
    return list(given) if isinstance(given, list | tuple) else [given]


def _tensor(part: Any, name: str) -> Tensor:
    if isinstance(part, Mapping):
        raise InvalidInput(f"{name} yields dictionaries as inputs.", _COLLATE)
    try:
        tensor = part if isinstance(part, Tensor) else torch.as_tensor(np.asarray(part))
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(
            f"{name} yields a {type(part).__name__} where numbers are needed.", _COLLATE
        ) from None
    tensor = tensor.detach().cpu()
    return tensor.to_dense() if tensor.layout is not torch.strided else tensor


def _add(found: Gathered, inputs: tuple[Tensor, ...], labels: Tensor | None, name: str) -> None:
    given = [*inputs, *([] if labels is None else [labels])]
    if len(inputs) != len(found.inputs) or (labels is None) != (found.labels is None):
        raise InvalidInput(
            f"{name} yields batches of different forms: some have {len(found.inputs)} inputs, "
            f"some {len(inputs)}.",
            "All batches must be alike.",
        )
    sizes = [len(tensor) for tensor in given]
    if len(set(sizes)) > 1:
        raise InvalidInput(
            f"{name} yields inputs and labels of different numbers of samples "
            f"({', '.join(str(size) for size in sizes)}).",
            "The first axis of every part of a batch must count its samples.",
        )
    for at, (column, tensor) in enumerate(zip(found.inputs, inputs, strict=True)):
        column.add(_array(tensor), f"{name}: samples" if at == 0 else f"{name}: input {at}")
    if found.labels is not None and labels is not None:
        found.labels.add(_array(labels), f"{name}: labels")
    if sum(len(first[0]) for first in found._first) < EXAMPLES:
        found._first.append(tuple(tensor[:EXAMPLES].clone() for tensor in inputs))


def _array(tensor: Tensor) -> np.ndarray:
    """numpy has no bfloat16; its numbers are float32 numbers."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
