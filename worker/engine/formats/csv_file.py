"""A `.csv` read in runs of rows: delimiter found out, quotes understood, no endless line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.domain.errors import InvalidFile

MAX_LINE = 4 << 20
MAX_CELL = 1 << 16
MAX_COLUMNS = 5000
MAX_COLUMN_NAME = 200
BATCH = 8192
_SAMPLE = 1 << 16
_DELIMITERS = (",", ";", "\t", "|")
_CALLED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MISSING = frozenset(("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?"))

Cells = list[str | None]


class CsvFile:
    """An opened table of text. `columns` are the names of the first line, in order.

    Raises InvalidFile: no header, one column, another encoding, endless cells or lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped: dict[str, str] = {}
        with open(path, "rb") as file:
            sample = file.read(_SAMPLE)
        text = sample.decode("utf-8-sig", errors="replace")
        self._delimiter = _find_delimiter(text)
        self.notes = []
        if self._delimiter != ",":
            self.notes.append(f"The columns are parted by {_CALLED[self._delimiter]}.")
        self.columns = tuple(name.strip() for name in next(self._rows(), []))
        _check_names(self.columns)

    def batches(self) -> Iterator[dict[str, Cells]]:
        """The rows in runs, column by column; None where a cell is empty. Raises InvalidFile."""
        rows = self._rows()
        width = len(next(rows))
        held: list[list[str]] = []
        for number, row in enumerate(rows, 1):
            if len(row) != width:
                raise InvalidFile(
                    f"Row {number:,} (below the header) has {len(row)} cells, the header {width}.",
                    "Put quotes round cells that contain the delimiter or a line break.",
                )
            held.append(row)
            if len(held) == BATCH:
                yield self._columns(held)
                held = []
        if held:
            yield self._columns(held)

    def _columns(self, rows: list[list[str]]) -> dict[str, Cells]:
        turned = zip(*rows, strict=True)
        return {name: _cells(raw) for name, raw in zip(self.columns, turned, strict=True)}

    def _rows(self) -> Iterator[list[str]]:
        before = csv.field_size_limit(MAX_CELL)
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(_lines(file), delimiter=self._delimiter, strict=True)
                yield from (row for row in reader if row)
        except UnicodeDecodeError as error:
            raise InvalidFile("The table is not in UTF-8.", "Save it as UTF-8.") from error
        except csv.Error as error:
            what = "a cell without an end" if "limit" in str(error) else "quotes that don't match"
            raise InvalidFile(
                f"The table has {what}, about line {reader.line_num:,}.",
                f"Cells have at most {MAX_CELL:,} letters; write a quote within quotes twice.",
            ) from error
        finally:
            csv.field_size_limit(before)


def _cells(raw: Sequence[str]) -> Cells:
    cells: Cells = list(map(str.strip, raw))
    if MISSING.isdisjoint(cells):
        return cells
    return [None if cell in MISSING else cell for cell in cells]


def _lines(file: io.TextIOBase) -> Iterator[str]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise InvalidFile(
                f"The table has a line of more than {MAX_LINE:,} letters.",
                "Is it a table, one row a line?",
            )
        yield line


def _find_delimiter(text: str) -> str:
    """The one that parts the first lines most evenly. Raises InvalidFile if none parts them."""
    lines = text.splitlines()
    lines = [line for line in (lines[:-1] or lines) if line.strip()][:50]
    best, score = "", (0.0, 0)
    for delimiter in _DELIMITERS:
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        widths = [len(row) for row in rows]
        if widths and widths[0] > 1:
            even = sum(width == widths[0] for width in widths) / len(widths)
            if (even, widths[0]) > score:
                best, score = delimiter, (even, widths[0])
    if not best:
        raise InvalidFile(
            "This text is no table: its first line has a single column.",
            "Part columns with commas, semicolons, tabs or bars, with their names in the first "
            "line.",
        )
    return best


def _check_names(names: tuple[str, ...]) -> None:
    if len(names) > MAX_COLUMNS:
        raise InvalidFile(
            f"The table has {len(names):,} columns; at most {MAX_COLUMNS:,} are read.",
            "Leave out what isn't needed, or bring the numbers as .npz.",
        )
    if all(_is_number(name) for name in names):
        raise InvalidFile(
            "The first line of the table holds numbers, not the names of the columns.",
            "Write the names of the columns in the first line.",
        )
    check_unique(names)


def check_unique(names: tuple[str, ...]) -> None:
    """Raises InvalidFile for names that are twice there or endless."""
    seen: set[str] = set()
    for name in names:
        if len(name) > MAX_COLUMN_NAME:
            raise InvalidFile(
                f"The column {name[:40]!r}… has a name of {len(name):,} letters.",
                f"Names have at most {MAX_COLUMN_NAME}.",
            )
        if name in seen and name:
            raise InvalidFile(f"The table has two columns {name!r}.", "Give each its own name.")
        seen.add(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
