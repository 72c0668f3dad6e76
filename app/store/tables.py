"""The tables. The truth about everything that Prunescope knows is in them; bytes are in blobs.

Rows carry no relationships: a query is always written where it runs. Columns named by the wire
words of the contract keep those words, so `bytes`, `format` and `type` are columns here.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app.domain.words import JobState, Status
from app.store.clock import utc_now


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored and given back as UTC. Naive ones raise ValueError."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Finite(TypeDecorator[float]):
    """A float; NaN and infinities become NULL, the same on every database."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return value if value is not None and math.isfinite(value) else None


Document = JSON(none_as_null=True)


def _values(words: type[StrEnum]) -> list[str]:
    return [word.value for word in words]


def _word(words: type[StrEnum]) -> Enum:
    return Enum(
        words,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=words.__name__.lower(),
        values_callable=_values,
    )


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


_NEVER_REUSED = {"sqlite_autoincrement": True}


class Job(Base):
    """One piece of work. While it runs, only the holder of `lease_token` may write its results.

    A `paused` one waits in the queue until somebody lets it go on.
    """

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_queue", "state", "priority", "id"),
        Index("ix_job_subject", "subject_kind", "subject_id"),
        _NEVER_REUSED,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[JobState] = mapped_column(_word(JobState))
    payload: Mapped[dict[str, Any]] = mapped_column(Document)
    subject_kind: Mapped[str | None] = mapped_column(String(16))
    subject_id: Mapped[int | None]
    topic: Mapped[str | None] = mapped_column(String(64))
    priority: Mapped[int]
    attempt: Mapped[int]
    max_attempts: Mapped[int]
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    worker: Mapped[int | None]
    cancel_requested: Mapped[bool]
    paused: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any]] = mapped_column(Document)
    error: Mapped[dict[str, Any] | None] = mapped_column(Document)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


def _job_column() -> Any:
    return mapped_column(ForeignKey("job.id", ondelete="SET NULL"), index=True)


class Model(Base):
    """An uploaded network. What the import found out is null until `status` is ready.

    `derived_sha256`: the same network as a `.pt2`, where the upload brought weights only.
    """

    __tablename__ = "model"
    __table_args__ = (_NEVER_REUSED,)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    architecture: Mapped[str | None] = mapped_column(Text)
    architecture_args: Mapped[dict[str, Any] | None] = mapped_column(Document)
    derived_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    details: Mapped[dict[str, Any] | None] = mapped_column(Document)
    status: Mapped[Status] = mapped_column(_word(Status))
    error: Mapped[dict[str, Any] | None] = mapped_column(Document)
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    state_bytes: Mapped[int | None] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    layers: Mapped[list[Any] | None] = mapped_column(Document)
    units: Mapped[dict[str, Any] | None] = mapped_column(Document)
    inputs: Mapped[list[Any] | None] = mapped_column(Document)
    fixed_batch: Mapped[int | None]
    job_id: Mapped[int | None] = _job_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, onupdate=utc_now)


class Dataset(Base):
    """An uploaded data set. What the import found out is null until `status` is ready."""

    __tablename__ = "dataset"
    __table_args__ = (_NEVER_REUSED,)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    task: Mapped[str] = mapped_column(String(32))
    options: Mapped[dict[str, Any] | None] = mapped_column(Document)
    status: Mapped[Status] = mapped_column(_word(Status))
    error: Mapped[dict[str, Any] | None] = mapped_column(Document)
    splits: Mapped[dict[str, Any] | None] = mapped_column(Document)
    input_shape: Mapped[list[Any] | None] = mapped_column(Document)
    classes: Mapped[int | None]
    details: Mapped[dict[str, Any] | None] = mapped_column(Document)
    job_id: Mapped[int | None] = _job_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, onupdate=utc_now)


class Analysis(Base):
    """A grid of cells somebody asked for. Its status, error and progress are its job's.

    `goals`: how much sharper than `evaluation` says somebody wanted parts of it later. `extra`: the
    cells `[unit, criterion, level]` beside the grid that a refinement chose. `remarks`: units that
    have no curve, and why. `known`: the cells that needed no measuring when it was asked for.
    """

    __tablename__ = "analysis"
    __table_args__ = (_NEVER_REUSED,)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"), index=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id"), index=True)
    granularity: Mapped[str] = mapped_column(String(16))
    criteria: Mapped[list[str]] = mapped_column(Document)
    levels: Mapped[list[int]] = mapped_column(Document)
    units: Mapped[list[str] | None] = mapped_column(Document)
    evaluation: Mapped[dict[str, Any]] = mapped_column(Document)
    recalibrate_batch_norm: Mapped[bool]
    seed: Mapped[int] = mapped_column(BigInteger)
    context: Mapped[str | None] = mapped_column(String(64), index=True)
    goals: Mapped[list[Any] | None] = mapped_column(Document)
    extra: Mapped[list[Any] | None] = mapped_column(Document)
    remarks: Mapped[list[Any] | None] = mapped_column(Document)
    known: Mapped[int | None]
    job_id: Mapped[int | None] = _job_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Baseline(Base):
    """The dense network's figures in one context. `kind`: what is predicted, as app.domain.metrics.

    `correct`, `accuracy` and its interval are null where answers are not right or wrong. `strata`:
    how the split is stratified, as app.domain.adaptive. `arithmetic`: where bfloat16 was asked
    for, how far it is from float32, as app.domain.point_facts.
    """

    __tablename__ = "baseline"

    context: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str | None] = mapped_column(String(32))
    samples: Mapped[int]
    correct: Mapped[int | None]
    loss: Mapped[float | None] = mapped_column(Finite)
    accuracy: Mapped[float | None] = mapped_column(Finite)
    low: Mapped[float | None] = mapped_column(Finite)
    high: Mapped[float | None] = mapped_column(Finite)
    metrics: Mapped[dict[str, Any] | None] = mapped_column(Document)
    strata: Mapped[dict[str, Any] | None] = mapped_column(Document)
    arithmetic: Mapped[dict[str, Any] | None] = mapped_column(Document)


class Point(Base):
    """One fact: what one sparsity of one unit does to the network, whoever measured it.

    Known from `samples` of the `of` samples of its split; null in rows of earlier versions, which
    are whole. A point gives way only to one of more samples. While it is not whole its figures are
    estimates for the split, and `sums` is what they were computed from, with intervals at
    `confidence` (app.domain.adaptive). `correct` is counted among the samples seen.
    """

    __tablename__ = "point"

    context: Mapped[str] = mapped_column(String(64), primary_key=True)
    unit: Mapped[str] = mapped_column(Text, primary_key=True)
    criterion: Mapped[str] = mapped_column(String(64), primary_key=True)
    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    removed: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int]
    correct: Mapped[int | None]
    accuracy: Mapped[float | None] = mapped_column(Finite)
    loss: Mapped[float | None] = mapped_column(Finite)
    low: Mapped[float | None] = mapped_column(Finite)
    high: Mapped[float | None] = mapped_column(Finite)
    flips: Mapped[int | None]
    lost: Mapped[int | None]
    gained: Mapped[int | None]
    metrics: Mapped[dict[str, Any] | None] = mapped_column(Document)
    of: Mapped[int | None]
    drop: Mapped[float | None] = mapped_column(Finite)
    drop_low: Mapped[float | None] = mapped_column(Finite)
    drop_high: Mapped[float | None] = mapped_column(Finite)
    kl: Mapped[float | None] = mapped_column(Finite)
    sums: Mapped[dict[str, Any] | None] = mapped_column(Document)
    confidence: Mapped[float | None] = mapped_column(Finite)
    remark: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    updated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Outcome(Base):
    """Which answers of a cell were right, and all that is needed to go on measuring it.

    The dense network's own is under unit and criterion "" and level 0. `hits`: the answers of the
    first `samples` of the stream, in its order, a bit each, packed as numpy.packbits does and
    deflated (zlib); null where answers are not right or wrong. `by_class`: `{seen, right}`. `state`
    and `sums` are of the same samples; what a state means is for the recipe alone. The dense
    network's is the stratum of each sample of the stream, a byte each, deflated.
    """

    __tablename__ = "outcome"

    context: Mapped[str] = mapped_column(String(64), primary_key=True)
    unit: Mapped[str] = mapped_column(Text, primary_key=True)
    criterion: Mapped[str] = mapped_column(String(64), primary_key=True)
    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    samples: Mapped[int]
    hits: Mapped[bytes | None] = mapped_column(LargeBinary)
    by_class: Mapped[dict[str, Any] | None] = mapped_column(Document)
    sums: Mapped[dict[str, Any] | None] = mapped_column(Document)
    state: Mapped[bytes | None] = mapped_column(LargeBinary)


class Plan(Base):
    """One sparsity for each unit: the thresholds somebody chose, and what was predicted."""

    __tablename__ = "plan"
    __table_args__ = (_NEVER_REUSED,)

    id: Mapped[int] = mapped_column(primary_key=True)
    analysis_id: Mapped[int] = mapped_column(ForeignKey("analysis.id"), index=True)
    criterion: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(Text)
    sparsities: Mapped[dict[str, float]] = mapped_column(Document)
    predicted: Mapped[dict[str, Any]] = mapped_column(Document)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Measurement(Base):
    """What a whole plan really does on one split; `baseline` is the dense network there."""

    __tablename__ = "measurement"
    __table_args__ = (UniqueConstraint("plan_id", "job_id", "split"), _NEVER_REUSED)

    id: Mapped[int] = mapped_column(primary_key=True)
    plan_id: Mapped[int] = mapped_column(ForeignKey("plan.id", ondelete="CASCADE"))
    job_id: Mapped[int | None] = _job_column()
    split: Mapped[str] = mapped_column(String(16))
    samples: Mapped[int]
    correct: Mapped[int | None]
    accuracy: Mapped[float | None] = mapped_column(Finite)
    loss: Mapped[float | None] = mapped_column(Finite)
    low: Mapped[float | None] = mapped_column(Finite)
    high: Mapped[float | None] = mapped_column(Finite)
    confidence: Mapped[float] = mapped_column(Finite)
    sparsity: Mapped[float] = mapped_column(Finite)
    flips: Mapped[int | None]
    lost: Mapped[int | None]
    gained: Mapped[int | None]
    metrics: Mapped[dict[str, Any] | None] = mapped_column(Document)
    baseline: Mapped[dict[str, Any]] = mapped_column(Document)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Experiment(Base):
    """Pruning and retraining along a plan. `baseline` is the dense network on the final split.

    Its status, error and progress are its job's.
    """

    __tablename__ = "experiment"
    __table_args__ = (_NEVER_REUSED,)

    id: Mapped[int] = mapped_column(primary_key=True)
    plan_id: Mapped[int] = mapped_column(ForeignKey("plan.id"), index=True)
    settings: Mapped[dict[str, Any]] = mapped_column(Document)
    baseline: Mapped[dict[str, Any] | None] = mapped_column(Document)
    job_id: Mapped[int | None] = _job_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Run(Base):
    """One contestant of an experiment: the plan itself, or a baseline at the same sparsity."""

    __tablename__ = "run"
    __table_args__ = (UniqueConstraint("experiment_id", "name"), _NEVER_REUSED)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiment.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(32))
    position: Mapped[int]
    sparsities: Mapped[dict[str, float] | None] = mapped_column(Document)
    before: Mapped[dict[str, Any] | None] = mapped_column(Document)
    after: Mapped[dict[str, Any] | None] = mapped_column(Document)
    best_epoch: Mapped[int | None]
    checkpoint_sha256: Mapped[str | None] = mapped_column(String(64), index=True)


class Epoch(Base):
    """Where a run stood after one epoch of one step; epoch 0 is before any training."""

    __tablename__ = "epoch"

    run_id: Mapped[int] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sparsity: Mapped[float] = mapped_column(Finite)
    train_loss: Mapped[float | None] = mapped_column(Finite)
    tune_accuracy: Mapped[float | None] = mapped_column(Finite)
    tune_loss: Mapped[float | None] = mapped_column(Finite)
    tune_samples: Mapped[int]
    tune_metrics: Mapped[dict[str, Any] | None] = mapped_column(Document)
    low: Mapped[float | None] = mapped_column(Finite)
    high: Mapped[float | None] = mapped_column(Finite)
    learning_rate: Mapped[float | None] = mapped_column(Finite)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Topic(Base):
    """What one stream of events is about, and the number of its latest event."""

    __tablename__ = "topic"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)


class Event(Base):
    __tablename__ = "event"

    topic: Mapped[str] = mapped_column(
        ForeignKey("topic.name", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]] = mapped_column(Document)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Worker(Base):
    """A worker process, alive as long as `heartbeat_at` moves."""

    __tablename__ = "worker"
    __table_args__ = (_NEVER_REUSED,)

    id: Mapped[int] = mapped_column(primary_key=True)
    pid: Mapped[int]
    host: Mapped[str] = mapped_column(Text)
    isolation: Mapped[str | None] = mapped_column(String(16))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime)
