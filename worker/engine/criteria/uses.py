"""What a node does with a weight: which of its inputs meet which rows, and each sample's gradient.

Wherever a weight M is used as y = M x, the gradient of one sample's loss is the sum over places
(pixels, tokens, time steps) of dy x^T. So it can be had for a whole batch from what goes in and
what comes back, without one backward pass a sample (Goodfellow, 2015; Rochette, Manoel and Tramel,
2019, for convolutions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.criteria.matrices import MatrixView, Window, each, zero_padding
from worker.engine.criteria.readers import (
    CONVOLUTIONS,
    TRANSPOSED,
    Reader,
    is_convolution,
    is_linear,
    product_input,
)

NO_WINDOW = Window((), (), (), ())


@dataclass(frozen=True)
class Use:
    """One way of using a weight, of `shape`, as matrices.

    `seen`: what goes in can be weighed column by column, as the criteria of inputs want it.
    """

    shape: tuple[int, ...]
    view: MatrixView
    seen: bool = True

    def columns(self, x: Tensor) -> Tensor:
        """[batch, groups, columns, places] of an input [batch, ...]."""
        raise NotImplementedError

    def rows(self, dy: Tensor) -> Tensor:
        """[batch, groups, rows, places] of an output's gradient [batch, ...]."""
        raise NotImplementedError

    def squares(self, x: Tensor) -> Tensor:
        """The sum of squares of each input column, float64 [groups, columns]."""
        return self.columns(x).square().sum(dim=(0, 3), dtype=torch.float64)

    def gradients(self, x: Tensor, dy: Tensor) -> Tensor:
        """Each sample's gradient, [batch, groups, rows, columns], or in the weight's own shape."""
        return self.rows(dy) @ self.columns(x).transpose(2, 3)

    def square_sums(self, x: Tensor, dy: Tensor) -> Tensor | None:
        """The sum over samples of the squared gradients, where there is a shorter way to it.

        Shaped as `gradients` without the batch.
        """
        return None


@dataclass(frozen=True)
class Dense(Use):
    """`y = x M^T` over the last axis."""

    def columns(self, x: Tensor) -> Tensor:
        return _places(x)

    def rows(self, dy: Tensor) -> Tensor:
        return _places(dy)

    def squares(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1]).square().sum(dim=0, dtype=torch.float64)[None]

    def square_sums(self, x: Tensor, dy: Tensor) -> Tensor | None:
        if x.numel() != len(x) * x.shape[-1]:
            return None
        # With one place a sample, (dy x^T)^2 = dy^2 (x^2)^T.
        inputs, back = x.reshape(len(x), -1), dy.reshape(len(x), -1)
        return (back.square().t() @ inputs.square())[None]


def _places(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)[:, None]


@dataclass(frozen=True)
class Convolution(Use):
    """A convolution as a product with the patches of its input."""

    window: Window = NO_WINDOW

    def columns(self, x: Tensor) -> Tensor:
        return self._grouped(self._over_images(x, self.window.patches))

    def rows(self, dy: Tensor) -> Tensor:
        return self._grouped(self._over_images(dy, lambda part: part.flatten(2)[:, :, None]))

    def squares(self, x: Tensor) -> Tensor:
        # The patches of the squares' sum are the sum of the patches' squares.
        axes = len(self.window.kernel)
        summed = x.reshape(-1, *x.shape[-axes - 1 :]).square().sum(dim=0, dtype=torch.float64)
        return self._grouped(self.window.patches(summed[None])).sum(dim=(0, 3))

    def _grouped(self, x: Tensor) -> Tensor:
        """[batch, channels, kernel places, places] to [batch, groups, columns or rows, places]."""
        return x.reshape(len(x), self.view.groups, -1, x.shape[-1])

    def _over_images(self, x: Tensor, function: Any) -> Tensor:
        """`function` of [images, channels, *sizes]; several images a sample are more places."""
        axes = len(self.window.kernel)
        if x.dim() == axes + 2:
            return function(x)
        samples, images = x.shape[:2]
        made = function(x.reshape(samples * images, *x.shape[2:]))
        made = made.reshape(samples, images, *made.shape[1:]).movedim(1, -2)
        return made.reshape(*made.shape[:-2], -1)


@dataclass(frozen=True)
class TransposedConvolution(Convolution):
    """Its backward pass is a convolution: input places meet the patches of the output's gradient.

    The taps of its kernel add up in the output, so no row of it is one output: it isn't `seen`.
    """

    def columns(self, x: Tensor) -> Tensor:
        return self._grouped(self._over_images(x, lambda part: part.flatten(2)[:, :, None]))

    def rows(self, dy: Tensor) -> Tensor:
        return self._grouped(self._over_images(dy, self.window.patches))

    def gradients(self, x: Tensor, dy: Tensor) -> Tensor:
        columns, rows = self.columns(x), self.rows(dy)
        if columns.shape[-1] != rows.shape[-1]:
            raise ValueError("output padding gives places that no input has")
        return rows @ columns.transpose(2, 3)

    def squares(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Table(Use):
    """Rows of the weight picked by index. Rows of `padding` learn nothing."""

    padding: int | None = None

    def gradients(self, x: Tensor, dy: Tensor) -> Tensor:
        """[batch, 1, rows of the table, width]"""
        samples, (height, width) = len(x), self.shape
        keys, back = self._picked(x, dy)
        made = dy.new_zeros(samples * height, width).index_add_(0, keys, back)
        return made.reshape(samples, 1, height, width)

    def square_sums(self, x: Tensor, dy: Tensor) -> Tensor | None:
        keys, back = self._picked(x, dy)
        distinct, place = torch.unique(keys, return_inverse=True)
        sums = dy.new_zeros(len(distinct), self.shape[1]).index_add_(0, place, back)
        made = dy.new_zeros(self.shape)
        return made.index_add_(0, distinct % self.shape[0], sums.square())[None]

    def _picked(self, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """sample * height + row, and the gradient that each lookup brings back."""
        index = x.reshape(len(x), -1).long()
        keys = (index + torch.arange(len(x))[:, None] * self.shape[0]).reshape(-1)
        back = dy.reshape(-1, self.shape[1])
        if self.padding is not None:
            real = (index != self.padding).reshape(-1)
            keys, back = keys[real], back[real]
        return keys, back


def use_of(
    reader: Reader, source: fx.Node | None, shape: Sequence[int]
) -> tuple[Use, fx.Node] | None:
    """How a reader uses a weight, and the node whose value goes in; None: in no known way."""
    size = tuple(shape)
    if source is None:
        given = reader.node.args[0] if reader.node.args else None
        use = _module_use(reader, size)
        return (use, given) if use is not None and isinstance(given, fx.Node) else None
    if is_linear(reader, source):
        given = reader.node.args[0] if reader.node.args else None
        plain = isinstance(given, fx.Node) and len(size) == 2
        return (Dense(size, MatrixView()), given) if plain else None
    if is_convolution(reader, source):
        return _functional_convolution(reader, size)
    given = product_input(reader, source)
    if given is not None and len(size) == 2:
        return Dense(size, MatrixView(transposed=True)), given
    return None


def _module_use(reader: Reader, shape: tuple[int, ...]) -> Use | None:
    module = reader.module
    if reader.role != "weight":
        return None
    if isinstance(module, nn.Linear):
        return Dense(shape, MatrixView())
    if isinstance(module, nn.Embedding):
        return Table(shape, MatrixView(), seen=False, padding=module.padding_idx)
    if isinstance(module, TRANSPOSED):
        pad = zero_padding(module.padding, module.kernel_size, module.dilation)
        window = Window(module.kernel_size, module.stride, module.dilation, pad)
        view = MatrixView(module.groups, transposed=True)
        return TransposedConvolution(shape, view, seen=False, window=window)
    if isinstance(module, CONVOLUTIONS):
        pad = zero_padding(module.padding, module.kernel_size, module.dilation)
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        window = Window(module.kernel_size, module.stride, module.dilation, pad, mode)
        return Convolution(shape, MatrixView(module.groups), window=window)
    return None


def _functional_convolution(reader: Reader, shape: tuple[int, ...]) -> tuple[Use, fx.Node] | None:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    given |= dict(zip(names, reader.node.args, strict=False)) | dict(reader.node.kwargs)
    kernel = shape[2:]
    settings = [given[name] for name in ("stride", "padding", "dilation", "groups")]
    if not isinstance(given.get("input"), fx.Node) or not all(map(_constant, settings)):
        return None
    stride, dilation = (each(given[name], len(kernel)) for name in ("stride", "dilation"))
    pad = zero_padding(given["padding"], kernel, dilation)
    window = Window(kernel, stride, dilation, pad)
    return Convolution(shape, MatrixView(given["groups"]), window=window), given["input"]


def _constant(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(part, int) for part in value)
    return isinstance(value, (int, str))


BATCH_AXES = (0, 1, 2)
"""Where a batch may be, see `batch_first`."""


def batch_first(x: Tensor, batch: int, axis: int) -> Tensor:
    """[batch, ...] of a tensor with its batch on axis 0 or 1, or (2) as the faster part of axis 0.

    On axis 0 it may be the slower part of that: windows of images, tokens of samples. Raises
    ValueError where it can't be there.
    """
    if axis == 1:
        x = x.movedim(1, 0)
    if len(x) == batch and axis < 2:
        return x
    if axis == 1 or len(x) % batch or not len(x):
        raise ValueError("the batch is nowhere to be found")
    if axis == 2:
        return x.reshape(len(x) // batch, batch, *x.shape[1:]).movedim(1, 0)
    return x.reshape(batch, len(x) // batch, *x.shape[1:])


def chunk_samples(shape: Sequence[int]) -> int:
    """How many samples' gradients of a weight of this shape are held at once."""
    return max(1, 2**22 // max(1, math.prod(shape)))
