"""A recipe behind walls and back: arguments, files, messages, results, errors."""

from __future__ import annotations

import importlib.util
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from app.domain import errors
from app.domain.errors import ChildFailed, ChildMalformed, PrunescopeError
from tests.support.walled import Walled, make_walled
from worker.sandbox.ending import CROSSING
from worker.sandbox.isolation import available_levels
from worker.sandbox.walls import Limits, take_file


def test_arguments_files_and_results_cross(walled: Walled, tmp_path: Path) -> None:
    for name in ("model", "dataset"):
        (tmp_path / name).write_text(f"bytes of the {name}")
    given = {"numbers": [1, 0.1, -1e300], "text": "Gewicht ≤ ½ 🌱", "deep": {"a": [None, True]}}
    files = {name: tmp_path / name for name in ("model", "dataset")}
    with walled.run("echo", given, files) as result:
        assert result.value["arguments"] == given
        assert result.value["files"] == {
            "model": "bytes of the model",
            "dataset": "bytes of the dataset",
        }
        assert result.folder.path.exists()
    assert not result.folder.path.exists()


def test_arguments_may_be_large(walled: Walled) -> None:
    given = {"thresholds": [number / 7 for number in range(300_000)]}
    assert walled.value("echo", given)["arguments"] == given


def test_an_absent_file_is_said_before_anything_starts(walled: Walled, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        walled.run("echo", {}, {"model": tmp_path / "absent"})


def test_messages_come_in_order_while_the_child_runs(walled: Walled) -> None:
    walled.value("echo", {"messages": 5000})
    assert [body["number"] for _, body in walled.told] == list(range(5000))


def test_messages_come_at_once(walled: Walled) -> None:
    """Not at the end: the recipe never ends by itself."""
    heard: list[str] = []
    with pytest.raises(errors.Stopped):
        walled.run(
            "endless",
            {"how": "asleep"},
            on_message=lambda kind, body, folder: heard.append(kind),
            should_stop=lambda: bool(heard),
        )
    assert heard == ["running"]


def test_what_a_listener_raises_ends_the_child_and_is_raised(walled: Walled) -> None:
    def refuse(kind: str, body: dict[str, Any], folder: Path) -> None:
        raise errors.LeaseLost("Somebody else has the job now.")

    with pytest.raises(errors.LeaseLost):
        walled.run("endless", {"how": "python"}, on_message=refuse)


@pytest.mark.parametrize("name", sorted(CROSSING))
def test_errors_cross_over_whole(walled: Walled, name: str) -> None:
    given = {
        "class": name,
        "message": "The layer 'conv1' has no weight.",
        "hint": "Export it again.",
        "fields": {"size": "must be positive"},
    }
    with pytest.raises(PrunescopeError) as caught:
        walled.run("refuser", given)
    assert type(caught.value) is getattr(errors, name)
    assert caught.value.message == given["message"]
    assert caught.value.hint == given["hint"]
    assert caught.value.fields == given["fields"]


@pytest.mark.parametrize("name", ["Stopped", "LeaseLost", "Unauthorised", "Busy"])
def test_errors_that_are_not_for_a_recipe_to_raise_do_not_cross(walled: Walled, name: str) -> None:
    with pytest.raises(ChildMalformed):
        walled.run("refuser", {"class": name, "message": "x", "hint": ""})


def test_long_and_strange_words_are_cut_and_cleaned(walled: Walled) -> None:
    words = "\x1b[2J" + "long " * 10_000
    with pytest.raises(errors.InvalidFile) as caught:
        walled.run("refuser", {"class": "InvalidFile", "message": words, "hint": words})
    assert len(caught.value.message) < 3000
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("recipe", ["absent", "../echo", "echo.run", "__init__", "os", ""])
def test_only_recipes_can_be_named(walled: Walled, recipe: str) -> None:
    with pytest.raises(ChildFailed):
        walled.run(recipe)


def test_what_recipes_use_works_behind_walls(walled: Walled) -> None:
    packages = ["timm", "transformers", "PIL", "arro3"]
    there = [name for name in packages if importlib.util.find_spec(name) is not None]
    value = walled.value("libraries", {"packages": there}, limits=Limits(seconds=120))
    assert value["product"] == 500.0**3
    assert value["same"] is True
    assert value["mapped"] == 10
    expected = {"timm": [1, 1000], "transformers": [1, 4, 32], "PIL": [8, 4], "arro3": [3]}
    assert value["networks"] == {name: expected[name] for name in there}


@pytest.mark.parametrize("level", available_levels())
def test_a_child_computes_with_as_many_threads_as_it_is_given(level: str, tmp_path: Path) -> None:
    walled = make_walled(level, tmp_path, threads=3)
    try:
        value = walled.value("libraries", {"packages": []})
        assert value["threads"] == 3
        assert value["tasks"] >= 3
    finally:
        walled.walls.close()


def test_two_walls_at_once(walled: Walled, tmp_path: Path) -> None:
    """Each has its own zygote and folder; neither waits for the other."""
    other = make_walled(walled.level, tmp_path / "arenas")
    began = threading.Event()
    ended: list[BaseException] = []

    def run_endless() -> None:
        try:
            other.run(
                "endless",
                {"how": "python"},
                on_message=lambda *_: began.set(),
                limits=Limits(seconds=60),
            )
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run_endless)
    thread.start()
    try:
        assert began.wait(30)
        assert walled.value("echo", {"a": 1})["arguments"] == {"a": 1}
        assert thread.is_alive()
    finally:
        other.walls.close()
        thread.join(10)
    assert not thread.is_alive()
    assert isinstance(ended[0], ChildFailed)


def test_not_a_number_arrives_as_null(tmp_path: Path) -> None:
    from worker.sandbox import wire

    message = {"loss": math.nan, "all": [math.inf, 1.5, (-math.inf,)]}
    encoded = wire.encode(message)
    assert wire.decode(encoded[wire.HEADER :]) == {"loss": None, "all": [None, 1.5, [None]]}


def test_a_file_is_taken_while_the_child_runs(walled: Walled, tmp_path: Path) -> None:
    taken = tmp_path / "taken"

    def take(kind: str, body: dict[str, Any], folder: Path) -> None:
        take_file(folder, "file", taken, 100)

    with walled.run("maker", {"names": ["file"], "target": ""}, on_message=take) as result:
        assert taken.read_bytes() == b"12345678"
        assert not (result.folder.path / "file").exists()


def test_walls_are_thin_enough(walled: Walled) -> None:
    """Not a benchmark: a warm start that takes seconds would mean that nothing is warm."""
    started = time.monotonic()
    for _ in range(3):
        walled.value("echo")
    assert time.monotonic() - started < 6
    assert os.getpid()
