"""What the routes work with, made once for the life of the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from app.settings import Settings
from app.store.blobs import Blobs
from app.store.events import Watcher
from app.store.store import Store
from app.web.checkpoints import CheckpointMaker
from app.web.reading.analyses import ThinCurves
from app.web.sessions import FailureLimit, Sessions
from app.web.static import Assets
from app.web.templates import Pages


@dataclass(frozen=True)
class Services:
    """`closing` is set as soon as the server is asked to stop, so that open streams end."""

    store: Store
    settings: Settings
    blobs: Blobs
    watcher: Watcher
    sessions: Sessions
    assets: Assets
    pages: Pages
    checkpoints: CheckpointMaker
    thin: ThinCurves
    failures: FailureLimit = field(default_factory=FailureLimit)
    closing: asyncio.Event = field(default_factory=asyncio.Event)


def services_of(request: Request) -> Services:
    return request.app.state.services


Given = Annotated[Services, Depends(services_of)]
