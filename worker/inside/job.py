"""What a recipe is given: its arguments, its files, a folder of its own, and a way to talk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class InsideJob:
    """`files` can be opened for reading only; `folder` is empty, writable, and removed afterwards.

    A recipe's module has `run(job) -> dict`; what it returns must be JSON.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        folder: Path,
        tell: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.arguments = dict(arguments)
        self.files = dict(files)
        self.folder = folder
        self._tell = tell

    def tell(self, kind: str, body: dict[str, Any]) -> None:
        """Send a message out, now and in order. Numbers that are not finite arrive as null."""
        self._tell(kind, body)

    def should_stop(self) -> bool:
        """Always False: a stop ends this process. Kept for what takes such a question."""
        return False
