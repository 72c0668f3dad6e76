"""Mutated tables, as text and as Parquet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit


def rows(number: int = 40) -> str:
    lines = ["age,town,paid,kind"]
    for n in range(number):
        town = ["Bern", "Köln", '"Ulm, Donau"', ""][n % 4]
        lines.append(f"{20 + n},{town},{n / 7:.3f},{'yes' if n % 3 else 'no'}")
    return "\n".join(lines) + "\n"


def test_each_csv(tmp_path: Path) -> None:
    comma, semicolon = tmp_path / "comma.csv", tmp_path / "semicolon.csv"
    comma.write_text(rows())
    semicolon.write_text(rows().replace(",", ";").replace(".", ","))
    kit.fuzzed([comma, semicolon], "text", "dataset", tmp_path, options={"target": "kind"})


def parquet(path: Path) -> Path:
    io = pytest.importorskip("arro3.io")
    source = path.with_suffix(".csv")
    source.write_text(rows())
    schema = io.infer_csv_schema(source, has_header=True)
    io.write_parquet(io.read_csv(source, schema, has_header=True), path)
    return path


def test_each_parquet(tmp_path: Path) -> None:
    seed = parquet(tmp_path / "table.parquet")
    assert kit.read_dataset(seed, options={"target": "kind"}).value
    kit.fuzzed([seed], "bytes", "dataset", tmp_path, options={"target": "kind"})
