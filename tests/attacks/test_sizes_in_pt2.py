"""Tensors of `.pt2` files that lie about size, place and strides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import kit
from tests.attacks.exported import sound, written
from tests.unit.engine.archives import WEIGHTS, graph_of


def ints(*values: Any) -> list[dict[str, Any]]:
    return [{"as_int": value} for value in values]


LIES = {
    "a terabyte in 48 bytes": {"sizes": ints(1 << 20, 1 << 20), "strides": ints(1 << 20, 1)},
    "stride 0": {"sizes": ints(1 << 30, 3), "strides": ints(0, 1)},
    "stride 0 in all axes": {"sizes": ints(1 << 30, 1 << 30), "strides": ints(0, 0)},
    "entries that overlap": {"sizes": ints(1 << 30, 3), "strides": ints(1, 1)},
    "a negative stride": {"sizes": ints(4, 3), "strides": ints(-3, 1)},
    "a negative size": {"sizes": ints(-4, 3)},
    "sizes whose product is 0 in 64 bits": {
        "sizes": ints(1 << 32, 1 << 32), "strides": ints(1 << 32, 1),
    },
    "sizes whose product is 12 in 64 bits": {
        "sizes": ints((1 << 62) + 3, 4), "strides": ints(4, 1),
    },
    "an extent that overflows": {"sizes": ints(2, 2), "strides": ints((1 << 62) - 1, 1)},
    "no entries, huge axes": {"sizes": ints(0, 1 << 61), "strides": ints(1 << 61, 1)},
    "no entries beyond the end": {"sizes": ints(0, 3), "storage_offset": {"as_int": 1 << 61}},
    "an offset beyond the end": {"storage_offset": {"as_int": 1 << 40}},
    "an offset by one": {"storage_offset": {"as_int": 1}},
    "a negative offset": {"storage_offset": {"as_int": -1}},
    "a free size": {"sizes": [{"as_expr": {"expr_str": "s0", "hint": {"as_int": 4}}}, *ints(3)]},
    "a size of truth": {"sizes": ints(True, 3)},
    "a size with a fraction": {"sizes": ints(4.0, 3)},
    "a size that is a word": {"sizes": ints("4", 3)},
    "a hundred axes": {"sizes": ints(*[1] * 100), "strides": ints(*[1] * 100)},
    "fewer strides than sizes": {"strides": ints(1)},
    "more bytes a number": {"dtype": 8},
    "fewer bytes a number": {"dtype": 1},
    "truth values that are neither": {"dtype": 12, "sizes": ints(12, 4), "strides": ints(4, 1)},
    "a number type that isn't there": {"dtype": 99},
    "a sparse layout": {"layout": 1},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("consistent", [False, True])
def test_a_weight_that_lies(tmp_path: Path, canary: kit.Canary, lie: str, consistent: bool) -> None:
    """`consistent`: the graph tells the same lie as the list of weights."""
    entries = sound().changed(
        lambda record: record["config"]["0.weight"]["tensor_meta"].update(LIES[lie]), WEIGHTS
    )
    if consistent:
        entries = entries.changed(
            lambda record: graph_of(record)["tensor_values"]["p_0_weight"].update(LIES[lie])
        )
    outcome = kit.read_model(written(tmp_path, entries))
    kit.refused(outcome, "", canary, memory_bytes=100 * kit.MIB)


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("value", ["x", "linear", "linear_1"])
def test_a_value_of_the_graph_that_lies(
    tmp_path: Path, canary: kit.Canary, lie: str, value: str
) -> None:
    """Inputs are made in the sizes they claim; between operators nothing is believed."""

    def change(record: dict[str, Any]) -> None:
        graph = graph_of(record)
        name = graph["inputs"][-1]["as_tensor"]["name"] if value == "x" else value
        graph["tensor_values"][name].update(LIES[lie])

    outcome = kit.read_model(written(tmp_path, sound().changed(change)))
    kit.harmless(outcome, canary)
    if outcome.error:
        kit.refused(outcome)


def test_tensors_that_overlap(tmp_path: Path, canary: kit.Canary) -> None:
    def change(record: dict[str, Any]) -> None:
        record["config"]["0.bias"] = json.loads(json.dumps(record["config"]["0.weight"]))
        meta = record["config"]["0.bias"]["tensor_meta"]
        meta["sizes"], meta["strides"] = ints(4), ints(1)

    path = written(tmp_path, sound().changed(change, WEIGHTS))
    kit.refused(kit.read_model(path), "overlap in memory", canary)


def test_a_thousand_keys_of_one_tensor(tmp_path: Path, canary: kit.Canary) -> None:
    """Sharing is honest, and costs the memory once: 1000 names for 80 MB are 80 MB."""
    size = 20_000_000

    def change(record: dict[str, Any]) -> None:
        config = record["config"]
        config["0.weight"]["tensor_meta"].update(sizes=ints(size // 3, 3), strides=ints(3, 1))
        for number in range(1000):
            config[f"{number}.more"] = config["0.weight"]

    entries = sound().changed(change, WEIGHTS)
    (file,) = (name for name, data in entries.items() if len(data) == 48 and "weights/" in name)
    path = written(tmp_path, entries | {file: bytes(size // 3 * 12)})
    kit.harmless(kit.read_model(path), canary, memory_bytes=250 * kit.MIB)


@pytest.mark.parametrize("place", ["../../../etc/passwd", "/etc/passwd", "", ".", "weight_0/../x"])
def test_the_bytes_are_somewhere_else(tmp_path: Path, canary: kit.Canary, place: str) -> None:
    """A name of an entry is looked up in the archive, never on the disk."""
    path = written(
        tmp_path,
        sound().changed(lambda r: r["config"]["0.weight"].update(path_name=place), WEIGHTS),
    )
    kit.refused(kit.read_model(path), "is missing", canary)
