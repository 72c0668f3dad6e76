"""Tables: equal to an encoding written out by hand with csv and numpy, by train's rows alone."""

from __future__ import annotations

import csv
import errno
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidFile, InvalidInput, StorageFull
from worker.engine.formats import csv_file
from worker.engine.formats.csv_file import MISSING
from worker.engine.formats.datasets import inspect_dataset, open_dataset
from worker.engine.formats.table_encoding import RawTable, fit_encoder

RNG = np.random.default_rng(4)
HEADER = ["age", "colour", "flag", "price", "kind"]


def rows(count: int = 200) -> list[list[str]]:
    return [
        [
            "" if i % 7 == 3 else f"{RNG.normal(40, 9):.3f}",
            str(RNG.choice(["red", 'say "hi", then', "blue;green", ""])),
            str(bool(i % 3)),
            f"{RNG.lognormal():.4f}",
            str(RNG.choice(["cat", "dog", "eel"])),
        ]
        for i in range(count)
    ]


def write(path: Path, header: list[str], content: list[list[str]], delimiter: str = ",",
          encoding: str = "utf-8") -> Path:  # fmt: skip
    with open(path, "w", newline="", encoding=encoding) as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(header)
        out.writerows(content)
    return path


def read(path: Path, task: str = "classification", options: Any = None) -> tuple[Any, Any]:
    info = inspect_dataset(path, task, options, folder=path.parent / "made")
    assert [p.name for p in (path.parent / "made").iterdir()] == ["prepared"]
    with open_dataset(path, task, options, prepared=path.parent / "made" / "prepared") as data:
        assert data.info == info
        got = {name: data.split(name).batch(0, 10**6) for name in data.names}
    return info, {n: ([t.numpy() for t in x], y.numpy()) for n, (x, y) in got.items()}


def by_hand(train: list[list[str]], part: list[list[str]], columns: list[str]) -> np.ndarray:
    """Standardised numbers with a column of gaps, one-hot text: straight from the definition."""
    encoded = []
    for number, name in enumerate(columns):
        cells, known = [r[number] for r in part], [r[number] for r in train]
        if name in ("age", "price"):
            values = [float(v) for v in known if v]
            mean = sum(values) / len(values)
            std = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
            encoded.append([(float(c) - mean) / std if c else 0.0 for c in cells])
            if len(values) < len(known):
                encoded.append([float(not c) for c in cells])
        else:
            for value in sorted({v for v in known if v}):
                encoded.append([float(c == value) for c in cells])
    return np.array(encoded).T


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_with_splits_equals_the_definition(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    content = rows()
    part_of = ["train", "val", "test", "train", "train"]
    table = [[*row, part_of[i % 5]] for i, row in enumerate(content)]
    table[1][1] = "never in train"
    path = write(tmp_path / "d.csv", [*HEADER, "split"], table, delimiter, encoding)
    info, got = read(path)
    train = [row for row in table if row[5] == "train"]
    assert info.format == "csv"
    assert info.class_names == ["cat", "dog", "eel"]
    assert info.feature_names == [
        "age", "age missing", "colour=blue;green", "colour=red", 'colour=say "hi", then',
        "flag=False", "flag=True", "price",
    ]  # fmt: skip
    assert any("'kind', is what is predicted" in note for note in info.notes)
    for name, said in {"train": "train", "tune": "val", "test": "test"}.items():
        part = [row for row in table if row[5] == said]
        (x,), y = got[name]
        np.testing.assert_allclose(x, by_hand(train, part, HEADER[:4]), atol=2e-5)
        assert [info.class_names[label] for label in y] == [row[4] for row in part]


def test_without_a_split_train_alone_teaches(tmp_path: Path) -> None:
    """Rows are found again by their price, which no two share."""
    content = rows(300)
    content = [[*row[:3], f"{i}.5", row[4]] for i, row in enumerate(content)]
    info, got = read(write(tmp_path / "d.csv", HEADER, content))
    assert info.splits == {"train": 180, "tune": 60, "test": 60}
    place = info.feature_names.index("price")
    train_price = got["train"][0][0][:, place]
    assert abs(train_price.mean()) < 1e-5
    assert abs(train_price.std() - 1) < 1e-5
    # price = 0.5 + i is linear: two known rows of train give back every row number.
    everything = np.sort(np.concatenate([x[:, place] for (x,), _ in got.values()]))
    members = {
        name: [content[i] for i in np.searchsorted(everything, x[:, place])]
        for name, ((x,), _) in got.items()
    }
    for name, part in members.items():
        np.testing.assert_allclose(
            got[name][0][0], by_hand(members["train"], part, HEADER[:4]), atol=1e-4
        )
        assert [info.class_names[label] for label in got[name][1]] == [row[4] for row in part]


def test_a_regression_predicts_the_numbers_as_they_are(tmp_path: Path) -> None:
    content = rows(100)
    content[5][3] = ""
    path = write(tmp_path / "d.csv", HEADER, content)
    info, got = read(path, "regression", {"target": "price", "ignore": ["flag"]})
    assert "flag=True" not in info.feature_names
    assert info.classes is None
    assert sum(info.splits.values()) == 99
    assert any("1 rows without a 'price'" in note for note in info.notes)
    values = np.sort(np.concatenate([y for _, y in got.values()]))
    expected = np.sort([float(row[3]) for row in content if row[3]])
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_categories_as_an_input_of_their_own(tmp_path: Path) -> None:
    content = [["1.5", "b", "7", "x"], ["2.5", "a", "8", "y"], ["3.5", "c", "7", "x"],
               ["1.0", "a", "9", "y"]]  # fmt: skip
    table = [[*row, split] for row, split in zip(content, ["train", "train", "val", "val"],
                                                 strict=True)]  # fmt: skip
    path = write(tmp_path / "d.csv", ["n", "word", "code", "label", "split"], table)
    info, got = read(path, options={"as": "index", "categorical": ["code"]})
    assert info.inputs == 2
    assert info.dtypes == ["float32", "int64"]
    assert info.feature_names == ["n", "word", "code"]
    (dense, codes), labels = got["tune"]
    np.testing.assert_allclose(dense, [[3.0], [-2.0]])
    assert codes.tolist() == [[0, 1], [1, 0]]
    assert labels.tolist() == [0, 1]
    assert got["train"][0][1].tolist() == [[2, 1], [1, 2]]


@pytest.mark.parametrize(
    ("names", "options", "target"),
    [
        (["a", "target", "b"], None, "target"),
        (["Label", "a", "b"], None, "Label"),
        (["a", "Y", "b"], None, "Y"),
        (["class", "a", "b"], {"target": "b"}, "b"),
        (["a", "b", "c"], None, "c"),
    ],
)
def test_which_column_is_predicted(
    tmp_path: Path, names: list[str], options: Any, target: str
) -> None:
    content = [[str(i % 3), str(i % 2), str(i % 3)] for i in range(60)]
    info, _ = read(write(tmp_path / "d.csv", names, content), options=options)
    assert info.options["target"] == target
    assert target not in info.feature_names


def test_classes_of_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    content = [[str(i), ("3", "10", "9.0")[i % 3]] for i in range(60)]
    info, got = read(write(tmp_path / "d.csv", ["a", "quality"], content))
    assert info.class_names == ["3", "9", "10"]
    assert any("class 0 is 3, class 2 is 10" in note for note in info.notes)
    assert (
        sorted(np.concatenate([y for _, y in got.values()]).tolist())
        == [0] * 20 + [1] * 20 + [2] * 20
    )


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    content = [[str(i), f"2020-01-{i}", "5", "", str(i % 4), str(i % 2)] for i in range(100)]
    info, got = read(write(tmp_path / "d.csv", ["", "day", "same", "gone", "n", "y"], content))
    assert info.feature_names == ["same", "n"]
    text = "\n".join(info.notes)
    for sentence in ("without a name", "text of too many values: 'day'", "Never varies in train"
                     ", so it is 0 there: 'same'", "Left out, empty: 'gone'"):  # fmt: skip
        assert sentence in text
    assert not got["train"][0][0][:, 0].any()


FAULTS: list[tuple[bytes, str]] = [
    (b"a,b\n1,2\n1,2,3\n", "Row 2 .* has 3 cells, the header 2"),
    (b"1.5,2,3\n4,5,6\n", "numbers, not the names"),
    (b"one column\n1\n2\n", "single column"),
    (b"a,a\n1,2\n", "two columns 'a'"),
    (b"a,b\n", "no rows"),
    (b"a,b\n\xe9,1\n", "not in UTF-8"),
    (b'a,b\n"never closed,1\n2,3\n', "quotes that don't match"),
    (b"a,b\n" + b"x" * 70_000 + b",1\n", "a cell without an end"),
    (b"a,b\n1,0.5\n2,0.25\n", "numbers with decimals"),
    (b"a,b\n1," + b"\n2,".join(b"w%d" % i for i in range(1200)) + b"\n", "1,000 different values"),
    (b"a,y\n1,1\ninf,2\n1,3\n", "'a' has an infinite value in row 2"),
    (b"\xff\xfea\0,\0b\0\n\0", "UTF-16"),
    (b'{"a": 1}', "JSON"),
    (b"<!DOCTYPE html><html>", "web page"),
    (b"a,split,y\n1,test,1\n2,test,2\n", "only test rows"),
    (b"a,y\n1,\n2,\n", "0 samples are too few"),
]


@pytest.mark.parametrize(("content", "sentence"), FAULTS, ids=[f[1][:24] for f in FAULTS])
def test_faults(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(InvalidFile, match=sentence) as caught:
        inspect_dataset(tmp_path / "d.csv", folder=tmp_path / "made")
    assert caught.value.hint
    assert not (tmp_path / "made").exists() or not list((tmp_path / "made").iterdir())


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "MAX_LINE", 1000)
    (tmp_path / "d.csv").write_text("a,b\n" + "1," * 2000)
    with pytest.raises(InvalidFile, match="a line of more than 1,000"):
        inspect_dataset(tmp_path / "d.csv", folder=tmp_path / "made")


@pytest.mark.parametrize(
    ("task", "options", "field"),
    [
        ("classification", {"target": "nope"}, "options.target"),
        ("classification", {"ignore": ["age", "nope"]}, "options.ignore"),
        ("classification", {"categorical": ["nope"]}, "options.categorical"),
        ("classification", {"target": "kind", "ignore": ["kind"]}, "options.ignore"),
        ("classification", {"ignore": "age"}, "options.ignore"),
        ("classification", {"as": "number"}, "options.as"),
        ("classification", {"size": 3}, "options.size"),
        ("language-modelling", {}, "task"),
    ],
)
def test_wrong_options(tmp_path: Path, task: str, options: Any, field: str) -> None:
    path = write(tmp_path / "d.csv", HEADER, rows(50))
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(path, task, options, folder=tmp_path / "made")
    assert list(caught.value.fields) == [field]
    assert caught.value.hint


def test_parquet_equals_csv(tmp_path: Path) -> None:
    arro3_io = pytest.importorskip("arro3.io")
    from arro3.core import Array, DataType, Table

    content = rows(150)
    write(tmp_path / "d.csv", HEADER, content)
    columns: dict[str, Any] = {}
    for number, name in enumerate(HEADER):
        cells = [row[number] or None for row in content]
        if name in ("age", "price"):
            kind, values = DataType.float64(), [None if c is None else float(c) for c in cells]
        elif name == "flag":
            kind, values = DataType.bool(), [c == "True" for c in cells]
        else:
            kind, values = DataType.utf8(), cells
        columns[name] = Array(values, kind)
    columns["when"] = Array(np.arange(150), DataType.int64()).cast(DataType.timestamp("s"))
    order = ["age", "colour", "flag", "price", "when", "kind"]
    table = Table.from_pydict({name: columns[name] for name in order})
    arro3_io.write_parquet(table, str(tmp_path / "d.parquet"))
    info, got = read(tmp_path / "d.parquet")
    other, expected = read(tmp_path / "d.csv")
    assert info.format == "parquet"
    assert info.feature_names == other.feature_names
    assert any("dates or times: 'when'" in note for note in info.notes)
    for name in expected:
        np.testing.assert_allclose(got[name][0][0], expected[name][0][0], atol=1e-6)
        np.testing.assert_array_equal(got[name][1], expected[name][1])


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    arro3_io = pytest.importorskip("arro3.io")
    from arro3.core import Array, DataType, Table

    out = io.BytesIO()
    table = Table.from_pydict(
        {"a": Array(np.arange(100.0)), "y": Array([i % 2 for i in range(100)], DataType.int64())}
    )
    arro3_io.write_parquet(table, out)
    whole, path = out.getvalue(), tmp_path / "d.parquet"
    refused = 0
    for _ in range(200):
        raw = bytearray(whole)
        for place in RNG.integers(4, len(raw), 4):
            raw[place] = RNG.integers(0, 256)
        path.write_bytes(raw[: RNG.integers(5, len(raw) + 1)])
        try:
            inspect_dataset(path, folder=tmp_path / "made")
        except (InvalidFile, InvalidInput):
            refused += 1
    assert refused > 100


def test_without_the_extra_the_pip_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "arro3.io", None)
    (tmp_path / "d.parquet").write_bytes(b"PAR1" + b"\0" * 50 + b"PAR1")
    with pytest.raises(InvalidInput) as caught:
        inspect_dataset(tmp_path / "d.parquet", folder=tmp_path / "made")
    assert "pip install 'prunescope[parquet]'" in caught.value.hint


@pytest.mark.parametrize("call", ["os.posix_fallocate", "shutil.disk_usage"])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> Any:
        if "fallocate" in call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return SimpleNamespace(free=1000)

    path = write(tmp_path / "d.csv", HEADER, rows(50))
    monkeypatch.setattr(call, full)
    with pytest.raises(StorageFull):
        inspect_dataset(path, folder=tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_encodings_obey_train(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 40))
    numbers = data.draw(
        st.lists(st.floats(-1e4, 1e4) | st.just(float("nan")), min_size=count, max_size=count)
    )
    codes = data.draw(st.lists(st.integers(-1, 4), min_size=count, max_size=count))
    train = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    raw = RawTable(
        {"n": np.array(numbers)}, {"c": np.array(codes)}, ("n", "c"), {"c": tuple("abcde")}
    )
    encoder = fit_encoder(raw, train, False, [])
    ((dense, _),) = encoder.rows(raw, np.arange(count))
    there = np.array(numbers)[train]
    there = there[~np.isnan(there)]
    standard = dense[train, 0][~np.isnan(np.array(numbers)[train])]
    if len(there):
        assert abs(standard.mean()) < 1e-3
        assert np.isclose(standard.std(), 1, atol=1e-3) or np.ptp(there) < 1e-6 * (
            1 + np.abs(there).max()
        )
    known = sorted({codes[i] for i in train} - {-1})
    width = 2 if np.isnan(np.array(numbers)[train]).any() else 1
    one_hot = dense[:, width:]
    assert one_hot.shape[1] == len(known)
    for row, code in zip(one_hot, codes, strict=True):
        assert row.tolist() == [float(code == k) for k in known]
    # Nothing outside train changes what is learnt.
    shaken = np.array(numbers)
    shaken[np.setdiff1d(np.arange(count), train)] = 77.0
    again = fit_encoder(RawTable({"n": shaken}, raw.codes, raw.order, raw.values), train, False, [])
    assert again.columns[0] == encoder.columns[0]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.text(max_size=5), min_size=3, max_size=3), min_size=1, max_size=30))
def test_any_cells_survive_the_reader(tmp_path: Path, content: list[list[str]]) -> None:
    """What csv writes is what comes out, whatever quotes and delimiters it holds."""
    content = [[cell.replace("\0", "").replace("\r", "") for cell in row] for row in content]
    path = write(tmp_path / "d.csv", ["a", "b", "c"], content)
    path.write_bytes(path.read_bytes().decode("utf-8", "surrogatepass").encode("utf-8", "replace"))
    with open(path, encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file))[1:]
    table = csv_file.CsvFile(path)
    got = [list(row) for batch in table.batches() for row in zip(*batch.values(), strict=True)]
    assert got == [
        [None if cell.strip() in MISSING else cell.strip() for cell in row] for row in expected
    ]
