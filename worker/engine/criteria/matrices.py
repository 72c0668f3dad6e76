"""A weight as the matrices that multiply columns of inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class MatrixView:
    """How a weight is `[groups, rows, columns]`: row i of a group gives one output of its inputs.

    `transposed`: it is stored as `[columns, rows]` a group (`x @ weight`; transposed convolutions).
    """

    groups: int = 1
    transposed: bool = False

    def matrices(self, weight: Tensor) -> Tensor:
        """A view of `weight`, [groups, rows, columns], or a copy where a view is not possible."""
        if self.transposed:
            inside = weight.shape[0] // self.groups
            return weight.reshape(self.groups, inside, -1).transpose(1, 2)
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def weight(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """The weight of `[..., groups, rows, columns]`: `[..., *shape]`."""
        stored = matrices.transpose(-2, -1) if self.transposed else matrices
        return stored.reshape(*matrices.shape[:-3], *shape)

    def columns(self, shape: Sequence[int]) -> int:
        """Columns of one group's matrix."""
        if self.transposed:
            return shape[0] // self.groups
        return math.prod(shape[1:])


@dataclass(frozen=True)
class Window:
    """The settings of a convolution, one number an axis; `pad` as for `functional.pad`."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad: tuple[int, ...]
    mode: str = "constant"

    def patches(self, x: Tensor) -> Tensor:
        """What each place of the kernel sees: [batch, channels, kernel places, output places].

        `x` is [batch, channels, *sizes].
        """
        x = functional.pad(x, self.pad, mode=self.mode) if any(self.pad) else x
        axes = len(self.kernel)
        for axis, (size, step, gap) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True)
        ):
            x = x.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
        batch, channels = x.shape[:2]
        order = [0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes)]
        return x.permute(order).reshape(batch, channels, math.prod(self.kernel), -1)


def zero_padding(
    padding: str | int | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """A convolution's padding as `functional.pad` takes it: last axis first, before and after."""
    axes = len(kernel)
    if padding == "valid":
        return (0,) * (2 * axes)
    sides: list[tuple[int, int]]
    if padding == "same":
        wholes = [gap * (size - 1) for size, gap in zip(kernel, dilation, strict=True)]
        sides = [(whole // 2, whole - whole // 2) for whole in wholes]
    else:
        assert not isinstance(padding, str)
        sides = [(size, size) for size in each(padding, axes)]
    return tuple(size for side in reversed(sides) for size in side)


def each(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """One number an axis."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values
