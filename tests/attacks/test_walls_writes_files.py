"""A recipe taken over by an upload writes outside its folder: our code, data, the system."""

from __future__ import annotations

import secrets
from pathlib import Path

import worker.inside
from tests.support.walled import Walled


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def _remove(planted: list[Path]) -> None:
    """What a missing wall let through, so that a failed run leaves nothing on the machine."""
    for path in planted:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def test_nothing_outside_its_folder_changes(walled: Walled, tmp_path: Path) -> None:
    victim = tmp_path / "data" / "prunescope.db"
    victim.parent.mkdir()
    victim.write_bytes(b"canary")
    before = _snapshot(tmp_path)
    if not walled.files_are_walled:
        # What this level doesn't promise; one place shows it.
        value = walled.value("reach", {"write": [str(victim)]})
        assert value["written"][str(victim)].startswith("done")
        assert _snapshot(tmp_path) != before
        return
    (arena,) = walled.arenas.iterdir()
    code = Path(worker.inside.__file__).parent
    places = [arena, code, Path.home(), *map(Path, ("/tmp", "/dev/shm", "/var/tmp"))]
    name = f"planted_{secrets.token_hex(8)}.py"
    names = [place / name for place in places if place.exists()]
    value = walled.value("reach", {"write": [str(victim), *map(str, names)]})
    planted = [path for place in names for path in place.parent.glob(f"{name}*")]
    _remove(planted)
    assert planted == []
    for said in value["written"].values():
        assert "done" not in said.split()
    assert _snapshot(tmp_path) == before


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
