"""A recipe taken over by an upload looks for the token and the database's password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.sandbox.isolation import LEVELS, missing

TOKEN = "canary-of-a-token-7f3a"

# A worker of its own, because what a process was started with is what /proc shows of it.
WORKER = """
import json, os, sys
from pathlib import Path
from worker.sandbox.isolation import find_isolation
from worker.sandbox.walls import Walls

walls = Walls(
    Path(sys.argv[1]), isolation=find_isolation(sys.argv[2]), recipes="tests.attacks.hostile"
)
paths = [f"/proc/{os.getpid()}/{name}" for name in ("environ", "cmdline", "maps", "cwd/token")]
with walls.run(
    "reach", {"read": paths, "environments": True}, {}, on_message=lambda *_: None
) as result:
    print(json.dumps(result.value))
walls.close()
"""


@pytest.mark.parametrize("level", LEVELS)
def test_secrets_of_the_worker_stay_with_it(level: str, tmp_path: Path) -> None:
    if why := missing(level):
        pytest.skip(f"no {level} here: {why}")
    secrets = {
        "PRUNESCOPE_TOKEN": TOKEN,
        "PRUNESCOPE_DATABASE_URL": f"postgresql://prunescope:{TOKEN}@localhost/prunescope",
        "AWS_SECRET_ACCESS_KEY": TOKEN,
        "HF_TOKEN": TOKEN,
    }
    ended = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path / "arenas"), level],
        env=os.environ | secrets | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    value = json.loads(ended.stdout)
    assert "PYTHONPATH" in value["environment"]
    assert "self" in value["environments"], "the recipe can't read even its own"
    if level == "rlimits" and os.geteuid() != 0:
        # What this level doesn't promise: files of the same user, those of /proc among them.
        value = value["environment"] | {"self": value["environments"]["self"]}
    assert TOKEN not in json.dumps(value)
    assert "PRUNESCOPE" not in json.dumps(value)
