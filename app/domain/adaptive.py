"""How many samples a cell needs: sums by stratum, intervals and goals. No network here.

A cell that has seen the first n samples of the stream (`stream_order.py`) knows, for each stratum,
how its answers differ from the dense network's on the same samples; from those sums follows an
estimate for the whole split, with an interval. The interval is for the figure that all samples of
the split would give, not for the population behind them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.exact_intervals import paired_drop_interval
from app.domain.statistics import normal_quantile
from app.domain.stream_order import PREVIEW, STRATA, looks_of

Numbers = NDArray[np.float64]

PROFILE = (0.072, 0.264, 0.114, 0.046, 0.015, 0.0044, 0.0008, 0.0001)
"""How often answers changed in each stratum, mean over the cells of a ResNet-20 that lost little.
Only the proportions count, and only half (`_TRUST`) of what is expected before it is seen."""
WHOLE_BELOW = 400
"""Splits of at most so many samples are always measured whole: little could be saved."""
_SHRINKAGE = 2.0
"""So many samples' worth of what is expected of a stratum is mixed into what it has shown."""
_TRUST = 0.5
"""The rest of what is expected is that all strata change alike."""
_SURE = 256
"""Looks at fewer samples may spend the error of an interval only in proportion."""


@dataclass(frozen=True)
class Goal:
    """When a cell has been measured enough.

    Half of the width of its drop's interval must be no more than `half_width` or `relative` times
    the drop, whichever is more, at `confidence`. `whole`: all samples. `method`: `looks` (normal
    intervals, each at its own error; `spent_error`) or `sequence` (exact intervals, the error split
    over looks: valid at all of them together whatever the figures are). `tolerance`: also enough is
    to know on which side of it the drop is.
    """

    half_width: float = 0.01
    relative: float = 0.1
    confidence: float = 0.95
    method: str = "looks"
    whole: bool = False
    tolerance: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "half_width": self.half_width,
            "relative": self.relative,
            "confidence": self.confidence,
            "method": self.method,
            "whole": self.whole,
            "tolerance": self.tolerance,
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Goal:
        return cls(**said)

    def joined(self, other: Goal) -> Goal:
        """What reaches both, by one method: for cells that are measured as one."""
        known = self.tolerance is not None and self.tolerance == other.tolerance
        return Goal(
            half_width=min(self.half_width, other.half_width),
            relative=min(self.relative, other.relative),
            confidence=max(self.confidence, other.confidence),
            method=self.method,
            whole=self.whole or other.whole,
            tolerance=self.tolerance if known else None,
        )

    def width_for(self, drop: float) -> float:
        """The half-width that is narrow enough for a drop of this size."""
        return max(self.half_width, self.relative * abs(drop))


@dataclass(frozen=True)
class Strata:
    """How many samples of the split are in each stratum, and what a drop is made of.

    `scale`: what one more wrong answer of one sample adds to the mean over samples that is the
    drop: samples / answers, 1 where a sample has one answer. `score`: `answers` where the drop is
    one of the share of right answers, `loss` where it is the rise of the mean loss times
    `loss_scale` (1 in nats for language modelling; 1 / variance of the labels for regression, so
    that a drop is one of R²). `apart`: stratum 0 is of those samples that the dense network gets
    wrong, one answer each, so that only they can be gained and only the others lost. `mark`: a
    number that streams of another order don't have.
    """

    sizes: tuple[int, ...]
    scale: float = 1.0
    score: str = "answers"
    loss_scale: float = 1.0
    apart: bool = False
    mark: int = 0

    @property
    def samples(self) -> int:
        return sum(self.sizes)

    def as_json(self) -> dict[str, Any]:
        return {
            "sizes": list(self.sizes),
            "scale": self.scale,
            "score": self.score,
            "loss_scale": self.loss_scale,
            "apart": self.apart,
            "mark": self.mark,
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Strata:
        return cls(
            tuple(int(size) for size in said["sizes"]),
            said["scale"],
            said["score"],
            said["loss_scale"],
            said.get("apart", False),
            said.get("mark", 0),
        )


def _zeros() -> Numbers:
    return np.zeros(STRATA)


@dataclass
class Sums:
    """What a cell has shown so far, one number a stratum.

    `n` samples; `d`, `d2`: the drop of each sample (dense score minus own score, scaled so that its
    mean over the split is the drop) and its square; `l`, `l2`: the rise of the loss; `k`, `k2`: the
    divergence from the dense outputs. `lost` and `gained` count answers.
    """

    n: Numbers = field(default_factory=_zeros)
    d: Numbers = field(default_factory=_zeros)
    d2: Numbers = field(default_factory=_zeros)
    l: Numbers = field(default_factory=_zeros)  # noqa: E741
    l2: Numbers = field(default_factory=_zeros)
    k: Numbers = field(default_factory=_zeros)
    k2: Numbers = field(default_factory=_zeros)
    lost: int = 0
    gained: int = 0

    PARTS = ("n", "d", "d2", "l", "l2", "k", "k2")

    def as_json(self) -> dict[str, Any]:
        """Lists of finite numbers; sums that are not finite become null."""
        said: dict[str, Any] = {
            name: [float(value) if math.isfinite(value) else None for value in getattr(self, name)]
            for name in self.PARTS
        }
        return said | {"lost": self.lost, "gained": self.gained}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Sums:
        parts = {
            name: np.array([math.nan if v is None else float(v) for v in said[name]])
            for name in cls.PARTS
        }
        return cls(**parts, lost=int(said["lost"]), gained=int(said["gained"]))

    @property
    def samples(self) -> int:
        return int(self.n.sum())

    def require_possible(self) -> None:
        """Raises ValueError for what no samples can have given."""
        for name in self.PARTS:
            values = getattr(self, name)
            if values.shape != (STRATA,) or (name.endswith("2") and (values < 0).any()):
                raise ValueError(f"{name}: {values}")
        whole = np.isfinite(self.n).all() and (self.n == np.floor(self.n)).all()
        if not whole or (self.n < 0).any() or self.lost < 0 or self.gained < 0:
            raise ValueError(f"{self.n} samples, {self.lost} lost, {self.gained} gained")

    def add(
        self,
        members: NDArray[np.intp],
        drops: Numbers,
        rises: Numbers | None = None,
        divergences: Numbers | None = None,
    ) -> None:
        """Count samples: their strata [samples] and what each shows [samples]."""
        self.n += np.bincount(members, minlength=STRATA)
        for name, values in (("d", drops), ("l", rises), ("k", divergences)):
            if values is None:
                continue
            with np.errstate(all="ignore"):
                setattr(self, name, getattr(self, name) + _by_stratum(members, values))
                squares = getattr(self, name + "2") + _by_stratum(members, values * values)
                setattr(self, name + "2", squares)


def _by_stratum(members: NDArray[np.intp], values: Numbers) -> Numbers:
    return np.bincount(members, weights=values, minlength=STRATA).astype(np.float64)


@dataclass(frozen=True)
class Drop:
    """An estimate for the whole split with its interval. A drop below 0 is a gain.

    Where little has been seen to differ, the interval reaches further up than down: answers that
    were right can only be lost.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def reaches(self, goal: Goal) -> bool:
        if goal.tolerance is not None and (
            self.low > goal.tolerance or self.high <= goal.tolerance
        ):
            return True
        return self.half_width <= goal.width_for(self.value)


def drop_of(
    strata: Strata, sums: Sums, confidence: float = 0.95, method: str = "looks"
) -> Drop | None:
    """The drop of the whole split, estimated from the samples seen; None where it is undefined.

    Exact, with no width, once all samples are seen. `looks`: the stratified estimate (Cochran,
    Sampling Techniques, 1977, chapter 5) with the interval of `_margins` at the error that this
    look may spend. `sequence`: exact hypergeometric limits of lost and gained samples, the error
    split evenly over all looks. It needs a stream in `random_order`, and where a sample has more
    than one answer it claims nothing.
    """
    value = _estimate(strata, sums, "d" if strata.score == "answers" else "l")
    if value is None:
        return None
    factor = 1.0 if strata.score == "answers" else strata.loss_scale
    value *= factor
    seen, samples = sums.samples, strata.samples
    if seen >= samples:
        return Drop(value, value, value)
    if method == "sequence":
        return _certain(strata, sums, confidence)
    z = normal_quantile(1 - spent_error(1 - confidence, seen))
    below, above = _margins(strata, sums, "d" if strata.score == "answers" else "l", z)
    return Drop(value, value - factor * below, value + factor * above)


def _certain(strata: Strata, sums: Sums, confidence: float) -> Drop:
    if strata.score != "answers" or strata.scale != 1.0:
        return Drop(0.0, -math.inf, math.inf)
    seen, samples = sums.samples, strata.samples
    error = (1 - confidence) / max(1, len(looks_of(samples)) - 1)
    found = paired_drop_interval(sums.lost, sums.gained, seen, samples, error)
    plain = (sums.lost - sums.gained) / seen
    return Drop(plain, min(plain, found.low), max(plain, found.high))


def spent_error(error: float, seen: int) -> float:
    """The part of an interval's error that the look after `seen` samples may spend.

    Whether a cell stops depends on how wide its interval is and hardly on where it lies, so that
    the last interval covers as often as one at a size fixed before would (Chow and Robbins, 1965),
    all the better the more samples there are; the early looks, at which normal intervals are
    doubtful, are given less. Simulations in the tests hold it to that.
    """
    return error * min(1.0, seen / _SURE)


def loss_change_of(strata: Strata, sums: Sums, confidence: float = 0.95) -> Drop | None:
    """The rise of the mean loss over the whole split, with its interval; None where undefined."""
    value = _estimate(strata, sums, "l")
    if value is None:
        return None
    z = normal_quantile(confidence)
    whole = sums.samples >= strata.samples
    below, above = (0.0, 0.0) if whole else _margins(strata, sums, "l", z)
    return Drop(value, value - below, value + above)


def divergence_of(strata: Strata, sums: Sums) -> float | None:
    """The mean divergence from the dense outputs over the whole split, in nats an answer."""
    return _estimate(strata, sums, "k")


def reached(strata: Strata, sums: Sums, goal: Goal) -> bool:
    """Whether a cell has been measured enough."""
    seen = sums.samples
    if seen >= strata.samples:
        return True
    if goal.whole or seen <= PREVIEW:
        return False
    drop = drop_of(strata, sums, goal.confidence, goal.method)
    return drop is not None and drop.reaches(goal)


def needed_samples(strata: Strata, sums: Sums, goal: Goal) -> int:
    """About how many samples the goal will take, by what has been seen."""
    samples, seen = strata.samples, sums.samples
    if goal.whole or seen == 0:
        return samples
    drop = drop_of(strata, sums, goal.confidence, goal.method)
    if drop is None:
        return samples
    wanted = goal.width_for(drop.value)
    if goal.tolerance is not None:
        wanted = max(wanted, abs(drop.value - goal.tolerance))
    if not math.isfinite(drop.half_width) or wanted <= 0:
        return samples
    # Half-widths fall with the root of the samples, and to nothing as the split is used up.
    ratio = (drop.half_width / wanted) ** 2
    left = seen / max(1, samples - seen) * ratio
    return min(samples, max(seen, math.ceil(samples * left / (1 + left))))


def _estimate(strata: Strata, sums: Sums, part: str) -> float | None:
    totals = getattr(sums, part)
    known = sums.n > 0
    if not np.isfinite(totals).all() or not known.any():
        return None
    shares = np.asarray(strata.sizes, dtype=np.float64)[known]
    # A stratum without a sample yet is taken to be like the others.
    return float((shares * totals[known] / sums.n[known]).sum() / shares.sum())


def _margins(strata: Strata, sums: Sums, part: str, z: float) -> tuple[float, float]:
    """How far an interval reaches below and above a stratified mean, drawn without replacement.

    Two parts, added as squares. One is normal, with each stratum's variance (Cochran, 1977, 5.6),
    what is expected of a stratum mixed into what it has shown. The other is what Wilson's interval
    (1927) has where nothing has been seen to differ yet: z² / n, by the weights of the samples in
    those strata where differences are to be expected; on each side of those strata alone that can
    move the mean to that side.
    """
    totals, squares = getattr(sums, part), getattr(sums, part + "2")
    if not (np.isfinite(totals).all() and np.isfinite(squares).all()):
        return math.inf, math.inf
    sizes = np.asarray(strata.sizes, dtype=np.float64)
    known = (sums.n > 0) & (sizes > 0)
    n = sums.n[known]
    shares = sizes[known] / sizes[known].sum()
    profile = np.asarray(PROFILE)[known]
    likely = _TRUST * profile / (shares * profile).sum() + 1 - _TRUST
    unit = _unit(part, squares, totals, sums)
    level = (squares[known].sum() + unit / 2) / (n * likely).sum()
    means = totals[known] / n
    mixed = (squares[known] + _SHRINKAGE * level * likely) / (n + _SHRINKAGE)
    variances = np.maximum(mixed - means**2 * n / (n + _SHRINKAGE), 0.0)
    unseen = np.maximum(0.0, 1 - n / sizes[known])
    variance = float((shares**2 * unseen * variances / n).sum())
    least = math.sqrt(unit) * shares**2 * likely * unseen / n
    below = above = float(least.sum())
    if strata.apart and part == "d":
        below = float(least[np.flatnonzero(known) == 0].sum())
        above -= below
    return (
        math.sqrt(z * z * variance + (z * z * below) ** 2),
        math.sqrt(z * z * variance + (z * z * above) ** 2),
    )


def _unit(part: str, squares: Numbers, totals: Numbers, sums: Sums) -> float:
    """The square of what one sample that differs adds: 1 for answers, what is usual for losses."""
    if part == "d":
        return 1.0
    mean = float(totals.sum() / sums.n.sum())
    return max(float(squares.sum() / sums.n.sum()) - mean * mean, 1e-12)
