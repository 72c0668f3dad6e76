"""A recipe taken over by an upload writes outside its folder: our code, data, the system."""

from __future__ import annotations

import os
from pathlib import Path

import worker.inside
from tests.support.walled import Walled


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def test_nothing_outside_its_folder_changes(walled: Walled, tmp_path: Path) -> None:
    victim = tmp_path / "data" / "prunescope.db"
    victim.parent.mkdir()
    victim.write_bytes(b"canary")
    (arena,) = walled.arenas.iterdir()
    code = Path(worker.inside.__file__).parent
    shared = [folder for folder in map(Path, ("/tmp", "/dev/shm", "/var/tmp")) if folder.exists()]
    names = [victim, code / "planted.py", arena / "planted", Path.home() / "planted.pth"]
    names += [folder / f"planted-{os.getpid()}" for folder in shared]
    before = _snapshot(tmp_path)
    if not walled.files_are_walled:
        # What this level doesn't promise; one place shows it.
        value = walled.value("reach", {"write": [str(victim)]})
        assert value["written"][str(victim)].startswith("done")
        assert _snapshot(tmp_path) != before
        return
    value = walled.value("reach", {"write": [str(name) for name in names]})
    for said in value["written"].values():
        assert "done" not in said.split()
    assert _snapshot(tmp_path) == before
    for name in names[1:]:
        assert not list(name.parent.glob(f"{name.name}*"))


def test_its_own_folder_is_its_own(walled: Walled) -> None:
    with walled.run("maker", {"names": ["file", "folder", "link"], "target": "/etc"}) as result:
        made = set(result.value["made"])
    assert {"file", "folder"} <= made
    if walled.walls.isolation.landlock_abi:
        assert "link" not in made


def test_a_job_can_not_reach_the_folder_of_the_one_before(walled: Walled) -> None:
    with walled.run("echo") as first:
        left = str(first.folder.path / "made")
        value = walled.value("reach", {"read": [left], "write": [left + ".new"]})
        assert (first.folder.path / "made").exists()
    if walled.walls.isolation.landlock_abi:
        assert value["read"][left] == "PermissionError"
        assert "done" not in value["written"][left + ".new"].split()
