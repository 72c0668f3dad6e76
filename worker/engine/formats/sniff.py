"""What an uploaded model is, from its first bytes and its table of contents; nothing is opened."""

from __future__ import annotations

from pathlib import Path

from app.domain.errors import InvalidFile, UnsafeFile
from app.domain.export_lines import export_hint
from worker.engine.formats.archive import ends_there, open_archive

_STARTS = (
    (b"\x89HDF\r\n", "an HDF5 file, the format in which Keras keeps its models"),
    (b"\x93NUMPY", "a single NumPy array"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"GGUF", "a GGUF file"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a compiled program"),
)
_PICKLE = (
    "This is a Python pickle as torch.save writes it. A pickle can run code when it is opened, so "
    "it is refused unopened."
)
_LOAD_FIRST = "Load it in your own code, put the weights into the network, and export that"


def sniff_model_format(path: Path) -> str:
    """ "pt2", or raises InvalidFile (UnsafeFile) saying what the file is and how to export it."""
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise InvalidFile("The file is empty.", export_hint())
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _sniff_zip(path)
    _refuse_pickle(start)
    for magic, kind in _STARTS:
        if start.startswith(magic):
            raise InvalidFile(f"This is {kind}, not a .pt2 file.", export_hint())
    if start[4:8] == b"TFL3":
        raise InvalidFile("This is a TensorFlow Lite file, not a .pt2 file.", export_hint())
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        raise InvalidFile(
            "This is a safetensors file: it holds weights, but not the network they belong to.",
            export_hint(_LOAD_FIRST),
        )
    if start[0] == 0x08 and (b"onnx" in start.lower() or b"pytorch" in start):
        raise InvalidFile(
            "This is an ONNX file; it can't be read yet.",
            export_hint("Export the PyTorch network itself"),
        )
    if not any(start[:64].translate(None, bytes(range(32, 127)) + b"\t\r\n")):
        raise InvalidFile("This is a text file, not a .pt2 file.", export_hint())
    raise InvalidFile("This is not a .pt2 file: it does not begin like one.", export_hint())


def _refuse_pickle(start: bytes) -> None:
    legacy_magic = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
    if start[:1] == b"\x80" and start[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        old = " It has the form from before torch 1.6." if legacy_magic in start[:32] else ""
        raise UnsafeFile(_PICKLE + old, export_hint(_LOAD_FIRST))


def _sniff_zip(path: Path) -> str:
    try:
        with open_archive(path) as archive:
            names = set(archive.entries)
            pickle = archive.read("data.pkl", 1 << 24) if "data.pkl" in names else b""
    except InvalidFile as error:
        raise _named(path) or error from error
    if "constants.pkl" in names or any(n.startswith("code/") for n in names):
        raise UnsafeFile(
            "This is a TorchScript archive: it holds code, which would run on this server.",
            export_hint("Export the PyTorch network it was made from"),
        )
    if "data.pkl" in names:
        raise _pickled(pickle)
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "pt2"
    raise _named(path) or InvalidFile("This zip archive is not a .pt2 file.", export_hint())


def _pickled(pickle: bytes) -> UnsafeFile:
    """Which of the two things torch.save is used for, judged by the names in the pickle."""
    if b"torch._utils\n_rebuild_tensor" in pickle and b"torch.nn.modules" not in pickle:
        return UnsafeFile(
            "This is a state_dict saved with torch.save: weights without the network they belong "
            "to, in a pickle, which can run code when it is opened.",
            export_hint("Load it with model.load_state_dict(torch.load(path)), then export"),
        )
    return UnsafeFile(
        "This is a whole network saved with torch.save: a pickle, which can run code when it is "
        "opened.",
        export_hint("Load it in your own code and export"),
    )


def _named(path: Path) -> InvalidFile | None:
    """Zip archives of other kinds, which break the rules of .pt2 files by being what they are."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        tail = file.read(1 << 20)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or not ends_there(tail, end):
        return None
    if b".npy" in tail and b"data.pkl" not in tail:
        return InvalidFile(
            "This is an .npz archive of arrays, not a network.",
            "Upload it as a data set if it is one. " + export_hint("A network is exported with"),
        )
    if b"model.weights.h5" in tail:
        return InvalidFile(
            "This is a Keras network; only PyTorch networks can be read.", export_hint()
        )
    if b"saved_model.pb" in tail:
        return InvalidFile("This is a TensorFlow SavedModel, not a .pt2 file.", export_hint())
    if b"constants.pkl" in tail:
        return UnsafeFile(
            "This is a TorchScript archive: it holds code, which would run on this server.",
            export_hint("Export the PyTorch network it was made from"),
        )
    if b"/data.pkl" in tail:
        return UnsafeFile(_PICKLE, export_hint(_LOAD_FIRST))
    return None
