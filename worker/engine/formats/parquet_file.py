"""A `.parquet` table read in runs of rows, through arro3 (the optional extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile, InvalidInput
from worker.engine.formats.csv_file import BATCH, MAX_CELL, MAX_COLUMNS, Cells, check_unique

MAX_ROWS = 20_000_000


class ParquetFile:
    """An opened table. Numbers come as float64 with NaN for missing, everything else as text.

    `skipped`: columns that can't be read as either, and what they hold. Raises InvalidFile;
    InvalidInput if the extra isn't installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import arro3.io
        except ImportError as error:
            raise InvalidInput(
                "This installation can't read .parquet: the extra isn't installed.",
                "Run pip install 'prunescope[parquet]' on the server, or upload the table as .csv.",
            ) from error
        self._io: Any = arro3.io
        self.path = path
        self.notes: list[str] = []
        with _reading():
            reader = self._io.read_parquet(str(path), batch_size=BATCH)
            fields = list(reader.schema)
        if len(fields) > MAX_COLUMNS:
            raise InvalidFile(
                f"The table has {len(fields):,} columns; at most {MAX_COLUMNS:,} are read.",
                "Leave out what isn't needed, or bring the numbers as .npz.",
            )
        self._kinds = {str(field.name).strip(): _kind(field.type) for field in fields}
        self.columns = tuple(str(field.name).strip() for field in fields)
        check_unique(self.columns)
        self.skipped = {
            name: kind for name, kind in self._kinds.items() if kind not in ("number", "text")
        }

    def batches(self) -> Iterator[dict[str, Cells | np.ndarray]]:
        """The rows in runs, column by column. Raises InvalidFile."""
        rows = 0
        with _reading():
            for batch in self._io.read_parquet(str(self.path), batch_size=BATCH):
                rows += batch.num_rows
                # One run of a value is one number in the file, however many rows it stands for.
                if rows > MAX_ROWS:
                    raise InvalidFile(
                        f"The table has more than {MAX_ROWS:,} rows.",
                        "Take a part of them: curves need some thousands.",
                    )
                yield {
                    name: self._cells(batch.column(number), self._kinds[name])
                    for number, name in enumerate(self.columns)
                    if name not in self.skipped
                }

    def _cells(self, column: Any, kind: str) -> Cells | np.ndarray:
        if kind == "number":
            if column.null_count == 0 and not column.type.is_decimal(column.type):
                return np.asarray(column.to_numpy(), np.float64)
            return np.array(
                [np.nan if v is None else float(v) for v in column.to_pylist()], np.float64
            )
        cells: Cells = [None if v is None else str(v) for v in column.to_pylist()]
        if any(cell is not None and len(cell) > MAX_CELL for cell in cells):
            raise InvalidFile(
                f"The table has a cell of more than {MAX_CELL:,} letters.",
                "Leave out columns of long texts.",
            )
        return cells


def _kind(dtype: Any) -> str:
    known = type(dtype)
    if known.is_dictionary(dtype):
        dtype = dtype.value_type
    if known.is_integer(dtype) or known.is_floating(dtype) or known.is_decimal(dtype):
        return "number"
    if known.is_boolean(dtype) or known.is_string(dtype) or known.is_large_string(dtype):
        return "text"
    if known.is_string_view(dtype):
        return "text"
    if known.is_temporal(dtype):
        return "dates or times"
    return "lists or records" if known.is_nested(dtype) else "other values"


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (InvalidFile, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # the reader's panics are no Exceptions
        raise InvalidFile(
            "The .parquet file is damaged or written in a way that can't be read.",
            "Check that it opens on your machine, or upload the table as .csv.",
        ) from error
