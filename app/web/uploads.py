"""Uploads, streamed from the socket to the blob store with their hash taken on the way."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from fastapi import Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.domain.errors import InvalidInput, StorageFull, TooLarge
from app.store.blobs import Blobs, Staged, drop_unreferenced
from app.store.store import Store
from app.web.multipart import FormReader, base_name, display_name
from app.web.numbers import human_bytes
from app.web.views.common import JSON

# Small enough to add nothing to the memory of the process, large enough to keep threads idle.
WRITE_BYTES = 1 << 20
# What a form adds to its file: boundaries, headers, text fields.
FORM_OVERHEAD_BYTES = 1 << 20

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Upload:
    """A file that is in the blob store now, and what the form said about it."""

    sha256: str
    bytes: int
    name: str
    file_name: str
    fields: Mapping[str, str]


async def receive_upload(
    request: Request,
    blobs: Blobs,
    *,
    max_bytes: int,
    fields: frozenset[str],
    check: Callable[[Mapping[str, str], str], None],
) -> Upload:
    """Store the one `file` of a multipart request. Nothing is left behind when this raises.

    `check` may refuse the text fields and the file's name before the file is kept. Raises TooLarge
    (before reading when the request announces its length), InvalidInput, StorageFull,
    ClientDisconnect.
    """
    _check_announced(request, max_bytes)
    reader = FormReader(request.headers.get("content-type", ""), fields)
    staged = await to_thread.run_sync(blobs.stage)
    committed = False
    try:
        await _fill(request, reader, staged, max_bytes)
        form = reader.finish()
        check(form.fields, base_name(form.file_name or ""))
        if staged.bytes == 0:
            raise InvalidInput(
                "The file is empty.", "Choose another one.", fields={"file": "It has no bytes."}
            )
        sha256, size = await to_thread.run_sync(blobs.commit, staged)
        committed = True
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The server's disk is full.", "Delete what is not needed, then upload it again."
            ) from error
        raise
    finally:
        if not committed:
            staged.discard()
    file_name = base_name(form.file_name or "")
    name = display_name(form.fields.get("name", "")) or file_name or "unnamed"
    return Upload(sha256, size, name, file_name, form.fields)


async def _fill(request: Request, reader: FormReader, staged: Staged, max_bytes: int) -> None:
    waiting: list[bytes] = []
    size = total = received = 0
    async for chunk in request.stream():
        received += len(chunk)
        for part in reader.feed(chunk):
            waiting.append(part)
            size += len(part)
            total += len(part)
        if total > max_bytes or received > max_bytes + FORM_OVERHEAD_BYTES:
            raise _too_large(max_bytes)
        if size >= WRITE_BYTES:
            await to_thread.run_sync(staged.write, b"".join(waiting))
            waiting.clear()
            size = 0
    if waiting:
        await to_thread.run_sync(staged.write, b"".join(waiting))


def _check_announced(request: Request, max_bytes: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes + FORM_OVERHEAD_BYTES:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        f"The file is larger than {human_bytes(max_bytes)}.",
        "The server's operator can raise the limit with PRUNESCOPE_MAX_UPLOAD_BYTES.",
    )


def keep(
    store: Store, blobs: Blobs, upload: Upload, create: Callable[[Session, Upload], JSON]
) -> JSON:
    """Make the row that owns an uploaded file; when that fails, the file goes again."""
    try:
        with store.write() as session:
            return create(session, upload)
    except BaseException:
        drop_unreferenced(store, blobs, [upload.sha256])
        raise


def gone() -> Response:
    """For a client that hung up: nobody reads it, but a request has to end in something."""
    return Response(status_code=400, headers={"Connection": "close"})


def file_format(file_name: str, known: Mapping[str, str]) -> str:
    """A first guess by the file's ending, until the import has looked inside."""
    ending = file_name.lower().rpartition(".")[2]
    return known.get(ending, "unknown")


def form_description(file_text: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """`openapi_extra` of an upload: the form is read by hand, so it is described by hand."""
    properties: dict[str, Any] = {
        "file": {"type": "string", "format": "binary", "description": file_text}
    }
    properties |= {name: {"type": "string", "description": text} for name, text in fields.items()}
    schema = {"type": "object", "required": ["file"], "properties": properties}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }
