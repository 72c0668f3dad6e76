"""Files on their way out: always as an attachment, never as something a browser would open."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import FileResponse, Response

from app.web.answers import answers


def content_disposition(file_name: str) -> str:
    """RFC 6266 attachment header: plain ASCII for old clients, RFC 5987 for the rest."""
    clean = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in file_name)
    clean = clean.strip(" .") or "download"
    ascii_name = clean.encode("ascii", "replace").decode().replace("?", "_")
    header = f'attachment; filename="{ascii_name}"'
    if ascii_name != clean:
        header += f"; filename*=UTF-8''{quote(clean, safe='')}"
    return header


def slug(text: str, fallback: str) -> str:
    """A user's display text as the beginning of a file name."""
    stem = re.sub(r"\.(pt2|pth|pt|safetensors|npz)$", "", text, flags=re.IGNORECASE)
    return re.sub(r"[^\w.+-]+", "-", stem).strip("-.")[:80] or fallback


def send_file(
    request: Request,
    path: Path,
    file_name: str,
    etag: str | None,
    media_type: str = "application/octet-stream",
) -> Response:
    """The file's bytes, unchanged; 304 when the client has them already. Ranges are understood."""
    headers = {
        "Content-Disposition": content_disposition(file_name),
        "Cache-Control": "private, no-cache",
    }
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
        if request.headers.get("if-none-match") == f'"{etag}"':
            return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, media_type=media_type, stat_result=path.stat())


def bytes_described(*problems: int) -> dict[int | str, Any]:
    """`responses=` of a route that answers a file, and the problems it may answer instead."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    described = answers(None, 200, 404, *problems)
    described[200] = {"description": "The file", "content": {"application/octet-stream": binary}}
    return described
