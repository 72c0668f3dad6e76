"""For `uvicorn --factory app.web.asgi:create_app_from_env`: the server without its workers."""

from __future__ import annotations

from fastapi import FastAPI

from app.settings import Settings
from app.store.store import Store
from app.web.app import create_app


def create_app_from_env() -> FastAPI:
    """Settings from PRUNESCOPE_ variables; the database is migrated first."""
    settings = Settings()
    settings.prepare()
    store = Store.open(settings.database_url)
    store.migrate()
    return create_app(store, settings)
