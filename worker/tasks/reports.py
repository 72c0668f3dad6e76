"""What a child may say. It reads uploads and runs networks, so it may say anything.

Every message is parsed strictly, every figure is checked against what was asked for, and a child
that breaks a rule ends its job with nothing stored. What is said of uploads is in `descriptions`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from app.domain.adaptive import Strata
from app.domain.errors import ChildMalformed
from app.domain.metrics import METRICS, Kind
from app.domain.stream_order import STRATA

MAX_COUNT = 1 << 62
MAX_AXES = 16
MAX_NAMES = 1_000_000
MAX_JSON_VALUES = 100_000
MAX_JSON_TEXT = 4096
MAX_JSON_DEPTH = 8
MAX_CLASSES = 1000
MAX_PACKED = 60_000_000
TOLERANCE = 1e-9

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, StringConstraints(max_length=1024)]
Sentence = Annotated[str, StringConstraints(max_length=4096)]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,32}$")]
Shape = Annotated[list[Count], Field(max_length=MAX_AXES)]
OpenShape = Annotated[list[Count | None], Field(max_length=MAX_AXES)]

R = TypeVar("R", bound="Report")


class Report(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def of(cls: type[R], body: Mapping[str, Any]) -> R:
        """Raises ChildMalformed for anything else than this."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in fault["loc"])[:200]
            raise malformed(f"{place or 'the message'}: {fault['msg'][:200]}") from None


class Progress(Report):
    """`fraction` of the work is done, `seconds` are left, `samples` were evaluated."""

    fraction: Share
    seconds: NotNegative | None
    samples: Count = 0


class Figure(Report):
    value: Number | None
    low: Number | None = None
    high: Number | None = None


class Figures(Report):
    """What a network does on a split, as `Evaluation.as_json` says it."""

    kind: Kind = Field(strict=False)
    samples: Count
    correct: Count | None
    accuracy: Share | None
    low: Share | None
    high: Share | None
    loss: Number | None
    kl: NotNegative | None = None
    flips: Count | None
    lost: Count | None
    gained: Count | None
    metrics: Annotated[dict[Word, Figure], Field(max_length=32)]

    def check(self, size: int, kind: str | None = None) -> None:
        """Raises ChildMalformed unless these can be figures of a split of `size` samples.

        `kind`: what is predicted, where that is known already.
        """
        require(0 < self.samples <= size, f"{self.samples} samples of a split of {size}")
        require(kind is None or self.kind == kind, f"figures of {self.kind}, not of {kind}")
        names = {metric.name: metric for metric in METRICS[self.kind]}
        require(self.metrics.keys() == names.keys(), f"no metrics of {self.kind}")
        for name, figure in self.metrics.items():
            whole = not names[name].fraction
            for value in (figure.value, figure.low, figure.high):
                within = value is None or whole or 0 <= value <= 1
                require(within, f"{name} of {value}")
            require(ordered(figure.low, figure.value, figure.high), f"the interval of {name}")
        require(ordered(self.low, self.accuracy, self.high), "the interval of the accuracy")
        for name, value in (("accuracy", self.accuracy), ("loss", self.loss)):
            same = name not in names or close(self.metrics[name].value, value)
            require(same, f"two values of the {name}")
        self._check_counts()

    def _check_counts(self) -> None:
        """Of answers: samples, labels or positions that are right or wrong."""
        require((self.correct is None) == (self.accuracy is None), "half an accuracy")
        paired = (self.flips, self.lost, self.gained)
        require(None not in paired or set(paired) == {None}, "half a comparison")
        if self.correct is None:
            require(self.kind == Kind.REGRESSION and None in paired, "answers left out")
            return
        require(self.kind != Kind.REGRESSION, "answers where there are only numbers")
        if self.flips is not None and self.lost is not None and self.gained is not None:
            require(self.lost + self.gained <= self.flips, "flips that can't be")
            require(self.gained <= self.correct, "more gained than right")
        if self.kind == Kind.SINGLE_LABEL:
            require(self.correct <= self.samples, "more right than there are")
            share = self.correct / self.samples
            require(close(self.accuracy, share), "an accuracy not of its count")
            require((self.flips or 0) <= self.samples, "more flips than samples")
            require((self.lost or 0) <= self.samples - self.correct, "more lost than wrong")

    def check_against(self, dense: Figures) -> None:
        """Raises ChildMalformed unless this can be what pruning made of `dense`."""
        require(self.kind == dense.kind, "figures of two kinds")
        require(self.samples == dense.samples, "figures of two splits")
        if self.correct is not None and self.lost is not None and self.gained is not None:
            changed = (dense.correct or 0) - self.lost + self.gained
            require(self.correct == changed, "lost and gained that don't add up")

    def check_part(self, size: int, kind: Kind) -> None:
        """Raises ChildMalformed unless these can be counts of a part of a split of `size` samples.

        What they say beside counts is computed from sums, and not looked at.
        """
        require(0 < self.samples < size, f"{self.samples} samples as a part of {size}")
        require(self.kind == kind, f"figures of {self.kind}, not of {kind}")
        require((self.correct is None) == (kind == Kind.REGRESSION), "answers left out")
        if self.correct is None or self.flips is None or self.lost is None or self.gained is None:
            require(kind == Kind.REGRESSION, "half a comparison")
            return
        require(self.lost + self.gained <= self.flips, "flips that can't be")
        require(self.gained <= self.correct, "more gained than right")
        if kind == Kind.SINGLE_LABEL:
            require(self.flips <= self.samples, "more flips than samples")
            require(self.correct <= self.samples, "more right than there are")
            require(self.lost <= self.samples - self.correct, "more lost than wrong")

    def columns(self) -> dict[str, Any]:
        """The columns that Baseline, Point and Measurement have in common."""
        return {
            "samples": self.samples,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "low": self.low,
            "high": self.high,
            "loss": self.loss,
            "metrics": self.metrics_json(),
        }

    def paired(self) -> dict[str, int | None]:
        return {"flips": self.flips, "lost": self.lost, "gained": self.gained}

    def metrics_json(self) -> dict[str, Any]:
        return {name: figure.model_dump() for name, figure in self.metrics.items()}


PerStratum = Annotated[list[Number | None], Field(min_length=STRATA, max_length=STRATA)]
Packed = Annotated[str, StringConstraints(max_length=MAX_PACKED)]
"""Bytes in base64."""


class StrataSaid(Report):
    """As `app.domain.adaptive.Strata`."""

    sizes: Annotated[list[Count], Field(min_length=STRATA, max_length=STRATA)]
    scale: NotNegative
    score: Literal["answers", "loss"]
    loss_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    apart: bool = False
    mark: Count = 0

    def check(self, samples: int) -> None:
        require(sum(self.sizes) == samples, "strata of another split")


class SumsSaid(Report):
    """As `app.domain.adaptive.Sums`."""

    n: Annotated[list[NotNegative], Field(min_length=STRATA, max_length=STRATA)]
    d: PerStratum
    d2: PerStratum
    l: PerStratum  # noqa: E741
    l2: PerStratum
    k: PerStratum
    k2: PerStratum
    lost: Count
    gained: Count

    def check(self, strata: Strata, figures: Figures) -> None:
        """Raises ChildMalformed unless they can be sums of the samples that `figures` are of."""
        require(all(n.is_integer() for n in self.n), "half a sample")
        within = zip(self.n, strata.sizes, strict=True)
        require(all(n <= size for n, size in within), "more samples than in the stratum")
        require(sum(self.n) == figures.samples, "sums of other samples")
        for totals, squares in ((self.d, self.d2), (self.l, self.l2), (self.k, self.k2)):
            require(_possible(self.n, totals, squares), "sums that can't be")
        if figures.lost is None or figures.gained is None:
            return
        require((self.lost, self.gained) == (figures.lost, figures.gained), "two counts of flips")
        if None not in self.d:
            total = sum(value for value in self.d if value is not None)
            expected = strata.scale * (self.lost - self.gained)
            require(math.isclose(total, expected, rel_tol=1e-6, abs_tol=1e-6), "drops of no flips")
        if strata.apart:
            signs = zip((-1, *[1] * (STRATA - 1)), self.d, strict=True)
            possible = all(value is None or sign * value >= 0 for sign, value in signs)
            require(possible, "wrong answers lost, or right ones gained")


def _possible(
    counts: Sequence[float], totals: Sequence[float | None], squares: Sequence[float | None]
) -> bool:
    """Whether there are numbers with these sums and sums of squares (Cauchy and Schwarz)."""
    for count, total, square in zip(counts, totals, squares, strict=True):
        if total is None or square is None:
            continue
        if square < 0 or total * total > count * square * (1 + 1e-6) + 1e-9:
            return False
    return True


class ByClassSaid(Report):
    """Samples (or positions) of each class, and how many of them are right."""

    seen: Annotated[list[Count], Field(max_length=MAX_CLASSES)]
    right: Annotated[list[Count], Field(max_length=MAX_CLASSES)]


class ArithmeticSaid(Report):
    """As `worker.engine.arithmetic.Arithmetic`."""

    used: Literal["float32", "bfloat16"]
    reason: Sentence | None
    samples: Count
    answers: Count
    differing: Count | None
    loss: Number | None
    loss_float32: Number | None

    def check(self, samples: int) -> None:
        require((self.used == "float32") == (self.reason is not None), "arithmetic of no reason")
        require(self.samples <= samples, "more samples compared than there are")
        require((self.differing or 0) <= self.answers, "more answers differ than there are")


class BaselineSaid(Figures):
    """The dense network: its figures, how the split is stratified, its answers along the stream.

    `members`: the stratum of each sample of the stream, a byte each, deflated.
    """

    whole: Count | None = Field(None, alias="of")
    strata: StrataSaid | None = None
    members: Packed | None = None
    outcome: Packed | None = None
    by_class: ByClassSaid | None = None
    arithmetic: ArithmeticSaid | None = None


class PointFigures(Figures):
    """Of the samples seen; `whole`, told as `of`: those of the split."""

    whole: Count | None = Field(None, alias="of")


class PointSaid(Report):
    """One cell as it is known by now; `outcome`, `by_class` and `state` once it is settled."""

    unit: Name
    criterion: Word
    level: Count
    figures: PointFigures
    removed: Count | None = None
    sums: SumsSaid | None = None
    settled: bool | None = None
    outcome: Packed | None = None
    by_class: ByClassSaid | None = None
    state: Packed | None = None
    remark: Sentence | None = None


class PointsSaid(Report):
    points: Annotated[list[PointSaid], Field(max_length=100_000)]


class PreviewSaid(Report):
    """Points before anything is known of the split, beside the dense network on their samples."""

    dense: Figures
    strata: StrataSaid
    points: Annotated[list[PointSaid], Field(max_length=100_000)]


class RemarkSaid(Report):
    """Why a unit has no curve by a criterion."""

    unit: Name
    criterion: Word
    reason: Sentence


class RemarksSaid(Report):
    units: Annotated[list[RemarkSaid], Field(max_length=MAX_NAMES)]


class Measured(Report):
    """What `worker.inside.measure` gives."""

    dense: Figures
    pruned: Figures


class DenseSaid(Report):
    figures: Figures
    latency_ms: NotNegative


class PrunedSaid(Report):
    removed: Annotated[dict[Name, Count], Field(max_length=MAX_NAMES)]
    figures: Figures


class EpochSaid(Report):
    step: Literal[0]
    epoch: Count
    train_loss: Number | None
    learning_rate: NotNegative
    tune: Figures
    file: Word | None


class Retrained(Report):
    """What `worker.inside.retrain` gives."""

    best_epoch: Count
    figures: Figures
    latency_ms: NotNegative


def malformed(why: str) -> ChildMalformed:
    return ChildMalformed(
        f"The computation said something that can't be: {why}.",
        "Retry the job; a model or a data set that does this again may be hostile.",
    )


def require(holds: bool, why: str) -> None:
    """Raises ChildMalformed with `why` unless it holds."""
    if not holds:
        raise malformed(why)


def unexpected(kind: str) -> ChildMalformed:
    return malformed(f"a message {kind[:40]!r}, which is not known")


def ordered(low: float | None, value: float | None, high: float | None) -> bool:
    """Whether an interval, where there is one, holds its value."""
    if low is None and high is None:
        return True
    if low is None or value is None or high is None:
        return False
    return low - TOLERANCE <= value <= high + TOLERANCE


def close(first: float | None, second: float | None) -> bool:
    """Whether they are the same figure, as far as both are known."""
    return first is None or second is None or math.isclose(first, second, abs_tol=TOLERANCE)


def check_json(value: Any, what: str) -> None:
    """Raises ChildMalformed for JSON that is too much to be kept and shown."""
    left, level = MAX_JSON_VALUES, [value]
    for _ in range(MAX_JSON_DEPTH):
        left -= len(level)
        require(left >= 0, f"{what} without end")
        texts = [item for item in level if isinstance(item, str)]
        require(all(len(text) <= MAX_JSON_TEXT for text in texts), f"{what} of endless text")
        inner: list[Any] = []
        for item in level:
            inner += _parts(item)
        if not inner:
            return
        level = inner
    raise malformed(f"{what} nested too deeply")


def _parts(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    return item if isinstance(item, list) else ()
