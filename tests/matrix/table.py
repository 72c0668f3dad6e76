"""The matrix as a table: `python -m tests.matrix.table` writes RESULTS.md."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from tests.matrix.examine import Examined
from tests.matrix.networks import ENTRIES

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """\
# Networks that are read

Made by `make matrix-table`; a test fails when a row is no longer true. Every network has random
weights and a small configuration. Bit-equal: the canonical form answers as the network itself does,
to the last bit, in the batch it was exported with and in others. Exact = naive: the analysis of
some of its weights gives the figures of the naive loop, to the sample.

"""
COLUMNS = (
    *("library", "network", "family", "task", "parameters", "operators", "units prunable / all"),
    *("bit-equal", "any batch", "exact = naive", "note"),
)


def row(examined: Examined) -> str:
    """One line of the table."""
    entry, model = examined.entry, examined.model
    operators = sum(node.op.startswith("call") for node in model.module.graph.nodes)
    prunable = sum(unit.prunable for unit in examined.units)
    exact = examined.exact
    return _line(
        [
            entry.library,
            entry.name,
            entry.family,
            entry.task,
            f"{sum(unit.size for unit in examined.units):,}",
            str(operators),
            f"{prunable} / {len(examined.units)}",
            _yes(all(examined.bit_equal.values())),
            "yes" if model.fixed_batch is None else f"only {model.fixed_batch}",
            f"{_yes(exact.equal)}, {len(exact.expected)} cells",
            entry.note,
        ]
    )


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(rows: Iterable[str]) -> str:
    """The whole file."""
    ruler = "| " + " | ".join("---" for _ in COLUMNS) + " |"
    return HEAD + "\n".join([_line(COLUMNS), ruler, *rows]) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for entry in ENTRIES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(Examined(entry, Path(folder))))
        print(rows[-1], file=sys.stderr)
    RESULTS.write_text(table(rows))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
