"""What is known of one cell so far, from the first samples of the stream on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from app.domain.adaptive import Goal, Strata, Sums, needed_samples, reached
from app.domain.errors import InvalidInput
from worker.engine.objectives import State
from worker.engine.packing import pack, unpack

if TYPE_CHECKING:
    from worker.engine.recalibration import Statistics
    from worker.engine.sensitivity import Cell

_STATE_BYTES = 8 * 2**20
"""The most that a kept state may take."""
_HITS, _SEEN = "hits", "seen"


class Bits:
    """A growing row of answers that are right or not, eight to a byte (`numpy.packbits`)."""

    def __init__(self, packed: bytes = b"", count: int = 0) -> None:
        """`count` answers to begin with. Raises ValueError where `packed` has not as many."""
        if count < 0 or len(packed) != -(-count // 8):
            raise ValueError(f"{len(packed)} bytes for {count} answers")
        whole = count // 8
        self._parts = [packed[:whole]]
        rest = np.frombuffer(packed[whole : whole + 1], dtype=np.uint8)
        self._rest = np.unpackbits(rest)[: count - 8 * whole].astype(bool)
        self.count = count

    def add(self, found: np.ndarray) -> None:
        """Append answers, bool of any shape."""
        flat = np.concatenate([self._rest, found.reshape(-1)])
        whole = len(flat) // 8 * 8
        self._parts.append(np.packbits(flat[:whole]).tobytes())
        self._rest = flat[whole:]
        self.count += found.size

    @property
    def packed(self) -> bytes:
        """All of them, the last byte filled with zeros."""
        return b"".join(self._parts) + np.packbits(self._rest).tobytes()


@dataclass(eq=False)
class CellRun:
    """Cells of one unit and criterion that remove the same number of entries, being measured.

    `seen` samples of the stream are in the sums. `preview`: what the first ones showed, batch by
    batch (drop, rise of the loss and divergence, unscaled, [3, batch]), until it is known which
    strata they are of. `hits` None where answers aren't right or wrong, or too many to keep.
    `statistics`: what batch norms have with these entries removed, where they are re-estimated.
    """

    cells: list[Cell]
    removed: int
    size: int
    goal: Goal
    sums: Sums = field(default_factory=Sums)
    state: State | None = None
    hits: Bits | None = None
    seen: int = 0
    settled: bool = False
    statistics: Statistics | None = None
    preview: list[np.ndarray] | None = None

    @property
    def unit(self) -> str:
        return self.cells[0].unit

    @property
    def criterion(self) -> str:
        return self.cells[0].criterion

    def take(self, seen: int, state: State, hits: Sequence[np.ndarray]) -> None:
        """Go on to `seen` samples: `state` of all of them, `hits` of those that are new."""
        self.seen = seen
        self.state = state
        if self.hits is not None:
            for found in hits:
                self.hits.add(found)

    def judge(self, strata: Strata) -> None:
        """Find out whether this is enough."""
        self.settled = reached(strata, self.sums, self.goal)

    def needed(self, strata: Strata) -> int:
        """About how many samples it will have taken in the end."""
        return self.seen if self.settled else needed_samples(strata, self.sums, self.goal)

    def packed_state(self, mark: int = 0) -> str | None:
        """All but the sums that is needed to go on later, as text; None where it would be large.

        `mark`: of the stream.
        """
        if self.state is None:
            return None
        kept = dict(self.state)
        kept[_SEEN] = np.array([self.seen, -1 if self.hits is None else self.hits.count, mark])
        if self.hits is not None:
            kept[_HITS] = np.frombuffer(self.hits.packed, dtype=np.uint8)
        return pack(kept, _STATE_BYTES)

    def resume_sums(self, known: Mapping[str, Any], strata: Strata) -> bool:
        """Take over what decisions need of a cell that is settled and not measured again.

        `known` has `samples`, `drop` and, where they are not all, `sums`; whether it was enough.
        """
        if known["sums"] is not None:
            self.sums = Sums.of(known["sums"])
        elif known["samples"] == strata.samples:
            # Of a whole cell only the drop is kept, which says all that a search asks.
            sizes = np.asarray(strata.sizes, dtype=np.float64)
            scale = strata.loss_scale if strata.score == "loss" else 1.0
            shown = sizes * known["drop"] / scale
            self.sums = Sums(n=sizes, d=shown, l=shown)
        else:
            return False
        self.seen = int(known["samples"])
        self.settled = True
        return True

    def resume(self, known: Mapping[str, Any], mark: int = 0) -> None:
        """Go on from `{samples, sums, state}` of an earlier run along the stream of this `mark`.

        Raises InvalidInput, and is as it was, for what can't have been kept of a point.
        """
        try:
            kept = unpack(known["state"], _STATE_BYTES)
            seen, count, own_mark = (int(number) for number in kept.pop(_SEEN))
            packed = kept.pop(_HITS, None)
            samples, sums = known["samples"], Sums.of(known["sums"])
            sums.require_possible()
            hits = None
            if self.hits is not None:
                if packed is None or packed.dtype != np.uint8:
                    raise ValueError("hits")
                hits = Bits(packed.tobytes(), count)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise InvalidInput(
                "What was kept of a point can't be read.", "Measure it again."
            ) from error
        if seen != samples or seen != sums.samples or mark != own_mark:
            raise InvalidInput("What was kept of a point is of other samples.", "Measure it again.")
        self.seen, self.state, self.sums, self.hits = seen, kept, sums, hits
