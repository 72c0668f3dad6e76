"""The HTML pages: what each shows at first, before its script goes on by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.domain.errors import NotFound
from app.store import datasets as store_datasets
from app.store import models as store_models
from app.store import plans as store_plans
from app.web import contexts
from app.web.contexts import PageContext
from app.web.paging import Paging
from app.web.params import ItemId
from app.web.problems import HtmlProblem
from app.web.reading import analyses, experiments, jobs, models, plans
from app.web.services import Given, Services
from app.web.templates import Pages
from app.web.views.models import dataset_view, model_facts, model_view, weight_units

router = APIRouter(include_in_schema=False)

HOME_MODELS = 50
HOME_JOBS = 12
JOBS = 100
PLANS = 20


def _frame(session: Session, title: str, *crumbs: tuple[str, str | None], active: Any = "") -> Any:
    return PageContext(
        title=title, crumbs=crumbs, active=active, jobs_running=jobs.running_count(session)
    )


@router.get("/")
def home(given: Given) -> Response:
    with given.store.read() as session:
        page = _frame(session, "Models", active="home")
        state = contexts.HomeState(
            models=models.list_models(session, Paging(HOME_MODELS))[0],
            datasets=models.list_datasets(session, Paging(HOME_MODELS))[0],
            analyses=analyses.list_with_curves(session, Paging(HOME_MODELS), given.thin),
            jobs=jobs.list_jobs(session, Paging(HOME_JOBS))[0],
            limits={"max_upload_bytes": given.settings.max_upload_bytes},
        )
    for model in state.models:
        model["analyses"] = [each for each in state.analyses if each["model_id"] == model["id"]]
    return given.pages.render("home.html", page, state)


@router.get("/models/{id}")
def model_page(item_id: ItemId, given: Given) -> Response:
    with given.store.read() as session:
        row = store_models.get(session, item_id)
        page = _frame(session, row.name, ("Models", "/"), (row.name, None))
        state = contexts.ModelState(
            model=model_view(row),
            analyses=analyses.list_with_curves(
                session, Paging(HOME_MODELS), given.thin, model_id=row.id
            ),
            datasets=models.list_datasets(session, Paging(HOME_MODELS))[0],
        )
    return given.pages.render("model.html", page, state)


@router.get("/datasets/{id}")
def dataset_page(item_id: ItemId, given: Given) -> Response:
    with given.store.read() as session:
        row = store_datasets.get(session, item_id)
        page = _frame(session, row.name, ("Models", "/"), (row.name, None))
        state = contexts.DatasetState(
            dataset=dataset_view(row),
            analyses=analyses.list_with_curves(
                session, Paging(HOME_MODELS), given.thin, dataset_id=row.id
            ),
        )
    return given.pages.render("dataset.html", page, state)


@router.get("/analyses/{id}")
def explore_page(
    item_id: ItemId, given: Given, plan: Annotated[str | None, Query(max_length=40)] = None
) -> Response:
    with given.store.read() as session:
        found = analyses.find(session, item_id)
        model, dataset = found.model, found.dataset
        title = f"{model.name} on {dataset.name}"
        page = _frame(
            session,
            title,
            ("Models", "/"),
            (model.name, f"/models/{model.id}"),
            (dataset.name, None),
        )
        state = contexts.ExploreState(
            analysis=analyses.view(session, found),
            plans=plans.list_plans(session, Paging(PLANS), item_id)[0],
            plan=_chosen_plan(session, item_id, plan),
            experiments=experiments.list_experiments(session, Paging(PLANS), analysis_id=item_id)[
                0
            ],
            facts=model_facts(model, weight_units(model)),
            splits=dataset_view(dataset)["splits"],
            model={"id": model.id, "name": model.name},
            dataset={
                "id": dataset.id,
                "name": dataset.name,
                "notes": (dataset.details or {}).get("notes") or [],
            },
        )
    return given.pages.render("explore.html", page, state)


def _chosen_plan(session: Session, analysis_id: int, asked: str | None) -> dict[str, Any] | None:
    """The plan named in the address. One that is not there, or elsewhere, opens none."""
    if asked is None or not (asked.isascii() and asked.isdigit() and len(asked) <= 18):
        return None
    try:
        row = store_plans.get(session, int(asked))
    except NotFound:
        return None
    return plans.view(session, row) if row.analysis_id == analysis_id else None


@router.get("/experiments/{id}")
def experiment_page(item_id: ItemId, given: Given) -> Response:
    with given.store.read() as session:
        found = experiments.find(session, item_id)
        model = found.model
        page = _frame(
            session,
            f"Retraining {model.name}",
            ("Models", "/"),
            (model.name, f"/models/{model.id}"),
            ("Analysis", f"/analyses/{found.plan.analysis_id}?plan={found.plan.id}"),
            (f"Experiment {found.row.id}", None),
        )
        state = contexts.ExperimentState(
            experiment=experiments.view(session, found),
            plan=plans.view(session, found.plan),
            model={"id": model.id, "name": model.name},
        )
    return given.pages.render("experiment.html", page, state)


@router.get("/jobs")
def jobs_page(given: Given) -> Response:
    with given.store.read() as session:
        page = _frame(session, "Jobs", ("Models", "/"), ("Jobs", None), active="jobs")
        state = contexts.JobsState(
            jobs=jobs.list_jobs(session, Paging(JOBS))[0], workers=jobs.list_workers(session)
        )
    return given.pages.render("jobs.html", page, state)


def problem_page(pages: Pages) -> HtmlProblem:
    """Draws a problem for people. It asks the database nothing: that may be what is broken."""

    def draw(request: Request, document: Mapping[str, Any]) -> Response:
        state = contexts.ProblemState(
            status=document["status"], title=document["title"], detail=document["detail"]
        )
        page = PageContext(title=state.title, crumbs=(("Models", "/"), (state.title, None)))
        return pages.render("problem.html", page, state, status=state.status)

    return draw


def open_static_files(services: Services) -> frozenset[str]:
    """What the sign-in page loads, which has to be there for people who are not signed in."""
    page = PageContext(title="Sign in")
    html = services.pages.text("sign_in.html", page, contexts.SignInState(next="/", error=""))
    return services.assets.needed_by(html)
