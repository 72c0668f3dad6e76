"""What a child may read at all: Python, its packages, the system's libraries. Nobody's data."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

_SYSTEM = (
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
)
SYSTEM_FACTS = (Path("/sys/devices/system/cpu"), Path("/sys/devices/system/node"))
PROCESS_FACTS = tuple(
    Path("/proc") / name
    for name in ("cpuinfo", "meminfo", "stat", "self", "sys/vm/overcommit_memory")
)
DEVICES = tuple(Path("/dev") / name for name in ("null", "zero", "random", "urandom"))
_OF_PREFIX = ("lib", "lib32", "lib64", "bin", "pyvenv.cfg")
_MODULE_SUFFIXES = (".py", ".pyc", ".so")


def _prefixes() -> set[Path]:
    named = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    return {form for name in named for form in (Path(name), Path(name).resolve())}


def _below(path: Path, folders: set[Path]) -> bool:
    return any(folder == path or folder in path.parents for folder in folders)


def extra_paths() -> list[Path]:
    """Entries of `sys.path` outside of Python's own folders: editable installs, mostly."""
    prefixes = _prefixes()
    found: dict[Path, None] = {Path(__file__).resolve().parents[2]: None}
    for entry in sys.path:
        path = Path(entry)
        if entry and path.is_absolute() and path.exists():
            found[path] = None
    return [path for path in found if not _below(path, {p / "lib" for p in prefixes})]


@cache
def readable() -> tuple[Path, ...]:
    """Existing folders and files whose content a child may read (and map as code).

    Of a folder on the import path that holds more than an installation does, such as a working copy
    with its data directory, only the packages and modules in it are meant.
    """
    found: dict[Path, None] = {}
    for prefix in sorted(_prefixes()):
        for name in _OF_PREFIX:
            found[prefix / name] = None
    for link in _links(Path(sys.executable)):
        found[link.parent] = None
    for name in _SYSTEM:
        found[Path(name)] = None
    for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if entry.startswith("/") and entry.strip("/"):
            found[Path(entry)] = None
    for path in extra_paths():
        for place in [path] if _whole(path) else _modules(path):
            found[place] = None
    return tuple(path for path in found if path.exists())


def _links(path: Path) -> list[Path]:
    """The chain of links from `path`, each of which has to be there for the next to be found."""
    links: list[Path] = []
    while path.is_symlink() and path not in links:
        links.append(path)
        path = Path(os.path.normpath(path.parent / path.readlink()))
    return [link for link in [*links, path] if link.parent.name == "bin"]


def _whole(path: Path) -> bool:
    return path.is_file() or path.name in ("site-packages", "dist-packages")


def _modules(path: Path) -> list[Path]:
    try:
        entries = sorted(path.iterdir())
    except OSError:
        return []
    return [
        entry
        for entry in entries
        if (entry / "__init__.py").is_file()
        or (entry.is_file() and entry.suffix in _MODULE_SUFFIXES)
    ]
