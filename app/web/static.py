"""Scripts, styles and Plotly: unchanging addresses, compressed once.

A page names a file as `/static/~VERSION/js/explore.js`. The version is a hash over all our files
and stands in the path, so that modules that import each other by relative paths are cached for good
as well, and one release never mixes with another. The same file without a version is checked with
the server every time.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import posixpath
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from app.domain.errors import NotFound

PLOTLY = "plotly.min.js"
FOREVER = "private, max-age=31536000, immutable"
ASK_FIRST = "no-cache"
LOOK_SECONDS = 0.5

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_NAMED = re.compile(r"""["']/static/([^"'?]+)""")
_IMPORTED = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["'](\.[^"']+\.js)["']""")
_COMPRESSED = {".css", ".js", ".json", ".svg", ".txt"}


def plotly_file() -> Path:
    """The bundle inside the installed plotly package, found without importing the package."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The plotly package is not installed.")
    return Path(spec.submodule_search_locations[0]) / "package_data" / PLOTLY


@dataclass(frozen=True)
class _Listing:
    """What lay in the folder at one moment: files by their address, and a hash over all of them."""

    signature: tuple[tuple[str, int, int], ...]
    version: str


def unversioned(path: str) -> str:
    """`~VERSION/js/explore.js` as `js/explore.js`."""
    return path.partition("/")[2] if path.startswith("~") else path


class Assets:
    """The files under /static/."""

    def __init__(self, folder: Path, cache_dir: Path, plotly: Path | None = None) -> None:
        self._folder = folder
        self._cache_dir = cache_dir
        self._plotly = plotly or plotly_file()
        details = self._plotly.stat()
        self._plotly_version = hashlib.sha256(
            f"{details.st_size} {details.st_mtime_ns}".encode()
        ).hexdigest()[:12]
        self._listing = _Listing((), "")
        self._look_again = 0.0

    def url(self, path: str) -> str:
        """The address of a file that may be cached for good; a plain one for what is not there."""
        if path == PLOTLY:
            return f"/static/{PLOTLY}?v={self._plotly_version}"
        listing = self._current()
        if path not in {name for name, _, _ in listing.signature}:
            return f"/static/{path}"
        return f"/static/~{listing.version}/{path}"

    def needed_by(self, html: str) -> frozenset[str]:
        """The files that a page loads: those it names, and what these import in turn."""
        waiting = [unversioned(match) for match in _NAMED.findall(html)]
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            path = self._folder / name
            if name in found or not path.is_file():
                continue
            found.add(name)
            if path.suffix == ".js":
                folder = posixpath.dirname(name)
                imports = _IMPORTED.findall(path.read_text(encoding="utf-8"))
                waiting += [posixpath.normpath(posixpath.join(folder, each)) for each in imports]
        return frozenset(found)

    def respond(self, request: Request, path: str) -> Response:
        """The answer to GET /static/{path}. Raises NotFound."""
        if path == PLOTLY:
            return self._respond_plotly(request)
        version = None
        if path.startswith("~"):
            version, _, path = path[1:].partition("/")
        listing = self._current()
        entry = next((entry for entry in listing.signature if entry[0] == path), None)
        if entry is None:
            raise NotFound(f"There is no static file {path}.")
        cache = FOREVER if version == listing.version else ASK_FIRST
        suffix = Path(path).suffix
        zipped = suffix in _COMPRESSED and _accepts_gzip(request)
        body, etag = _content(self._folder / path, entry[1], entry[2], zipped)
        headers = {"ETag": etag, "Cache-Control": cache, "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(
            body, headers=headers, media_type=_TYPES.get(suffix, "application/octet-stream")
        )

    def _current(self) -> _Listing:
        """The listing, made anew when a file has changed since (while developing)."""
        moment = time.monotonic()
        if moment < self._look_again:
            return self._listing
        self._look_again = moment + LOOK_SECONDS
        signature = tuple(sorted(self._walk()))
        if signature != self._listing.signature:
            digest = hashlib.sha256()
            for name, _, _ in signature:
                digest.update(name.encode() + b"\0")
                digest.update(hashlib.sha256((self._folder / name).read_bytes()).digest())
            self._listing = _Listing(signature, digest.hexdigest()[:12])
        return self._listing

    def _walk(self) -> list[tuple[str, int, int]]:
        found = []
        for root, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(root) / name
                details = path.stat()
                address = path.relative_to(self._folder).as_posix()
                found.append((address, details.st_mtime_ns, details.st_size))
        return found

    def _respond_plotly(self, request: Request) -> Response:
        known = request.query_params.get("v") == self._plotly_version
        zipped = _accepts_gzip(request)
        etag = f'"{self._plotly_version}{"-gz" if zipped else ""}"'
        headers = {
            "ETag": etag,
            "Cache-Control": FOREVER if known else ASK_FIRST,
            "Vary": "Accept-Encoding",
        }
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        path = self._plotly
        if zipped:
            path = self._zipped_plotly()
            headers["Content-Encoding"] = "gzip"
        return FileResponse(path, headers=headers, media_type=_TYPES[".js"])

    def _zipped_plotly(self) -> Path:
        target = self._cache_dir / f"plotly-{self._plotly_version}.js.gz"
        if not target.exists():
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._cache_dir)
            with (
                self._plotly.open("rb") as source,
                os.fdopen(descriptor, "wb") as file,
                gzip.GzipFile("", "wb", 9, file, mtime=0) as packed,
            ):
                shutil.copyfileobj(source, packed)
            os.replace(temporary, target)
        return target


@lru_cache(maxsize=256)
def _content(path: Path, modified: int, size: int, zipped: bool) -> tuple[bytes, str]:
    """A file's bytes as sent, and their ETag. `modified` and `size` make the entry go stale."""
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}{"-gz" if zipped else ""}"'
    return (gzip.compress(body, 6, mtime=0) if zipped else body), etag


def _accepts_gzip(request: Request) -> bool:
    for entry in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, parameters = entry.partition(";")
        if name.strip() in ("gzip", "*"):
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
