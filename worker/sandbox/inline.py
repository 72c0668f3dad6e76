"""The contract of `Walls.run` in this very process, without any walls: for unit tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.domain.errors import PrunescopeError, Stopped
from worker.inside.job import InsideJob
from worker.sandbox import ending, wire
from worker.sandbox.child import describe, perform
from worker.sandbox.folders import Folder
from worker.sandbox.limits import Limits
from worker.sandbox.running import OnMessage
from worker.sandbox.walls import RECIPES, Result


def run_inline(
    recipe: str,
    arguments: Mapping[str, Any],
    files: Mapping[str, Path],
    *,
    on_message: OnMessage,
    should_stop: Callable[[], bool] = lambda: False,
    limits: Limits | None = None,
    recipes: str = RECIPES,
) -> Result:
    """As `Walls.run`; a stop is noticed between messages, and time and memory are not limited.

    Arguments, messages and the result go through the same encoding as between processes.
    """
    limits = limits or Limits()
    folder = Folder(Path(tempfile.mkdtemp(prefix="prunescope-inline-")))
    reader = wire.Reader(limits.message_bytes, limits.total_message_bytes)
    raised_by_listener: list[Exception] = []

    def tell(kind: str, body: dict[str, Any]) -> None:
        if should_stop():
            raise Stopped("The computation was stopped.")
        for message in reader.feed(wire.encode({"tell": kind, "body": body})):
            try:
                on_message(message["tell"], message["body"], folder.path)
            except Exception as error:
                raised_by_listener.append(error)
                raise

    said = json.loads(wire.encode(dict(arguments))[wire.HEADER :])
    job = InsideJob(said, files, folder.path, tell)
    try:
        value = perform(recipes, recipe, job)
        (answer,) = reader.feed(wire.encode({"result": value}))
    except BaseException as error:
        folder.discard()
        if isinstance(error, PrunescopeError) or error in raised_by_listener:
            raise
        if not isinstance(error, Exception):
            raise
        where = {"disk_bytes": limits.disk_bytes, "folder": tempfile.gettempdir()}
        raise ending.failed_inside(describe(error)["failed"], **where) from error
    folder.settled = True
    return Result(answer["result"], folder)
