"""What is kept of a cell: bits, sums and states, and what is not taken for one of them."""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.domain.adaptive import Goal, Strata, Sums, drop_of
from app.domain.errors import InvalidInput
from app.domain.stream_order import STRATA
from worker.engine.cell_run import Bits, CellRun
from worker.engine.packing import pack, unpack
from worker.engine.sensitivity import Cell

MARK = 77


def fresh() -> CellRun:
    return CellRun([Cell("u", "magnitude", 500_000)], 5, 10, Goal(), hits=Bits())


def measured(samples: int = 40) -> CellRun:
    generator = np.random.default_rng(samples)
    run = fresh()
    members = generator.integers(0, STRATA, samples)
    run.sums.add(members, generator.choice([-1.0, 0, 1], samples), generator.normal(size=samples))
    run.sums.lost, run.sums.gained = 3, 2
    state = {
        "counts": generator.integers(0, 9, 4),
        "loss": generator.normal(size=2),
        "seen_nan": np.array(True),
        "nothing": np.zeros((0, 3)),
    }
    run.take(samples, state, [generator.random(samples) < 0.5])
    return run


def known(run: CellRun, **other: Any) -> dict[str, Any]:
    """As it comes back from where it was kept."""
    said = {
        "samples": run.seen,
        "sums": run.sums.as_json(),
        "state": run.packed_state(MARK),
    }
    return json.loads(json.dumps(said | other))


@given(st.lists(arrays.arrays(np.bool_, st.integers(0, 30)), max_size=6), st.integers(0, 40))
def test_bits_are_those_of_packbits(parts: list[np.ndarray], cut: int) -> None:
    whole = np.concatenate([*parts, np.zeros(0, dtype=bool)])
    bits = Bits()
    for part in parts:
        bits.add(part)
    assert bits.packed == np.packbits(whole).tobytes()
    assert bits.count == len(whole)
    cut = min(cut, len(whole))
    later = Bits(np.packbits(whole[:cut]).tobytes(), cut)
    later.add(whole[cut:])
    assert (later.packed, later.count) == (bits.packed, bits.count)


@pytest.mark.parametrize(("packed", "count"), [(b"", 1), (b"a", 0), (b"ab", 8), (b"a", -1)])
def test_bits_of_another_number_are_refused(packed: bytes, count: int) -> None:
    with pytest.raises(ValueError, match="answers"):
        Bits(packed, count)


def test_a_run_goes_on_from_what_was_kept_of_it() -> None:
    for samples in (1, 8, 40):
        run, again = measured(samples), fresh()
        again.resume(known(run), MARK)
        assert again.seen == samples
        assert again.hits is not None
        assert run.hits is not None
        assert (again.hits.packed, again.hits.count) == (run.hits.packed, samples)
        for name in Sums.PARTS:
            assert getattr(again.sums, name).tobytes() == getattr(run.sums, name).tobytes()
        assert (again.sums.lost, again.sums.gained) == (3, 2)
        assert again.state is not None
        assert run.state is not None
        assert again.state.keys() == run.state.keys()
        for name, each in run.state.items():
            assert again.state[name].dtype == each.dtype
            assert again.state[name].tobytes() == each.tobytes()
            assert again.state[name].flags.writeable


def test_sums_that_are_not_finite_stay_undefined() -> None:
    run, again = measured(), fresh()
    run.sums.l[2] = np.nan
    run.sums.l2[2] = np.inf
    again.resume(known(run), MARK)
    assert np.isnan(again.sums.l[2])
    assert np.isnan(again.sums.l2[2])


def test_without_hits_there_are_none_to_keep() -> None:
    run, again = measured(), fresh()
    run.hits = again.hits = None
    again.resume(known(run), MARK)
    assert again.hits is None
    assert again.seen == 40


def test_large_states_are_not_kept() -> None:
    run = measured()
    assert fresh().packed_state() is None
    assert run.state is not None
    run.state = dict(run.state) | {"counts": np.zeros(2**20 + 1)}
    assert run.packed_state() is None


def text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def listed(head: Any, body: bytes = b"") -> str:
    said = json.dumps(head).encode()
    return text(len(said).to_bytes(4, "little") + said + body)


def numpy_file(**named: Any) -> str:
    file = io.BytesIO()
    np.savez_compressed(file, **named)
    return text(file.getvalue())


GOOD = known(measured())
DATA = zlib.decompress(base64.b64decode(GOOD["state"]))
DEEP = ("[" * 100_000).encode()
STATES: dict[str, Any] = {
    "nothing": None,
    "a number": 7,
    "a list": [1, 2],
    "no text": "",
    "not base64": "?" * 40,
    "beyond ascii": "é" * 40,
    "cut base64": GOOD["state"][:-7],
    "cut to fours": GOOD["state"][: len(GOOD["state"]) // 8 * 4],
    "not zlib": base64.b64encode(b"PK\x03\x04" + bytes(100)).decode(),
    "cut zlib": base64.b64encode(zlib.compress(DATA)[:-5]).decode(),
    "more after it": base64.b64encode(zlib.compress(DATA) + b"more").decode(),
    "a bomb": text(bytes(2**28)),
    "empty": text(b""),
    "three bytes": text(b"abc"),
    "a list that is longer than all": text((2**31).to_bytes(4, "little") + b"[]"),
    "a list without end": text(len(DEEP).to_bytes(4, "little") + DEEP),
    "not a list": listed(5),
    "too few words": listed([["seen"]]),
    "cut arrays": text(DATA[:-1]),
    "more than arrays": text(DATA + b"0"),
    "objects": listed([["seen", "|O", [3]]], bytes(24)),
    "words": listed([["seen", "<U1", [3]]], bytes(12)),
    "a type of types": listed([["seen", [["a", "<i8"]], [3]]], bytes(24)),
    "a shape without end": listed([["seen", "<i8", [2**40, 2**40]]]),
    "a shape below zero": listed([["seen", "<i8", [-3]]], bytes(24)),
    "a shape of halves": listed([["seen", "<i8", [1.5]]], bytes(24)),
    "a shape of many axes": listed([["seen", "<i8", [1] * 100]], bytes(8)),
    "a name of numbers": listed([[1, "<i8", [3]]], bytes(24)),
    "a name twice": listed([["a", "<i8", [1]], ["a", "<i8", [1]]], bytes(16)),
    "numpy's own file": numpy_file(seen=np.array([40, 40, MARK])),
    "no samples": pack({"hits": np.zeros(5, np.uint8)}, 999),
    "two samples": pack({"seen": np.array([40, 40])}, 999),
    "infinitely many samples": pack({"seen": np.array([np.inf, 40, MARK])}, 999),
    "no hits": pack({"seen": np.array([40, 40, MARK])}, 999),
    "too few hits": pack({"seen": np.array([40, 40, MARK]), "hits": np.zeros(4, np.uint8)}, 999),
    "hits below zero": pack(
        {"seen": np.array([40, -40, MARK]), "hits": np.zeros(5, np.uint8)}, 999
    ),
    "hits of floats": pack({"seen": np.array([40, 320, MARK]), "hits": np.zeros(5)}, 999),
    "other samples": pack({"seen": np.array([39, 40, MARK]), "hits": np.zeros(5, np.uint8)}, 999),
    "another stream": pack(
        {"seen": np.array([40, 40, MARK + 1]), "hits": np.zeros(5, np.uint8)}, 999
    ),
}


def refused(said: dict[str, Any]) -> None:
    run = fresh()
    with pytest.raises(InvalidInput) as caught:
        run.resume(said, MARK)
    assert caught.value.hint
    assert (run.seen, run.state, run.sums.samples) == (0, None, 0)
    assert run.hits is not None
    assert run.hits.count == 0


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_none_was_is_refused(name: str) -> None:
    refused(GOOD | {"state": STATES[name]})


def sums(**other: Any) -> dict[str, Any]:
    return GOOD["sums"] | other


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        "sums",
        sums(n=[5.0] * 9),
        sums(n=5.0),
        sums(n=[-40.0, 80.0, *[0.0] * 6]),
        sums(n=[0.5, 39.5, *[0.0] * 6]),
        sums(n=[None, 40.0, *[0.0] * 6]),
        sums(n=["x"] * 8),
        sums(n=[41.0, *[0.0] * 7]),
        sums(d=[[1.0]] * 8),
        sums(l2=[-1.0, *[0.0] * 7]),
        sums(k=None),
        sums(lost=-1),
        sums(gained=None),
        sums(lost="many"),
    ],
)
def test_sums_that_none_were_are_refused(said: Any) -> None:
    refused(GOOD | {"sums": said})


@pytest.mark.parametrize("samples", [39, 41, 0, None, "40", float("nan")])
def test_sums_of_other_samples_are_refused(samples: Any) -> None:
    refused(GOOD | {"samples": samples})
    refused({name: each for name, each in GOOD.items() if name != "samples"})


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_one_wrong_byte_does_no_more_than_be_refused(at: int, wrong: int) -> None:
    data = bytearray(DATA)
    data[at] ^= wrong
    try:
        found = unpack(text(bytes(data)), 999_999)
    except ValueError:
        return
    assert sum(each.nbytes for each in found.values()) <= len(DATA)


@given(
    st.dictionaries(
        st.text(max_size=9),
        arrays.arrays(
            st.sampled_from([np.bool_, np.int8, np.uint8, np.int32, np.int64, np.float64]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        max_size=4,
    )
)
def test_what_was_packed_comes_back(named: dict[str, np.ndarray]) -> None:
    found = unpack(pack(named, 10**6), 10**6)
    assert found.keys() == named.keys()
    for name, each in named.items():
        assert (found[name].dtype, found[name].shape) == (each.dtype, each.shape)
        assert found[name].tobytes() == each.tobytes()


@pytest.mark.parametrize("score", ["answers", "loss"])
def test_a_cell_that_is_known_says_what_searches_ask(score: str) -> None:
    strata = Strata((10, 20, 30, 40, 50, 60, 70, 80), 1.0, score, 0.25 if score == "loss" else 1.0)
    run = fresh()
    assert run.resume_sums({"samples": 360, "sums": None, "drop": 0.125}, strata)
    found = drop_of(strata, run.sums)
    assert found is not None
    assert (found.value, found.low, found.high) == (pytest.approx(0.125),) * 3
    assert (run.settled, run.seen) == (True, 360)
    part = fresh()
    assert not part.resume_sums({"samples": 40, "sums": None, "drop": 0.1}, strata)
    assert not part.settled
    assert part.resume_sums({"samples": 40, "sums": GOOD["sums"], "drop": 0.1}, strata)
    assert part.sums.samples == 40
