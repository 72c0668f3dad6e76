"""The event stream of a topic, as a response."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Header, Query
from starlette.responses import StreamingResponse

from app.store import events
from app.store.tables import Event
from app.web.answers import answers
from app.web.services import Services
from app.web.sse import event_stream, resume_after, stream_response

LastEventId = Annotated[
    str | None, Header(description="What a browser sends when it comes back; wins over `after`.")
]
After = Annotated[
    int | None,
    Query(ge=0, le=2**63 - 1, description="Only events numbered above this, e.g. `event_id`."),
]


def stream_topic(
    given: Services, topic: str, last_event_id: str | None, after: int | None
) -> StreamingResponse:
    """Server-sent events of `topic`. No session is held open between reads."""

    def read_now(position: int, limit: int) -> Sequence[Event]:
        with given.store.read() as session:
            return events.read_after(session, topic, position, limit)

    async def read(position: int, limit: int) -> Sequence[Event]:
        return await to_thread.run_sync(read_now, position, limit)

    async def wait(position: int, seconds: float) -> None:
        moved = asyncio.ensure_future(given.watcher.wait(topic, position, seconds))
        closing = asyncio.ensure_future(given.closing.wait())
        try:
            await asyncio.wait((moved, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (moved, closing):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    start = resume_after(last_event_id, after)
    return stream_response(event_stream(read, wait, start, given.closing))


def _described() -> dict[int | str, Any]:
    described = answers(None, 200, 404)
    schema = {"type": "string"}
    described[200] = {"description": "Events", "content": {"text/event-stream": {"schema": schema}}}
    return described


EVENTS = _described()
