"""Answers that rounding could turn, computed again by the plain network.

A fast flow computes the same function as the plain one, rounded differently in the last bits. Where
the two largest outputs of a sample are closer than that, its class could be another. Such batches
are few, and are run again by the plain network's own kernels, so that classes are those of the
plain network to the sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.engine.objectives import Objective, SingleLabel
from worker.engine.passes import Whole

NEAR = 1e-5
"""How near, beside the spread of a batch's outputs. Roundings seen are a tenth of it and less."""


class NearTies:
    """Finds them among outputs of a fast flow; `plain` is the network as it is."""

    def __init__(self, plain: Whole, objective: Objective) -> None:
        self._plain = plain
        self._objective = objective

    @staticmethod
    def matter(objective: Objective) -> bool:
        """Whether an answer is one class a sample: others are figures, which rounding rounds."""
        return isinstance(objective, SingleLabel) and objective.classes > 1

    def rows(self, outputs: Tensor) -> list[int]:
        """The rows of outputs [rows, batch, classes] that hold one."""
        top = outputs.topk(2, dim=-1).values
        margins = (top[..., 0] - top[..., 1]).amin(dim=1)
        spread = outputs.amax(dim=(1, 2)) - outputs.amin(dim=(1, 2))
        # NaN is near to nothing; it has a class of its own either way.
        return torch.nonzero(margins <= NEAR * spread).flatten().tolist()

    def again(self, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The outputs [batch, classes] of the plain network with its weights as they are now."""
        return self._objective.outputs(self._plain(inputs), labels)

    def settled(self, outputs: Tensor, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """These outputs [batch, classes], or the plain network's where there is one."""
        return self.again(inputs, labels) if self.rows(outputs[None]) else outputs
