"""The folders that children write in, and the careful taking of what they made there."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import ChildFailed, ChildMalformed, TooLarge

COPY_BYTES = 1 << 20
_START_TICKS_FIELD = 19


@dataclass
class Folder:
    """A child's own folder. `settled` once the child has ended: nobody writes there any more."""

    path: Path
    settled: bool = False

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def process_key(pid: int) -> str:
    """The process by number and moment of its start, so that a number used again is another."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{pid}-{after_name[_START_TICKS_FIELD]}"
    except (OSError, IndexError):
        return f"{pid}-0"


def make_arena(root: Path) -> Path:
    """A folder of this process (and of these walls) in `root`, after removing dead ones'."""
    root.mkdir(parents=True, exist_ok=True)
    remove_leftovers(root)
    arena = root.resolve() / f"{process_key(os.getpid())}-{secrets.token_hex(4)}"
    arena.mkdir(mode=0o700)
    return arena


def remove_leftovers(root: Path) -> None:
    """Remove the arenas of processes that are gone."""
    for left in root.iterdir():
        pid, _, rest = left.name.partition("-")
        started, _, mark = rest.partition("-")
        if not (pid.isdigit() and started.isdigit() and mark):
            continue
        if not _lives(int(pid), f"{pid}-{started}"):
            shutil.rmtree(left, ignore_errors=True)


def _lives(pid: int, key: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return process_key(pid) == key


def make_folder(arena: Path) -> Folder:
    path = arena / f"job-{secrets.token_hex(8)}"
    path.mkdir(mode=0o700)
    return Folder(path)


def disk_use(path: Path) -> int:
    """Bytes of disk that all files below take; a sparse file counts what is there of it."""
    total = 0
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    total += disk_use(Path(entry.path))
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def hidden_disk_use(path: Path, pid: int) -> int:
    """Bytes of the files that a process removed from below `path` but still has open or mapped."""
    sizes: dict[tuple[int, int], int] = {}
    inside = f"{path}/"
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with suppress(OSError):
                found = entry.stat()
                if found.st_nlink == 0 and os.readlink(entry.path).startswith(inside):
                    sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    with suppress(OSError, ValueError), open(f"/proc/{pid}/maps") as lines:
        for line in lines:
            span, _, _, device, inode, *name = line.split(maxsplit=5)
            if name and name[0].startswith(inside) and name[0].endswith("(deleted)\n"):
                major, _, minor = device.partition(":")
                key = (os.makedev(int(major, 16), int(minor, 16)), int(inode))
                start, _, end = span.partition("-")
                sizes[key] = max(sizes.get(key, 0), int(end, 16) - int(start, 16))
    return sum(sizes.values())


def take_file(folder: Path | Folder, name: str, to: Path, max_bytes: int) -> Path:
    """Take a file that the child made out of its folder, to `to` (which it replaces).

    Only a regular file directly in the folder is taken, never through a link. While the child still
    runs the bytes are copied, because it could change them later; afterwards the file is moved.

    Raises ChildMalformed for anything else (and when it is absent), TooLarge over `max_bytes`.
    """
    source, settled = (
        (folder.path, folder.settled) if isinstance(folder, Folder) else (folder, False)
    )
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise _refused(name, "that is not the name of a file in its folder")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    place = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            opened = os.open(name, flags, dir_fd=place)
        except OSError as error:
            raise _refused(name, _why(error)) from None
        try:
            found = os.fstat(opened)
            if not stat.S_ISREG(found.st_mode):
                raise _refused(name, "it is not a regular file")
            if found.st_nlink != 1:
                raise _refused(name, "it has a second name")
            if found.st_size > max_bytes:
                raise _too_large(name, max_bytes)
            to.parent.mkdir(parents=True, exist_ok=True)
            if settled and _moved(name, place, to):
                os.chmod(to, 0o600)
                return to
            _copy(opened, to, max_bytes, name)
            with suppress(OSError):
                os.unlink(name, dir_fd=place)
        finally:
            os.close(opened)
    finally:
        os.close(place)
    return to


def _moved(name: str, place: int, to: Path) -> bool:
    try:
        os.replace(name, to, src_dir_fd=place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _copy(source: int, to: Path, max_bytes: int, name: str) -> None:
    partial = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    left = max_bytes
    try:
        with open(partial, "xb") as out:
            while data := os.read(source, COPY_BYTES):
                left -= len(data)
                if left < 0:
                    raise _too_large(name, max_bytes)
                out.write(data)
        os.chmod(partial, 0o600)
        os.replace(partial, to)
    finally:
        partial.unlink(missing_ok=True)


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is not there"
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return "it is a link"
    return "it is not a regular file"


def _refused(name: str, why: str) -> ChildFailed:
    shown = name[:80].encode("unicode_escape").decode("ascii")
    return ChildMalformed(
        f"The computation's file {shown!r} is not taken: {why}.",
        "Retry the job; a model that does this again may be hostile.",
    )


def _too_large(name: str, max_bytes: int) -> TooLarge:
    shown = name[:80].encode("unicode_escape").decode("ascii")
    return TooLarge(
        f"The computation's file {shown!r} is larger than {max_bytes} bytes.",
        "Choose a smaller model or data set.",
    )
