"""The closed vocabularies of the product."""

from __future__ import annotations

from enum import StrEnum


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


CRITERIA: tuple[str, ...] = ("magnitude", "random")
"""Ways of ranking weights, by the names under which the engine knows them."""
