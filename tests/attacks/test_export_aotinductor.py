"""torch.export.load, way 5 of 7: a compiled library in the archive is loaded into the process."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.attacks import kit
from tests.attacks.exported import LOAD, sound, written

LIBRARY = """
#include <fcntl.h>
__attribute__((constructor)) static void run(void) { open("%s", O_CREAT | O_WRONLY, 0600); }
"""
# Before it loads the library torch asks a compiler what this processor can do, for many seconds.
LOAD_AT_ONCE = (
    "import torch._inductor.codecache as cache\ncache.get_device_information = lambda device: {}\n"
    + LOAD
)
FOLDER = "m/data/aotinductor/model/"


def compiled(folder: Path, canary: kit.Canary) -> bytes | None:
    """A library that runs when it is loaded, None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return None
    (folder / "evil.c").write_text(LIBRARY % canary.marker)
    command = [compiler, "-shared", "-fPIC", "-o", folder / "evil.so", folder / "evil.c"]
    subprocess.run(command, check=True)
    return (folder / "evil.so").read_bytes()


def test_it_is_refused_unopened(tmp_path: Path, canary: kit.Canary) -> None:
    library = compiled(tmp_path, canary)
    about = json.dumps({"AOTI_DEVICE_KEY": "cpu"}).encode()
    entries = sound() | {
        FOLDER + "evil.wrapper.so": library or b"\x7fELF",
        FOLDER + "evil.wrapper_metadata.json": about,
    }
    path = written(tmp_path, entries)
    kit.refused(kit.read_model(path), "compiled code", canary, code="unsafe-file")
    if library is None:
        pytest.skip("no compiler here to make a library that runs")
    kit.dangerous(kit.elsewhere(LOAD_AT_ONCE, path=str(path)), canary)


@pytest.mark.parametrize("name", ["x.so", "x.cpp", "x.o", "deep/er/x", "x_metadata.json"])
def test_any_file_in_that_folder(tmp_path: Path, canary: kit.Canary, name: str) -> None:
    path = written(tmp_path, sound() | {FOLDER + name: b"int main() {}"})
    kit.refused(kit.read_model(path), "compiled code", canary, code="unsafe-file")
