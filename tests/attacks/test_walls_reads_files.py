"""A recipe taken over by an upload reads what lies around: uploads, the database, the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.walled import Walled

REFUSED = {"PermissionError", "FileNotFoundError"}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    files = {
        "database": tmp_path / "data" / "prunescope.db",
        "blob": tmp_path / "data" / "blobs" / "ab" / "abcdef",
        "token": tmp_path / "data" / "token",
    }
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"canary in the {name}")
    return files


def test_files_outside_its_own_are_out_of_reach(walled: Walled, data: dict[str, Path]) -> None:
    system = ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/1/cmdline", "/proc/kmsg"]
    system += ["/proc/1/environ", "/dev/mem", str(Path.home() / ".bashrc"), __file__]
    around = [f"/proc/1/root{path}" for path in data.values()]
    around += [f"/proc/self/root{path}" for path in data.values()]
    paths = [str(path) for path in data.values()]
    value = walled.value("reach", {"read": [*paths, *around, *system]})
    if walled.files_are_walled:
        own = {"/proc/1/cmdline", "/proc/1/environ"} if walled.level == "bubblewrap" else set()
        own |= {__file__}  # The package of these recipes, as a working copy of ours would be.
        assert {value["read"][path] for path in {*paths, *around, *system} - own} <= REFUSED
    else:
        # What this level doesn't promise, and says so.
        assert "can be read and changed" in walled.walls.isolation.sentence
        assert value["read"][paths[0]] == "got canary in the database"


def test_folders_can_not_be_listed(walled: Walled, data: dict[str, Path]) -> None:
    folders = ["/", "/home", "/root", "/etc", str(data["database"].parent), str(Path.cwd())]
    folders.append(str(walled.arenas))
    value = walled.value("reach", {"list": folders})
    if not walled.files_are_walled:
        assert "token" in value["listed"][str(data["database"].parent)]
        return
    for path, said in value["listed"].items():
        assert said in REFUSED, path


def test_inputs_of_the_running_job_are_readable_and_no_others(
    walled: Walled, data: dict[str, Path]
) -> None:
    blob, other = data["blob"], data["token"]
    with walled.run("echo", {}, {"blob": blob}) as result:
        assert result.value["files"] == {"blob": "canary in the blob"}
    value = walled.value("reach", {"read": [str(other)]}, {"blob": blob})
    assert (value["read"][str(other)] in REFUSED) == walled.files_are_walled
