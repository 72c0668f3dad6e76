"""What an uploaded model is, by its first bytes and table of contents; nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

from app.domain.errors import InvalidFile, UnsafeFile
from app.domain.export_lines import export_hint
from worker.engine.formats.archive import OLD_PROGRAM, ends_there, open_archive
from worker.engine.formats.safetensors_file import looks_like_safetensors

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
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_PICKLE = (
    "This is a Python pickle. A pickle can run code when it is opened, so it is refused unopened."
)
_LOAD_FIRST = "Load it in your own code, put the weights into the network, and export that"
_WHOLE = (
    "This is a whole network saved with torch.save: a pickle, which can run code when it is opened."
)


def sniff_model_format(path: Path) -> str:
    """ "pt2", or of weights alone "safetensors" or "pth".

    Raises InvalidFile (UnsafeFile) saying what else the file is and how to export it.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise InvalidFile("The file is empty.", export_hint())
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _sniff_zip(path)
    if start[:2] == b"\x80\x02" and _LEGACY_MAGIC in start[:32]:
        with open(path, "rb") as file:
            return _pickled(file.read(1 << 24))
    _refuse_pickle(start)
    for magic, kind in _STARTS:
        if start.startswith(magic):
            raise InvalidFile(f"This is {kind}, not a .pt2 file.", export_hint())
    if start[4:8] == b"TFL3":
        raise InvalidFile("This is a TensorFlow Lite file, not a .pt2 file.", export_hint())
    if looks_like_safetensors(start, path.stat().st_size):
        return "safetensors"
    if start[257:262] == b"ustar":
        raise InvalidFile(
            "This is a tar archive, not a .pt2 file. If torch.save wrote it, it was a PyTorch from "
            "before 2017.",
            "Load it there and save the weights again: torch.save(model.state_dict(), path).",
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
    if start[:1] == b"\x80" and start[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsafeFile(_PICKLE, export_hint(_LOAD_FIRST))


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
        return _pickled(pickle)
    if "archive_format" in names or OLD_PROGRAM in names:
        return "pt2"
    raise _named(path) or InvalidFile("This zip archive is not a .pt2 file.", export_hint())


def _pickled(pickle: bytes) -> str:
    """Which of the two things torch.save is used for, judged by the names in the pickle."""
    if b"ctorch.nn.modules." in pickle:
        raise UnsafeFile(_WHOLE, export_hint("Load it in your own code and export"))
    return "pth"


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
