"""A table (`.csv`, `.parquet`) unpacked into arrays: split first, then encoded by train alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile
from app.domain.metrics import Task
from worker.engine.formats import splitting
from worker.engine.formats.csv_file import CsvFile
from worker.engine.formats.dataset_options import TableOptions
from worker.engine.formats.image_folders import SPLIT_FOLDERS
from worker.engine.formats.parquet_file import ParquetFile
from worker.engine.formats.prepared import Planned, Said, full_disk_told, writing
from worker.engine.formats.table_columns import (
    MAX_FEATURES,
    Roles,
    Table,
    as_numbers,
    as_texts,
    find_roles,
)
from worker.engine.formats.table_encoding import Encoder, RawTable, fit_encoder

_PARTS = ("train", "tune", "test")


def prepare_table(
    path: Path, form: str, task: str, options: TableOptions, target: Path, seed: int
) -> None:
    """Encodes every row into the prepared file `target`, which names its splits.

    Raises InvalidFile, StorageFull; InvalidInput for options that don't fit, or a missing extra.
    """
    table: Table = CsvFile(path) if form == "csv" else ParquetFile(path)
    notes: list[str] = []
    roles = find_roles(table, task, options, notes)
    with _scratch(target.parent) as scratch:
        raw, wanted, parts = _unpack(table, roles, task, scratch)
        rows = _split(wanted, parts, task, seed, notes)
        learnt_from = "train" if "train" in rows else "tune"
        if learnt_from == "tune":
            notes.append("There is no train: statistics and categories come from tune.")
        encoder = fit_encoder(raw, rows[learnt_from], options.as_form == "index", notes)
        if not 0 < len(encoder.feature_names) <= MAX_FEATURES:
            raise InvalidFile(
                f"The table makes {len(encoder.feature_names):,} columns of numbers; there must be "
                f"1 to {MAX_FEATURES:,}.",
                'Take fewer categories, or {"as": "index"}.',
            )
        _class_notes(roles, task, notes)
        said = Said(
            form,
            _applied(roles, encoder, options),
            notes,
            list(roles.classes),
            encoder.feature_names,
        )
        _write(target, said, encoder, raw, wanted, rows)


def _unpack(
    table: Table, roles: Roles, task: str, folder: Path
) -> tuple[RawTable, np.ndarray, np.ndarray | None]:
    """Columns, wanted values (NaN: none) and parts (0, 1, 2), all on disk."""
    made = itertools.count()

    def column(kind: str) -> np.ndarray:
        name, size = folder / str(next(made)), roles.rows * np.dtype(kind).itemsize
        # The room is taken before it is mapped: a mapped page without a disk behind it is fatal.
        with open(name, "xb") as file, full_disk_told():
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(name, kind, "r+", shape=(roles.rows,)).view(np.ndarray)

    numbers = {name: column("f8") for name in roles.numeric}
    codes = {name: column("i4") for name in roles.categories}
    wanted = column("f8")
    parts = column("i1") if roles.split else None
    known = {name: _numbering(values) for name, values in roles.categories.items()}
    classes = _numbering(roles.classes)
    at = 0
    for batch in table.batches():
        count = len(batch[roles.target])
        here = slice(at, at + count)
        if at + count > roles.rows:
            raise InvalidFile("The table changed while it was read.", "Upload it again.")
        for name, values in numbers.items():
            read = as_numbers(batch[name])
            if read is None or np.isinf(read).any():
                row = at + (0 if read is None else int(np.argmax(np.isinf(read)))) + 1
                raise InvalidFile(
                    f"The column {name!r} has an infinite value in row {row:,}.",
                    "Leave the cell empty, or the row out.",
                )
            values[here] = read
        for name, values in codes.items():
            values[here] = _coded(batch[name], known[name], name in roles.numbered)
        if task == Task.REGRESSION:
            wanted[here] = as_numbers(batch[roles.target])
        else:
            found = _coded(batch[roles.target], classes, roles.target in roles.numbered)
            wanted[here] = np.where(found < 0, np.nan, found)
        if parts is not None and roles.split:
            words = as_texts(batch[roles.split])
            parts[here] = [_PARTS.index(SPLIT_FOLDERS[str(word).lower()]) for word in words]
        at += count
    return RawTable(numbers, codes, roles.order, roles.categories), wanted, parts


def _split(
    wanted: np.ndarray, parts: np.ndarray | None, task: str, seed: int, notes: list[str]
) -> dict[str, np.ndarray]:
    """Row numbers of each split; rows without a wanted value are in none."""
    usable = ~np.isnan(wanted)
    positions = {"": np.flatnonzero(usable)}
    if parts is not None:
        found = {name: np.flatnonzero(usable & (parts == i)) for i, name in enumerate(_PARTS)}
        positions = {name: rows for name, rows in found.items() if len(rows)}
        if list(positions) == ["train"]:
            positions = {"": positions["train"]}
        elif "tune" not in positions and len(positions) < 2:
            raise InvalidFile(
                "The column that says the split knows only test rows.", "Mark some as val."
            )
    strata = {
        part: splitting.by_target(wanted[rows])
        if task == Task.REGRESSION
        else splitting.by_class(wanted[rows].astype(np.int64))
        for part, rows in positions.items()
        if part in ("", "train")
    }
    sizes = {part: len(rows) for part, rows in positions.items()}
    called = {"train": "train", "tune": "rows of val"}
    chosen = splitting.choose_rows(sizes, strata, seed, notes, called)
    return {
        name: positions[part] if index is None else positions[part][index]
        for name, (part, index) in chosen.items()
    }


def _write(
    target: Path,
    said: Said,
    encoder: Encoder,
    raw: RawTable,
    wanted: np.ndarray,
    rows: Mapping[str, np.ndarray],
) -> None:
    classes = bool(said.class_names)
    both = bool(encoder.width and encoder.indexed)
    plan: dict[str, Planned] = {}
    for name, which in rows.items():
        if encoder.width:
            dense = f"x_{name}.0" if both else f"x_{name}"
            plan[dense] = Planned((len(which), encoder.width), np.dtype("<f4"))
        if encoder.indexed:
            codes = f"x_{name}.1" if both else f"x_{name}"
            plan[codes] = Planned((len(which), len(encoder.indexed)), np.dtype("<i8"))
        plan[f"y_{name}"] = Planned((len(which),), np.dtype("<i8" if classes else "<f8"))
    with writing(target, plan, said) as out:
        for name, which in rows.items():
            out.append(f"y_{name}", wanted[which])
            for dense_rows, code_rows in encoder.rows(raw, which):
                if encoder.width:
                    out.append(f"x_{name}.0" if both else f"x_{name}", dense_rows)
                if encoder.indexed:
                    out.append(f"x_{name}.1" if both else f"x_{name}", code_rows)


def _coded(cells: Any, numbers: Mapping[str, int], numeric: bool) -> np.ndarray:
    texts = as_texts(as_numbers(cells)) if numeric else as_texts(cells)  # type: ignore[arg-type]
    return np.array([-1 if text is None else numbers[text] for text in texts], np.int32)


def _numbering(values: Sequence[str]) -> dict[str, int]:
    return {value: number for number, value in enumerate(values)}


def _class_notes(roles: Roles, task: str, notes: list[str]) -> None:
    if task == Task.REGRESSION or roles.target not in roles.numbered:
        return
    if list(roles.classes) != [str(number) for number in range(len(roles.classes))]:
        notes.append(
            f"The values of {roles.target!r} are not 0, 1, 2, …: class 0 is {roles.classes[0]}, "
            f"class {len(roles.classes) - 1} is {roles.classes[-1]}."
        )


def _applied(roles: Roles, encoder: Encoder, options: TableOptions) -> dict[str, Any]:
    said: dict[str, Any] = {"target": roles.target, "as": options.as_form}
    if options.ignore:
        said["ignore"] = list(options.ignore)
    if roles.categories:
        said["categorical"] = list(roles.categories)
    return said


@contextlib.contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    folder = beside / "columns.part"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
