"""Checkpoints come from a child process: once each, never for ever, with its own words on failure.

The child here is a small script; the real one is run in tests/integration.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest

from app.domain.errors import PrunescopeError
from app.settings import Settings
from app.web import checkpoints
from app.web.checkpoints import CheckpointMaker

CHILD = """
import json, os, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open({calls!r}, "a") as calls:
    calls.write("start " + json.dumps(arguments) + "\\n")
time.sleep({seconds})
if {fail!r} == "json":
    print("a warning", file=sys.stderr)
    report = {{"code": "conflict", "message": "No run.", "hint": "Wait."}}
    print(json.dumps(report), file=sys.stderr)
    sys.exit(1)
if {fail!r} == "crash":
    os.abort()
with open(arguments["--out"], "w") as out:
    out.write(json.dumps([arguments["--format"], os.environ["PRUNESCOPE_DATA_DIR"]]))
with open({calls!r}, "a") as calls:
    calls.write("end\\n")
"""


class Kitchen:
    """A maker with a scripted child."""

    def __init__(self, folder: Path, seconds: float = 0.0, fail: str = "") -> None:
        self.calls_file = folder / "calls"
        self.calls_file.touch()
        source = CHILD.format(calls=str(self.calls_file), seconds=seconds, fail=fail)
        script = folder / "child.py"
        script.write_text(source)
        self.settings = Settings(data_dir=folder / "data", token="t")
        self.settings.prepare()
        self.maker = CheckpointMaker(self.settings, [sys.executable, str(script)])
        self.closing = asyncio.Event()

    async def get(self, plan: int = 1, file_format: str = "pth", **facts: object) -> Path:
        return await self.maker.get(("--plan", str(plan)), file_format, facts, self.closing)

    @property
    def starts(self) -> int:
        return self.calls_file.read_text().count("start")

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.settings.data_dir / "cache").rglob("*") if path.is_file()]


def test_a_file_is_made_once_and_again_when_its_facts_change(tmp_path: Path):
    kitchen = Kitchen(tmp_path)

    async def go() -> None:
        first = await kitchen.get()
        assert json.loads(first.read_text()) == ["pth", str(kitchen.settings.data_dir)]
        assert first.suffix == ".pth"
        assert await kitchen.get() == first
        assert kitchen.starts == 1
        assert await kitchen.get(measurements=[1]) != first
        assert await kitchen.get(file_format="safetensors") != first
        assert await kitchen.get(plan=11) != first
        assert kitchen.starts == 4
        kitchen.maker.forget("plan", 1)
        assert len(kitchen.files) == 1, "plan 11 is not plan 1"

    asyncio.run(go())


def test_many_who_ask_at_once_wait_for_one_child(tmp_path: Path):
    kitchen = Kitchen(tmp_path, seconds=0.3)

    async def go() -> None:
        paths = await asyncio.gather(*(kitchen.get() for _ in range(8)))
        assert len(set(paths)) == 1
        assert kitchen.starts == 1
        await asyncio.gather(*(kitchen.get(plan=number) for number in range(2, 7)))

    asyncio.run(go())
    running = most = 0
    for line in kitchen.calls_file.read_text().splitlines():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most <= checkpoints.MAX_AT_ONCE


@pytest.mark.parametrize(
    ("fail", "words", "status"),
    [("json", "No run. Wait.", 409), ("crash", "exit code -6", 500)],
)
def test_a_childs_failure_is_told_and_leaves_nothing(
    tmp_path: Path, fail: str, words: str, status: int
):
    kitchen = Kitchen(tmp_path, fail=fail)

    async def go() -> None:
        for _ in range(2):
            with pytest.raises(PrunescopeError) as caught:
                await kitchen.get()
            assert words in str(caught.value)
            assert caught.value.status == status

    asyncio.run(go())
    assert kitchen.starts == 2, "a failure is not kept"
    assert kitchen.files == []


def test_a_child_that_takes_too_long_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "TIME_LIMIT_SECONDS", 0.5)
    kitchen = Kitchen(tmp_path, seconds=60)
    started = time.monotonic()
    with pytest.raises(PrunescopeError) as caught:
        asyncio.run(kitchen.get())
    assert caught.value.status == 504
    assert time.monotonic() - started < 10
    assert kitchen.files == []


def test_a_server_that_stops_waits_for_no_child(tmp_path: Path):
    kitchen = Kitchen(tmp_path, seconds=60)

    async def go() -> None:
        task = asyncio.create_task(kitchen.get())
        while not kitchen.starts:
            await asyncio.sleep(0.02)
        kitchen.closing.set()
        with pytest.raises(PrunescopeError) as caught:
            await task
        assert caught.value.status == 503

    started = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - started < 10


def test_only_the_latest_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "MAX_KEPT", 2)
    kitchen = Kitchen(tmp_path)

    async def go() -> None:
        one, two = await kitchen.get(1), await kitchen.get(2)
        os.utime(one, (1, 1))
        os.utime(two, (2, 2))
        await kitchen.get(1)
        three = await kitchen.get(3)
        assert set(kitchen.files) == {one, three}, "the one used longest ago goes"

    asyncio.run(go())


def test_the_child_gets_the_settings_but_not_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PRUNESCOPE_TOKEN", "secret")
    environment = Settings(data_dir=tmp_path, token="secret").child_environment()
    assert environment["PRUNESCOPE_DATA_DIR"] == str(tmp_path)
    assert "secret" not in environment.values()
