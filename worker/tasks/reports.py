"""What a child may say. It reads uploads and runs networks, so it may say anything.

Every message is parsed strictly, every figure is checked against what was asked for, and a child
that breaks a rule ends its job with nothing stored. What is said of uploads is in `descriptions`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from app.domain.errors import ChildMalformed
from app.domain.metrics import METRICS, Kind

MAX_COUNT = 1 << 62
MAX_AXES = 16
MAX_NAMES = 1_000_000
MAX_JSON_VALUES = 100_000
MAX_JSON_TEXT = 4096
MAX_JSON_DEPTH = 8
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
    """`fraction` of the work is done, `seconds` are left."""

    fraction: Share
    seconds: NotNegative | None


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


class PointSaid(Report):
    unit: Name
    criterion: Word
    level: Count
    figures: Figures


class PointsSaid(Report):
    points: Annotated[list[PointSaid], Field(max_length=100_000)]


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
