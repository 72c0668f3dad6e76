"""Stand-ins for the walls: recipes in this very process, or children that say what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from worker.sandbox.folders import Folder
from worker.sandbox.inline import run_inline
from worker.sandbox.isolation import Isolation
from worker.sandbox.walls import Limits, Result

Tell = Callable[[str, dict[str, Any]], None]
Script = Callable[[dict[str, Any], dict[str, Path], Path, Tell], dict[str, Any]]
"""A child: its arguments, files, folder and way to talk; what it returns."""


class FakeWalls:
    """`scripts` has a child for each recipe; a recipe without one runs as it is, in this process.

    `asked` keeps the recipes that were run, with their arguments and files.
    """

    isolation = Isolation("rlimits", 0, False, "No walls, because this is a test.")

    def __init__(self, folder: Path, **scripts: Script) -> None:
        self.folder = folder
        self.scripts = scripts
        self.asked: list[tuple[str, dict[str, Any], dict[str, Path]]] = []

    def run(
        self,
        recipe: str,
        arguments: Mapping[str, Any],
        files: Mapping[str, Path],
        *,
        on_message: Callable[[str, dict[str, Any], Path], None],
        should_stop: Callable[[], bool] = lambda: False,
        limits: Limits | None = None,
    ) -> Result:
        self.asked.append((recipe, dict(arguments), dict(files)))
        if recipe not in self.scripts:
            return run_inline(
                recipe, arguments, files, on_message=on_message, should_stop=should_stop
            )
        folder = Folder(self.folder / token_hex(8))
        folder.path.mkdir(parents=True)

        def tell(kind: str, body: dict[str, Any]) -> None:
            on_message(kind, body, folder.path)

        value = self.scripts[recipe](dict(arguments), dict(files), folder.path, tell)
        return Result(value, folder)

    def twin(self) -> FakeWalls:
        return self

    def close(self) -> None:
        pass
