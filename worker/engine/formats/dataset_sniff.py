"""What an uploaded data set is, judged by its first bytes and its table of contents alone."""

from __future__ import annotations

import os
from pathlib import Path

from app.domain.errors import InvalidFile, UnsafeFile
from worker.engine.formats import zip_walls

HINT = (
    "Data sets are arrays (.npz, .safetensors), a .zip with one folder of images per class, or a "
    "table (.csv, .parquet)."
)
_STARTS = (
    (b"\x89HDF\r\n", "an HDF5 file", zip_walls.SAVE_HINT),
    (b"\x93NUMPY", "a single array (.npy); a data set needs samples and labels",
     zip_walls.SAVE_HINT),
    (b"\x1f\x8b", "a gzip file", "Unpack it first. "),
    (b"BZh", "a bzip2 file", "Unpack it first. "),
    (b"\xfd7zXZ\x00", "an xz file", "Unpack it first. "),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Pack its content as .zip. "),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "Unpack it first. "),
    (b"Rar!", "a RAR archive", "Pack its content as .zip. "),
    (b"ARROW1", "an Arrow (Feather) file", "Save the table as .parquet. "),
    (b"SQLite format 3", "an SQLite database", "Save the table as .csv. "),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Save the table as .csv. "),
    (b"\x89PNG", "a single image", "Pack folders of images, one per class, as .zip. "),
    (b"\xff\xd8\xff", "a single image", "Pack folders of images, one per class, as .zip. "),
    (b"GIF8", "a single image", "Pack folders of images, one per class, as .zip. "),
    (b"GGUF", "a GGUF file, which holds a network", "Upload a network as a model. "),
    (b"MATLAB", "a MATLAB file", zip_walls.SAVE_HINT),
    (b"%PDF", "a PDF document", ""),
    (b"\x7fELF", "a compiled program", ""),
)  # fmt: skip
_CONTROL = bytes(set(range(32)) - set(b"\t\r\n\f"))


def sniff_dataset(path: Path) -> str:
    """ "npz", "safetensors", "images", "csv" or "parquet"; the file's name counts for nothing.

    Raises InvalidFile or UnsafeFile with a sentence on what the file is instead.
    """
    with open(path, "rb") as file:
        start = file.read(1 << 16)
    size = os.stat(path).st_size
    if not start:
        raise InvalidFile("The file is empty.", HINT)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _sniff_zip(path)
    if start[:4] == b"PAR1":
        return "parquet"
    if start[:1] == b"\x80" and start[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsafeFile(
            "This is a Python pickle, which can run code when it is opened.",
            zip_walls.SAVE_HINT + " If it is a network, upload it as a model.",
        )
    for magic, kind, hint in _STARTS:
        if start.startswith(magic):
            raise InvalidFile(f"This is {kind}.", hint if "np." in hint else hint + HINT)
    if start[257:262] == b"ustar":
        raise InvalidFile("This is a tar archive.", "Pack its content as .zip. " + HINT)
    if start[8:9] == b"{" and not _is_text(start[:8]):
        return "safetensors"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InvalidFile("This text is in UTF-16.", "Save it as UTF-8.")
    if start.lstrip()[:1] in (b"{", b"["):
        raise InvalidFile("This is JSON.", "Save the table as .csv. " + HINT)
    if start.lstrip()[:9].lower() in (b"<!doctype", b"<html", b"<?xml ver"):
        raise InvalidFile("This is a web page or an XML file.", HINT)
    if _is_text(start):
        return "csv"
    if size > 8 and start[8:9] == b"{":
        return "safetensors"
    raise InvalidFile("This is no data set: the file doesn't begin like one.", HINT)


def _is_text(start: bytes) -> bool:
    """UTF-8, or an older code page that the reader will name: no control characters."""
    return not any(byte in _CONTROL for byte in start)


def _sniff_zip(path: Path) -> str:
    names = zip_walls.list_names(path)
    last = [name.lower().rpartition("/")[2] for name in names]
    if any(name.endswith(".npy") and "/" not in name for name in names):
        # Its own reader names torch's archives, which may hold .npy files too.
        return "npz"
    if "data.pkl" in last:
        raise UnsafeFile(
            "This is a file of torch.save, not a data set.",
            "Upload it as a model if it is one. " + zip_walls.SAVE_HINT,
        )
    if "archive_format" in last or "serialized_exported_program.json" in last:
        raise InvalidFile(
            "This is a network made with torch.export (.pt2), not a data set.",
            "Upload it as a model. " + zip_walls.SAVE_HINT,
        )
    if any(name.endswith(zip_walls.IMAGES) for name in last):
        return "images"
    if any(name.endswith(".npy") for name in last):
        return "npz"
    if "xl/workbook.xml" in names:
        raise InvalidFile("This is an Excel workbook.", "Save the table as .csv. " + HINT)
    tables = [name for name in last if name.endswith((".csv", ".tsv", ".parquet"))]
    if tables:
        raise InvalidFile(
            f"This is an archive of tables ({tables[0][:40]!r}).", "Upload the table itself."
        )
    raise InvalidFile("The archive holds no arrays (no .npy entries) and no images.", HINT)
