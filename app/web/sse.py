"""Server-sent events: stored ones first, then new ones as they come, until a side goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.responses import StreamingResponse

KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
BATCH = 500


class StoredEvent(Protocol):
    seq: int
    type: str
    data: Any


Read = Callable[[int, int], Awaitable[Sequence[StoredEvent]]]
Wait = Callable[[int, float], Awaitable[None]]


def frame(seq: int, kind: str, data: Any) -> bytes:
    """One event on the wire. JSON has no raw newlines, so one `data` line is enough."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"id: {seq}\nevent: {kind}\ndata: {text}\n\n".encode()


async def event_stream(
    read: Read, wait: Wait, after: int, closing: asyncio.Event
) -> AsyncIterator[bytes]:
    """All events with `seq > after`, in order, each once.

    `read(after, limit)` fetches stored events; `wait(after, seconds)` returns when there may be
    newer ones or the time is over. A comment goes out whenever nothing else did, so that proxies
    keep the connection and a client that is gone is noticed.
    """
    clock = asyncio.get_running_loop().time
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    spoken = clock()
    while not closing.is_set():
        batch = await read(after, BATCH)
        if batch:
            after = batch[-1].seq
            yield b"".join(frame(event.seq, event.type, event.data) for event in batch)
            spoken = clock()
        if len(batch) == BATCH:
            continue
        await wait(after, max(0.0, spoken + KEEP_ALIVE_SECONDS - clock()))
        if clock() >= spoken + KEEP_ALIVE_SECONDS:
            yield b": still here\n\n"
            spoken = clock()


def stream_response(frames: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(
        frames,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def resume_after(last_event_id: str | None, after: int | None) -> int:
    """Where to go on: what the browser saw last counts more than what the address says."""
    seen = (last_event_id or "").strip()
    if seen.isascii() and seen.isdigit() and len(seen) <= 18:
        return int(seen)
    return after or 0
