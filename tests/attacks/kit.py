"""What the attacks share: a canary, a watched child to read in, and what a refusal has to be."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

GIB, MIB = 1 << 30, 1 << 20


@dataclass(frozen=True)
class Canary:
    """Dies when a payload runs: every payload's one wish is to make the file `marker`."""

    marker: Path

    @property
    def command(self) -> str:
        """For a shell."""
        return f"touch {self.marker}"

    @property
    def expression(self) -> str:
        """For eval; also what a parser of expressions would take for a call."""
        return f"__import__('os').system('{self.command}')"

    @property
    def alive(self) -> bool:
        return not self.marker.exists()

    def killed(self) -> bool:
        """Whether it was alive until now; it lives again afterwards."""
        dead = not self.alive
        self.marker.unlink(missing_ok=True)
        return dead


@dataclass(frozen=True)
class Outcome:
    """How a read ended: with a value, an error in words, another exception, or a dead child.

    `seconds`: of the processor, so that a busy machine changes nothing. `peak_bytes`: what the read
    itself added to the memory of its process. `events`: what the audit hook saw that no reader
    does.
    """

    value: Any = None
    error: dict[str, str] | None = None
    raised: str | None = None
    seconds: float = 0.0
    peak_bytes: int = 0
    events: list[str] = field(default_factory=list)
    died: int = 0


class _Reader:
    """The process that forks the children. One for the whole run of tests."""

    def __init__(self) -> None:
        mine, theirs = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.reader", str(theirs)],
            stdin=subprocess.PIPE,
            pass_fds=(theirs,),
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
            text=True,
        )
        os.close(theirs)
        self.results = os.fdopen(mine)
        assert self.answer() == {"ready": True}

    def answer(self) -> dict[str, Any]:
        line = self.results.readline()
        assert line, "the reader itself ended"
        return json.loads(line)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


_running: list[_Reader] = []


def run(
    call: str,
    /,
    *,
    seconds: int = 30,
    memory_bytes: int = 2 * GIB,
    watched: bool = True,
    sys_path: str = "",
    **arguments: Any,
) -> Outcome:
    """`call` of tests.attacks.reader in a child of its own, killed after `seconds`."""
    if not _running:
        _running.append(_Reader())
        atexit.register(_running[0].close)
    request = {
        "call": call,
        "arguments": arguments,
        "seconds": seconds,
        "memory_bytes": memory_bytes,
        "watched": watched,
        "sys_path": sys_path,
    }
    return Outcome(**_running[0].ask(request))


def read_model(path: Path, *, seconds: int = 30, sys_path: str = "", **options: Any) -> Outcome:
    """The import of `path` as a model."""
    with tempfile.TemporaryDirectory(prefix="read-", dir=path.parent) as folder:
        return run(
            "model", seconds=seconds, sys_path=sys_path, path=str(path), folder=folder, **options
        )


def read_dataset(path: Path, *, seconds: int = 30, **options: Any) -> Outcome:
    """The import of `path` as a data set; options: task, options."""
    with tempfile.TemporaryDirectory(prefix="read-", dir=path.parent) as folder:
        return run("dataset", seconds=seconds, path=str(path), folder=folder, **options)


def elsewhere(source: str, *, sys_path: str = "", **arguments: Any) -> Outcome:
    """What other software makes of a file: `source` runs unwatched, in a child that is thrown away.

    For the first half of an attack: that the file is dangerous at all.
    """
    return run("program", watched=False, sys_path=sys_path, source=source, **arguments)


def fuzzed(
    seeds: list[Path],
    mutator: str,
    call: str,
    folder: Path,
    *,
    seconds: float = 8.0,
    memory_bytes: int = 500 * MIB,
    **arguments: Any,
) -> None:
    """At least 200 mutations of the seeds (tests/attacks/fuzz.py) in one child: each is read, or
    refused in words."""
    from tests.attacks.fuzz import MUTATIONS

    report = folder / "report"
    outcome = run(
        "fuzz",
        seconds=max(150, MUTATIONS),
        folder=str(folder),
        seeds=[str(seed) for seed in seeds],
        mutator=mutator,
        call=call,
        mutations=MUTATIONS,
        report=str(report),
        arguments=arguments,
    )
    if outcome.died:
        pytest.fail(f"the child died ({outcome.died}) of mutation {report.read_text()}")
    assert outcome.raised is None, outcome.raised
    assert not outcome.events, outcome.events
    found = outcome.value
    faults = "\n".join(f"mutation {number}: {what}" for number, what in found["faults"])
    assert not faults, faults
    assert found["read"] + found["refused"] >= 200
    assert found["refused"] > 20, "the mutations are too tame to mean anything"
    slowest, number = found["slowest"]
    assert slowest < seconds, f"mutation {number} took {slowest:.1f} s"
    assert outcome.peak_bytes < memory_bytes, f"{outcome.peak_bytes:,} bytes"


def harmless(
    outcome: Outcome,
    canary: Canary | None = None,
    *,
    seconds: float = 10.0,
    memory_bytes: int = 300 * MIB,
) -> None:
    """Nothing ran, and it cost little: the least that is asked of every read of a hostile file."""
    assert not outcome.died, f"the child died: {outcome.died}"
    assert outcome.raised is None, outcome.raised
    assert not outcome.events, outcome.events
    assert canary is None or canary.alive, "it ran"
    assert outcome.seconds < seconds
    assert outcome.peak_bytes < memory_bytes, f"{outcome.peak_bytes:,} bytes"


def refused(
    outcome: Outcome,
    words: str = "",
    canary: Canary | None = None,
    *,
    code: str = "",
    seconds: float = 10.0,
    memory_bytes: int = 300 * MIB,
) -> str:
    """Refused in words that a person can act on, and nothing ran. Returns the sentence."""
    harmless(outcome, canary, seconds=seconds, memory_bytes=memory_bytes)
    assert outcome.error is not None, f"it was read: {outcome.value}"
    return sentence(outcome.error, words, code)


def sentence(error: dict[str, Any], words: str = "", code: str = "") -> str:
    """The message of an error in the form users see, after checking that it is one."""
    message, hint = error["message"], error["hint"]
    assert error["code"] in ("invalid-file", "unsafe-file", "unsupported-operator", "invalid-input")
    assert not code or error["code"] == code, error
    assert message.rstrip().endswith((".", "?", ")")), message
    assert hint, message
    assert len(message) + len(hint) < 4000
    assert words in message, message
    for leak in ("Traceback", "/site-packages/", "Error(", "<class "):
        assert leak not in message + hint, message
    return message


def dangerous(outcome: Outcome, canary: Canary) -> None:
    """The first half of an attack: elsewhere this file kills the canary.

    Otherwise it proves nothing and the test is skipped: whoever ran the payload does so no more.
    """
    if not canary.killed():
        pytest.skip(f"nothing runs here any more: {outcome.raised or outcome.value}")
