"""A `.zip` with one folder of images per class, unpacked into arrays once."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.domain.errors import InvalidFile
from worker.engine.formats import zip_walls
from worker.engine.formats.dataset_options import ImageOptions
from worker.engine.formats.image_presets import choose_recipe
from worker.engine.formats.images import Look, decode, look_at, shown
from worker.engine.formats.prepared import Planned, Said, writing

MAX_IMAGES = 200_000
_PIECE = 1 << 20
MAX_IMAGE_BYTES = 256 << 20
MAX_CLASSES = 30_000
MAX_PATH = 1000
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "tune": "tune", "val": "tune", "valid": "tune", "validation": "tune", "dev": "tune",
    "test": "test", "testing": "test",
}  # fmt: skip
PACK_HINT = "Pack folders train/CLASS/…, val/CLASS/… and test/CLASS/…, or CLASS/… alone, as .zip."
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class Entry:
    """One image of the archive. `part`: "train", "tune" or "test", "" if there are only classes."""

    info: zipfile.ZipInfo
    part: str
    label: str

    @property
    def name(self) -> str:
        return self.info.filename


def prepare_images(path: Path, options: ImageOptions, target: Path) -> None:
    """Decodes every image into the prepared file `target`, as bytes in NCHW order.

    Raises InvalidFile, naming the entry at fault; StorageFull.
    """
    with zip_walls.BoundedReader(path) as file, zip_walls.open_zip(file) as archive:
        notes: list[str] = []
        entries = find_images(archive, path.stat().st_size, notes)
        classes = _class_names(entries, notes)
        looks = [look_at(_content(archive, entry), entry.name) for entry in entries]
        recipe = choose_recipe(options, {look.size for look in looks})
        notes += [*recipe.notes, *_look_notes(looks, recipe.channels)]
        height, width = recipe.geometry.result(looks[0].size)
        parts = {entry.part for entry in entries}
        plan: dict[str, Planned] = {}
        for part in ("", "train", "tune", "test"):
            if part in parts:
                count = sum(entry.part == part for entry in entries)
                plan[_array("x", part)] = Planned(
                    (count, recipe.channels, height, width), np.dtype("u1")
                )
                plan[_array("y", part)] = Planned((count,), np.dtype("<i4"))
        constants = {"scale": [1 / 255], "mean": recipe.mean, "std": recipe.std}
        numbers = {name: np.array(value) for name, value in constants.items() if value is not None}
        plan |= {name: Planned(value.shape, np.dtype("<f8")) for name, value in numbers.items()}
        number = {name: index for index, name in enumerate(classes)}
        said = Said("images", recipe.as_options(), notes, classes)
        with writing(target, plan, said) as out:
            for name, value in numbers.items():
                out.append(name, value)
            for entry in entries:
                data = _content(archive, entry)
                pixels = decode(data, entry.name, recipe.geometry, recipe.channels)
                out.append(_array("x", entry.part), pixels[None])
                out.append(_array("y", entry.part), np.array([number[entry.label]]))


def find_images(archive: zipfile.ZipFile, archive_bytes: int, notes: list[str]) -> list[Entry]:
    """The images by class and name, as ImageFolder orders them. Raises InvalidFile.

    `archive_bytes` is the archive's true size, against which its claims are held.
    """
    paths: list[tuple[zipfile.ZipInfo, list[str]]] = []
    hidden = others = inflated = 0
    seen: set[str] = set()
    for info in archive.infolist():
        if info.filename.endswith("/"):  # is_dir() fails on an empty name
            continue
        parts = _checked_path(info)
        if info.filename in seen:
            raise InvalidFile(f"The archive has two entries {shown(info.filename)}.", PACK_HINT)
        seen.add(info.filename)
        if any(part.startswith(".") or part.lower() in _LITTER for part in parts):
            hidden += 1
        elif not parts[-1].lower().endswith(zip_walls.IMAGES):
            others += 1
        else:
            inflated += info.file_size
            paths.append((info, parts))
    if len(paths) > MAX_IMAGES:
        raise InvalidFile(
            f"The archive has {len(paths):,} images; at most {MAX_IMAGES:,} are read.",
            "Take a part of them: curves need some thousands.",
        )
    if inflated > zip_walls.RATIO_COUNTS_FROM and inflated > zip_walls.MAX_RATIO * archive_bytes:
        raise InvalidFile(
            f"The images would grow from {archive_bytes:,} to {inflated:,} bytes when unpacked, "
            "which looks like a decompression bomb.",
            "Pack the images anew.",
        )
    if hidden:
        notes.append(f"{_count(hidden, 'hidden file')} left out.")
    if others:
        notes.append(f"{_count(others, 'file')} left out: no images.")
    if not paths:
        raise InvalidFile("The archive has no images.", PACK_HINT)
    found = list(_sorted_in(paths))
    return sorted(found, key=lambda entry: (entry.part, entry.label, entry.name))


def _sorted_in(paths: Sequence[tuple[zipfile.ZipInfo, list[str]]]) -> Iterator[Entry]:
    """Split and class of every image, by the folders that it lies in."""
    tops = {parts[0] for _, parts in paths}
    while (
        len(tops) == 1
        and next(iter(tops)).lower() not in SPLIT_FOLDERS
        and all(len(parts) > 2 for _, parts in paths)
    ):
        paths = [(info, parts[1:]) for info, parts in paths]
        tops = {parts[0] for _, parts in paths}
    splits = {top for top in tops if top.lower() in SPLIT_FOLDERS}
    strangers = sorted(tops - splits)
    if splits and strangers:
        raise InvalidFile(
            f"Beside {', '.join(sorted(splits))} there is {shown(strangers[0])}, so it isn't clear "
            "whether the folders are splits or classes.",
            PACK_HINT,
        )
    alone = {SPLIT_FOLDERS[top.lower()] for top in splits} == {"train"}
    for info, parts in paths:
        inner = parts[1:] if splits else parts
        if len(inner) < 2:
            raise InvalidFile(
                f"The image {shown(info.filename)} lies in no folder of its class.", PACK_HINT
            )
        part = SPLIT_FOLDERS[parts[0].lower()] if splits and not alone else ""
        yield Entry(info, part, inner[0])
    present = {SPLIT_FOLDERS[top.lower()] for top in splits}
    if present and not alone and "tune" not in present and present != {"train", "test"}:
        raise InvalidFile(
            f"The archive has only {', '.join(sorted(splits))}; there is nothing to measure the "
            "curves on.",
            PACK_HINT,
        )


def _class_names(entries: Sequence[Entry], notes: list[str]) -> list[str]:
    """Sorted as text, as ImageFolder does; those of train if there is one. Raises InvalidFile."""
    by_part: dict[str, set[str]] = {}
    for entry in entries:
        by_part.setdefault(entry.part, set()).add(entry.label)
    classes = sorted(by_part.get("train") or set().union(*by_part.values()))
    if len(classes) > MAX_CLASSES:
        raise InvalidFile(
            f"The archive has {len(classes):,} class folders; at most {MAX_CLASSES:,} are read.",
            PACK_HINT,
        )
    for part, labels in by_part.items():
        if strangers := sorted(labels - set(classes)):
            raise InvalidFile(
                f"{part} has the class {shown(strangers[0])}, which train hasn't.",
                "All splits must have the same class folders.",
            )
        if missing := sorted(set(classes) - labels):
            listed = ", ".join(map(shown, missing[:5])) + (" …" if len(missing) > 5 else "")
            notes.append(f"{part} has no images of {listed}.")
    digits = [name for name in classes if name.isdecimal()]
    if len(digits) == len(classes) and classes != sorted(classes, key=int):
        notes.append(
            "The class folders are numbers; they are sorted as text, as ImageFolder does: "
            f"{classes[1]!r} is class 1, {classes[2]!r} is class 2."
        )
    return classes


def _checked_path(info: zipfile.ZipInfo) -> list[str]:
    """The parts of an entry's name. Raises InvalidFile for what no honest archive has."""
    name = info.filename
    parts = name.split("/")
    bad = (
        name != info.orig_filename
        or len(name) > MAX_PATH
        or not name.isprintable()
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or re.match("[A-Za-z]:", name) is not None
    )
    if bad:
        raise InvalidFile(f"The archive has an entry with the name {name[:80]!a}.", PACK_HINT)
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InvalidFile(f"{shown(name)} is a link.", "Pack the files themselves.")
    if info.flag_bits & 0x1:
        raise InvalidFile(f"{shown(name)} is encrypted.", "Pack the images without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidFile(
            f"{shown(name)} is packed in a way that can't be read.", "Pack with plain .zip."
        )
    if info.file_size > MAX_IMAGE_BYTES and parts[-1].lower().endswith(zip_walls.IMAGES):
        raise InvalidFile(
            f"{shown(name)} has {info.file_size:,} bytes; an image has at most "
            f"{MAX_IMAGE_BYTES:,}.",
            "Make it smaller first.",
        )
    return parts


def _content(archive: zipfile.ZipFile, entry: Entry) -> bytes:
    try:
        with archive.open(entry.info) as stream:
            pieces, left = [], entry.info.file_size + 1
            while left > 0 and (piece := stream.read(min(left, _PIECE))):
                pieces.append(piece)
                left -= len(piece)
            data = b"".join(pieces)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise InvalidFile(
            f"{shown(entry.name)} is damaged and can't be unpacked.", "Pack the images anew."
        ) from error
    if len(data) != entry.info.file_size:
        raise InvalidFile(
            f"{shown(entry.name)} is not as long as the archive says.", "Pack the images anew."
        )
    return data


def _look_notes(looks: Sequence[Look], channels: int) -> list[str]:
    notes = []
    modes = Counter(look.mode for look in looks)
    grey = sum(modes[mode] for mode in ("L", "1", "LA"))
    if channels == 3 and grey == len(looks):
        notes.append(
            "All images are grey; they were read as RGB with three equal channels. The option "
            '{"channels": 1} keeps one.'
        )
    elif channels == 3 and grey:
        notes.append(f"{_count(grey, 'grey image')} read as RGB.")
    if deep := sum(n for mode, n in modes.items() if mode.startswith(("I", "F"))):
        notes.append(
            f"{_count(deep, 'image')} of 16 or 32 bits read as 8 bits: values above 255 become 255 "
            "(as torchvision's loader does it). Save them as 8 bits if they shouldn't."
        )
    if clear := sum(modes[mode] for mode in ("RGBA", "LA", "PA", "La", "RGBa")):
        notes.append(f"{_count(clear, 'image')} with transparency read without it.")
    if turned := sum(look.turned for look in looks):
        notes.append(f"{_count(turned, 'image')} turned upright by the camera's mark (EXIF).")
    if animated := sum(look.animated for look in looks):
        notes.append(f"{_count(animated, 'animated image')} read by the first frame.")
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun} was" if number == 1 else f"{number:,} {noun}s were"


def _array(kind: str, part: str) -> str:
    return f"{kind}_{part}" if part else kind
