"""Tries to run a program."""

from __future__ import annotations

import os
import subprocess

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    proof = str(job.folder / "proof")
    words = ["/bin/sh", "-c", f"echo ran > {proof}"]
    script = job.folder / "script"
    script.write_text(f"#!/bin/sh\necho ran > {proof}\n")
    tries = {
        "subprocess": lambda: subprocess.run(words, check=True, timeout=5),
        "spawn": lambda: os.waitpid(os.posix_spawn("/bin/sh", words, {}), 0),
        "system": lambda: _system(words[2]),
        "chmod": lambda: script.chmod(0o755),
        "script": lambda: os.execv(script, [str(script)]),
        "loader": lambda: os.execv("/lib64/ld-linux-x86-64.so.2", ["ld", *words]),
        "exec": lambda: os.execv("/bin/sh", words),
    }
    done = []
    for name, attempt in tries.items():
        try:
            attempt()
            done.append(name)
        except (OSError, subprocess.SubprocessError):
            pass
    return {"done": done, "proof": os.path.exists(proof)}


def _system(words: str) -> None:
    if os.system(words) != 0:
        raise OSError("system")
