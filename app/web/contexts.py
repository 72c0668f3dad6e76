"""What the page templates are given. `state` is what a page's script starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Active = Literal["home", "jobs", ""]


@dataclass(frozen=True)
class PageContext:
    """The frame of every page: `title`, `crumbs` as (label, href), the number of running jobs."""

    title: str
    crumbs: tuple[tuple[str, str | None], ...] = ()
    active: Active = ""
    jobs_running: int = 0


@dataclass(frozen=True)
class PageView:
    """A template with all it needs."""

    template: str
    page: PageContext
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HomeState:
    """home.html: everything that is here, newest first."""

    models: list[dict[str, Any]]
    datasets: list[dict[str, Any]]
    analyses: list[dict[str, Any]]
    jobs: list[dict[str, Any]]
    limits: dict[str, Any]


@dataclass(frozen=True)
class ModelState:
    """model.html: the model in full, its analyses, and the data sets it could be analysed on."""

    model: dict[str, Any]
    analyses: list[dict[str, Any]]
    datasets: list[dict[str, Any]]


@dataclass(frozen=True)
class DatasetState:
    dataset: dict[str, Any]
    analyses: list[dict[str, Any]]


@dataclass(frozen=True)
class ExploreState:
    """explore.html: `analysis` as GET /api/analyses/{id}; `facts` for the costs of a plan.

    `dataset` has the notes of its import: how the splits came about changes what curves mean.
    """

    analysis: dict[str, Any]
    plans: list[dict[str, Any]]
    plan: dict[str, Any] | None
    experiments: list[dict[str, Any]]
    facts: dict[str, Any]
    splits: dict[str, int]
    model: dict[str, Any]
    dataset: dict[str, Any]


@dataclass(frozen=True)
class ExperimentState:
    experiment: dict[str, Any]
    plan: dict[str, Any]
    model: dict[str, Any]


@dataclass(frozen=True)
class JobsState:
    jobs: list[dict[str, Any]]
    workers: list[dict[str, Any]]


@dataclass(frozen=True)
class SignInState:
    next: str
    error: str


@dataclass(frozen=True)
class ProblemState:
    status: int
    title: str
    detail: str
