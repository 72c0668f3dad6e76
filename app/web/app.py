"""create_app: the web server, put together."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import JSONResponse, Response

from app.paths import static_dir, templates_dir
from app.settings import Settings
from app.store.blobs import Blobs
from app.store.events import Watcher
from app.store.store import Store
from app.web import docs, pages, problems
from app.web.answers import Problem
from app.web.checkpoints import CheckpointMaker
from app.web.hosts import AllowedHosts
from app.web.lifespan import lifespan
from app.web.reading.analyses import ThinCurves
from app.web.routes import (
    analyses,
    criteria,
    datasets,
    experiments,
    health,
    jobs,
    models,
    plans,
    sign_in,
)
from app.web.security import BodyLimitMiddleware, SecurityMiddleware
from app.web.services import Given, Services
from app.web.sessions import Sessions
from app.web.static import Assets
from app.web.templates import Pages

UPLOAD_PATHS = ("/api/models", "/api/datasets")
DESCRIPTION = (
    "Sensitivity-based pruning of PyTorch networks: upload a model and a data set, measure how the "
    "accuracy falls unit by unit, choose thresholds, retrain, download."
)


def create_app(store: Store, settings: Settings) -> FastAPI:
    """The web server over an open, migrated `store`. `settings.prepare()` has to have run."""
    services = make_services(store, settings)
    app = FastAPI(
        title="Prunescope",
        version="1",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan(services.closing, services.watcher.start, services.watcher.stop),
    )
    app.state.services = services
    problem_page = pages.problem_page(services.pages)
    problems.install(app, problem_page)
    for noun in (models, datasets, analyses, plans, experiments, jobs, criteria):
        app.include_router(noun.router, prefix="/api")
    for module in (health, sign_in, docs, pages):
        app.include_router(module.router)
    _add_static(app)
    _describe(app)
    open_static = pages.open_static_files(services)
    # The last one added stands in front.
    app.add_middleware(problems.LastResort, page=problem_page)
    app.add_middleware(BodyLimitMiddleware, unlimited=UPLOAD_PATHS)
    app.add_middleware(
        SecurityMiddleware,
        sessions=services.sessions,
        hosts=AllowedHosts(settings.host, settings.allowed_hosts),
        open_paths=("/healthz", "/sign-in"),
        open_static=open_static,
    )
    return app


def make_services(store: Store, settings: Settings) -> Services:
    assets = Assets(static_dir(), settings.data_dir / "cache")
    return Services(
        store=store,
        settings=settings,
        blobs=Blobs(settings.blob_url, settings.data_dir),
        watcher=Watcher(store),
        sessions=Sessions(settings.token),
        assets=assets,
        pages=Pages(templates_dir(), assets),
        checkpoints=CheckpointMaker(settings),
        thin=ThinCurves(),
    )


def _add_static(app: FastAPI) -> None:
    @app.get("/static/{path:path}", include_in_schema=False)
    def static_file(path: str, request: Request, given: Given) -> Response:
        return given.assets.respond(request, path)


def _describe(app: FastAPI) -> None:
    """/openapi.json, with one shape for every problem."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
            components["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"},
            }
            schema["security"] = [{"token": []}]
            schema["paths"]["/healthz"]["get"]["security"] = []
            _replace_validation_errors(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it

    @app.get("/openapi.json", include_in_schema=False)
    def description() -> JSONResponse:
        return JSONResponse(app.openapi())


def _replace_validation_errors(schema: dict[str, Any]) -> None:
    """FastAPI describes its own 422 body, which nothing here ever answers."""
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for methods in schema["paths"].values():
        for call in methods.values():
            if "422" in call["responses"]:
                call["responses"]["422"] = {"description": "Problem", "content": problem}
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
