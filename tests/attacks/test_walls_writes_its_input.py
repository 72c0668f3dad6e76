"""A recipe taken over by an upload changes the upload, which later jobs and people rely on."""

from __future__ import annotations

from pathlib import Path

from tests.support.walled import Walled


def test_an_input_can_not_be_changed(walled: Walled, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"as it was uploaded")
    before = upload.stat()
    value = walled.value("input_writer", {}, {"input": upload})
    if not walled.walls.isolation.landlock_abi:
        # A descriptor for reading can be opened anew for writing by the file's own user.
        assert "reopen" in value["done"]
        return
    assert value["done"] == []
    after = upload.stat()
    assert upload.read_bytes() == b"as it was uploaded"
    assert (after.st_mode, after.st_nlink, after.st_ino) == (before.st_mode, 1, before.st_ino)
