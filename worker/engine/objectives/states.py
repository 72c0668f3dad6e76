"""The sums of a tally as small arrays: kept, and gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from app.domain.errors import InvalidInput

State = Mapping[str, np.ndarray[Any, Any]]
"""What one network's figures on some samples are computed from, by name.

Numbers add up over samples. Booleans say what is true of one of the samples, hence of all together.
"""


class RowSums:
    """Sums of several networks (rows): arrays whose first axis are the rows."""

    def sums(self) -> dict[str, np.ndarray[Any, Any]]:
        """All of them by name, as views: to change them is to change the tally."""
        raise NotImplementedError

    def state(self, row: int) -> dict[str, np.ndarray[Any, Any]]:
        """A copy of everything that the figures of one row are computed from."""
        return {name: np.array(each[row]) for name, each in self.sums().items()}

    def resumed(self, states: Sequence[State]) -> Self:
        """Itself, with a state for each row. Raises InvalidInput for one of another kind."""
        named = self.sums()
        if any(state.keys() != named.keys() for state in states):
            raise _foreign()
        for name, each in named.items():
            for row, state in enumerate(states):
                found = np.asarray(state[name])
                if found.shape != each.shape[1:] or found.dtype != each.dtype:
                    raise _foreign()
                each[row] = found
        return self


def _foreign() -> InvalidInput:
    return InvalidInput(
        "These sums belong to another kind of task.", "Measure the point from its first sample."
    )
