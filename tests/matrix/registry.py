"""Architectures of the matrix: how each is built, what it is given, how it is exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 3


@dataclass(frozen=True)
class Made:
    """A network with the inputs it is exported with.

    `dynamic`: the batch is free in the export. `training`: it is exported in training mode.
    """

    module: nn.Module
    args: tuple[Tensor, ...] = ()
    kwargs: Mapping[str, Tensor] = field(default_factory=dict)
    dynamic: bool = True
    training: bool = False

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (*self.args, *self.kwargs.values())


@dataclass(frozen=True)
class Entry:
    """One row of the matrix.

    `training`: what training mode changes: "same" (the source's own answers with the same random
    numbers), "nothing" (it has no dropout and no statistics of batches), or "differs" where an
    export can't hold what the source does in training mode (`note` says what). `fixed`: it runs
    with the batch of the export only.
    """

    name: str
    library: str
    family: str
    build: Callable[[], Made]
    training: str = "same"
    task: str = "single-label"
    note: str = ""
    fixed: bool = False

    def make(self) -> Made:
        """The network with seeded weights and statistics, in the mode it is exported in."""
        torch.manual_seed(0)
        made = self.build()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in made.module.parameters():
                # Zeros to start with would hide what comes before them, alike scales their order.
                if parameter.requires_grad and bool((parameter == parameter.flatten()[0]).all()):
                    noise = torch.randn(parameter.shape, generator=generator) * 0.2
                    parameter.add_(noise.to(parameter.dtype))
            for name, buffer in made.module.named_buffers():
                if name.endswith("running_mean"):
                    buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.2)
                elif name.endswith("running_var"):
                    buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        made.module.train(made.training)
        return made


class Library:
    """The entries of one library, in the order in which they are written down."""

    def __init__(
        self, name: str, around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """`around`: what networks have to be built within."""
        self.name = name
        self.around = around
        self.entries: list[Entry] = []

    def entry(self, family: str, **more: Any) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
        """Registers a function under its own name, underscores as hyphens."""

        def register(build: Callable[[], Made]) -> Callable[[], Made]:
            name = more.pop("name", build.__name__.replace("_", "-"))

            def within() -> Made:
                with self.around():
                    return build()

            self.entries.append(Entry(name, self.name, family, within, **more))
            return build

        return register


def samples_like(inputs: tuple[Tensor, ...], count: int, seed: int = 7) -> tuple[Tensor, ...]:
    """`count` other samples of the same kind: normal numbers, ids that occur, masks as they are."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for tensor in inputs:
        shape = (count, *tensor.shape[1:])
        if tensor.is_floating_point():
            made.append(torch.randn(shape, generator=generator).to(tensor.dtype))
        elif tensor.dtype is torch.bool or int(tensor.max()) <= 1:
            made.append(tensor[torch.arange(count) % len(tensor)].clone())
        else:
            low, high = int(tensor.min()), int(tensor.max())
            made.append(torch.randint(low, high + 1, shape, generator=generator).to(tensor.dtype))
    return tuple(made)
