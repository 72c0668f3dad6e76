"""The closed vocabularies of the product."""

from __future__ import annotations

from enum import StrEnum

from app.domain.criteria import CRITERIA as CRITERIA  # a vocabulary in a file of its own


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class JobKind(StrEnum):
    IMPORT_MODEL = "import-model"
    IMPORT_DATASET = "import-dataset"
    ANALYSE = "analyse"
    MEASURE = "measure"
    RETRAIN = "retrain"


class Status(StrEnum):
    """The state of an uploaded model or data set."""

    IMPORTING = "importing"
    READY = "ready"
    FAILED = "failed"


class SplitName(StrEnum):
    TRAIN = "train"
    TUNE = "tune"
    TEST = "test"


class Granularity(StrEnum):
    WEIGHT = "weight"
    CHANNEL = "channel"


class Priority(StrEnum):
    """How soon a job's turn is; the same word means more for work that somebody looks at."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
