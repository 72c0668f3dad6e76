"""`prunescope doctor`: what this installation can do, and what is wrong with it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from app.domain.errors import InvalidInput, PrunescopeError
from app.settings import Settings

LEAST_FREE_BYTES = 1 << 30
EXTRAS = {"timm": "timm", "transformers": "transformers", "parquet": "arro3", "ray": "ray"}


@dataclass(frozen=True)
class Finding:
    subject: str
    ok: bool
    text: str
    hint: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, one a line. Looks only; changes nothing but an absent data directory."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), version)
    yield torch_finding()
    yield device_finding(settings)
    yield data_dir_finding(settings)
    yield database_finding(settings)
    yield isolation_finding(settings)
    for extra, module in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(extra, True, "installed" if there else "not installed (optional)")


def torch_finding() -> Finding:
    """Asked of a child process: this one never loads torch."""
    code = (
        "import json, torch; print(json.dumps([torch.__version__, torch.get_num_threads(),"
        " torch.cuda.device_count() if torch.cuda.is_available() else 0]))"
    )
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
        )
        version, threads, gpus = json.loads(ended.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        return Finding(
            "torch", False, f"can't be loaded ({type(error).__name__})", "Run make demo again."
        )
    return Finding("torch", True, f"{version}, {threads} threads, {gpus} GPUs")


def isolation_finding(settings: Settings) -> Finding:
    """What a worker started here would use, and how it could be stronger."""
    try:
        said = _ask_for_isolation(settings)
    except (subprocess.SubprocessError, ValueError) as error:
        return Finding(
            "isolation",
            False,
            f"can't be found out ({type(error).__name__})",
            "Run make demo again.",
        )
    return Finding("isolation", bool(said["ok"]), str(said["text"]), str(said["hint"]))


def require_isolation(settings: Settings) -> None:
    """Raises InvalidInput when a level is asked for that this machine doesn't have."""
    if settings.isolation == "auto":
        return
    said = _ask_for_isolation(settings)
    if not said["available"]:
        raise InvalidInput(str(said["text"]), str(said["hint"]))


def _ask_for_isolation(settings: Settings) -> dict[str, object]:
    """Of a child process, as this one knows no worker. Raises SubprocessError, ValueError."""
    ended = subprocess.run(
        [sys.executable, "-m", "worker.sandbox.isolation"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PRUNESCOPE_ISOLATION": settings.isolation},
    )
    return json.loads(ended.stdout)


def device_finding(settings: Settings) -> Finding:
    try:
        settings.require_supported()
    except PrunescopeError as error:
        subject = "device" if settings.executor == "local" else "executor"
        return Finding(subject, False, error.message, error.hint)
    return Finding("device", True, f"{settings.device}: this version computes on the CPU")


def data_dir_finding(settings: Settings) -> Finding:
    folder = settings.data_dir
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        return Finding("data", False, f"{folder} can't be written", "Set PRUNESCOPE_DATA_DIR.")
    free = shutil.disk_usage(existing).free
    return Finding(
        "data",
        free >= LEAST_FREE_BYTES,
        f"{folder}, {free / (1 << 30):.1f} GiB free",
        "" if free >= LEAST_FREE_BYTES else "Make room before uploading.",
    )


def database_finding(settings: Settings) -> Finding:
    from app.store.store import Store

    shown = settings.database_url.split("@")[-1]
    file = settings.data_dir / "prunescope.db"
    if settings.database_url.startswith("sqlite") and not file.exists():
        return Finding("database", True, f"{shown}: made at the first start")
    try:
        store = Store.open(settings.database_url)
        try:
            with store.read() as session:
                session.connection().exec_driver_sql("SELECT count(*) FROM job")
        finally:
            store.dispose()
    except PrunescopeError as error:
        return Finding("database", False, error.message, error.hint)
    except Exception as error:
        return Finding(
            "database",
            False,
            f"{shown} can't be read ({type(error).__name__})",
            "prunescope serve migrates it at the start; is PRUNESCOPE_DATABASE_URL right?",
        )
    return Finding("database", True, shown)
