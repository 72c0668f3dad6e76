"""Tables of text: endless lines, cells and columns, broken quotes, and cells that are formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks import kit

ROWS = "".join(f"{n},{n % 7},{'yes' if n % 2 else 'no'}\n" for n in range(200))


def many(number: int, cell: str) -> bytes:
    return (",".join(f"c{n}" for n in range(number)) + "\n" + ",".join([cell] * number)).encode()


TABLES: dict[str, Callable[[], bytes]] = {
    "a million columns": lambda: many(1_000_000, "1"),
    "a million cells in one row": lambda: b"a,b,kind\n" + b"1," * 1_000_000 + b"\n",
    "a cell of 100 MB": lambda: b"a,b,kind\n1," + b"x" * (100 << 20) + b",yes\n",
    "a quote without end": lambda: b'a,b,kind\n1,"' + b"x\n" * (30 << 20),
    "a quote in the header": lambda: b'"a,b,kind\n' + ROWS.encode(),
    "quotes unbalanced": lambda: b'a,b,kind\n1,"2,yes\n3,4",no\n5,6"",yes\n',
    "quotes within": lambda: b'a,b,kind\n1,2"3"4,yes\n' * 3,
    "only quotes": lambda: b'"' * (8 << 20),
    "only commas": lambda: b"," * (8 << 20),
    "only newlines": lambda: b"a,b,kind\n" + b"\n" * (20 << 20),
    "only carriage returns": lambda: b"a,b,kind\r" + b"1,2,yes\r" * 10,
    "a line of 20 MB": lambda: b"a,b,kind\n" + b" " * (20 << 20) + b"\n",
    "a name of 20 MB": lambda: b"a," + b"x" * (20 << 20) + b",kind\n1,2,yes\n",
    "names twice": lambda: b"a,a,kind\n" + ROWS.encode(),
    "no names": lambda: b",,kind\n" + ROWS.encode(),
    "zero bytes": lambda: b"a,b,kind\n1,\x00,yes\n",
    "half characters": lambda: b"a,b,kind\n1,\xed\xa0\x80,yes\n",
    "Latin 1": lambda: b"a,b,kind\n1,K\xf6ln,yes\n",
    "UTF-16": lambda: ("a,b,kind\n" + ROWS).encode("utf-16"),
    "rows of all lengths": lambda: b"a,b,kind\n1,2,yes\n1\n1,2,3,4\n",
    "numbers without end": lambda: b"a,b,kind\n" + b"9" * 60_000 + b",1e999999,yes\n" * 3,
    "underscores and other digits": lambda: "a,b,kind\n1_000,٣٤,yes\n".encode() * 3,
    "a target of one kind": lambda: b"a,b,kind\n" + b"1,2,yes\n" * 50,
    "a target of no kind": lambda: b"a,b,kind\n" + b"1,2,\n" * 50,
    "one row": lambda: b"a,b,kind\n1,2,yes\n",
    "no rows": lambda: b"a,b,kind\n",
    "no target": lambda: b"a,b,other\n" + ROWS.encode(),
}


@pytest.mark.parametrize("table", TABLES)
def test_it_is_refused(tmp_path: Path, canary: kit.Canary, table: str) -> None:
    path = tmp_path / "evil.csv"
    path.write_bytes(TABLES[table]())
    outcome = kit.read_dataset(path, options={"target": "kind"})
    kit.harmless(outcome, canary, seconds=8, memory_bytes=200 * kit.MIB)
    if outcome.error:
        kit.refused(outcome)
    else:
        assert table in ("no names", "only carriage returns", "quotes within",
                         "underscores and other digits", "a target of one kind")  # fmt: skip


def test_one_line_of_two_gigabytes(tmp_path: Path, canary: kit.Canary) -> None:
    """Made of nothing: the file is one hole behind its first words."""
    path = tmp_path / "evil.csv"
    with open(path, "wb") as file:
        file.write(b"a,b,kind\n" + b"1," * 100_000)
        file.truncate(2 << 30)
    outcome = kit.read_dataset(path, options={"target": "kind"})
    kit.refused(outcome, "", canary, memory_bytes=200 * kit.MIB)


def test_a_million_values_of_one_column(tmp_path: Path, canary: kit.Canary) -> None:
    """One column a value would be a sample of a million numbers."""
    path = tmp_path / "evil.csv"
    rows = "".join(f"word{n},{n % 9},{'yes' if n % 2 else 'no'}\n" for n in range(300_000))
    path.write_text("a,b,kind\n" + rows)
    outcome = kit.read_dataset(path, options={"target": "kind"}, seconds=60)
    kit.harmless(outcome, canary, seconds=40, memory_bytes=400 * kit.MIB)


FORMULAS = ["=cmd|'/C calc'!A0", "=HYPERLINK(1)", "+1+1", "-1+1", "@SUM(1)", "=1+1"]


def test_formulas_are_just_text(tmp_path: Path, canary: kit.Canary) -> None:
    path = tmp_path / "formulas.csv"
    rows = "".join(f'"{FORMULAS[n % 6]}",{n % 7},{"yes" if n % 4 else "no"}\n' for n in range(120))
    path.write_text("a,=b(),kind\n" + rows)
    outcome = kit.read_dataset(path, options={"target": "kind"})
    kit.harmless(outcome, canary)
    assert outcome.error is None, outcome.error
    assert sum(outcome.value["splits"].values()) == 120


@pytest.mark.parametrize(
    "options",
    [
        {"target": ""},
        {"target": ["kind"]},
        {"target": "kind" * 100_000},
        {"target": "kind", "ignore": "a"},
        {"target": "kind", "ignore": [1]},
        {"target": "kind", "ignore": ["a", "b", "kind"]},
        {"target": "kind", "categorical": {"a": 1}},
        {"target": "kind", "__class__": 1},
    ],
    ids=lambda o: str(o)[:40],
)
def test_options_that_make_no_sense(tmp_path: Path, canary: kit.Canary, options: dict) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b,kind\n" + ROWS)
    kit.refused(kit.read_dataset(path, options=options), "", canary)
