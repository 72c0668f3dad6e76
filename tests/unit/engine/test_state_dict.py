"""Files of weights: each way people save them, against `torch.load` and what was saved."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from app.domain.errors import InvalidFile, UnsafeFile
from tests.unit.engine.archives import Bomb, entries_of, pack
from worker.engine.formats.models import open_model
from worker.engine.formats.state_dict import StateDict, read_state_dict


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def read(path: Path, value: Any, *, zipped: bool = True) -> StateDict:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return read_state_dict(path, "pth")


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """The same keys in the same order with the same bits."""
    return list(found) == list(expected) and all(
        found[key].dtype == value.dtype
        and found[key].shape == value.shape
        and found[key].contiguous().flatten().view(torch.uint8).tolist()
        == value.detach().contiguous().flatten().view(torch.uint8).tolist()
        for key, value in expected.items()
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("half", [None, torch.float16, torch.bfloat16, torch.float64])
def test_a_plain_state_dict(tmp_path: Path, zipped: bool, half: torch.dtype | None) -> None:
    state = net().to(half).state_dict() if half else net().state_dict()
    file = read(tmp_path / "a.pth", state, zipped=zipped)
    assert same(file.load(), state)
    theirs = torch.load(tmp_path / "a.pth", weights_only=True)
    assert same(file.load(), theirs)
    assert (file.nested_under, file.key_prefix, file.notes) == (None, "", [])
    assert file.numel == sum(tensor.numel() for tensor in state.values())


def test_safetensors(tmp_path: Path) -> None:
    state = net().half().state_dict()
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    file = read_state_dict(tmp_path / "a.safetensors", "safetensors")
    found = file.load()
    assert same({key: found[key] for key in state}, state)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "name",
    ["state_dict", "model_state_dict", "model", "net", "network", "module", "ema", "my_weights"],
)
def test_each_nesting(tmp_path: Path, name: str, zipped: bool) -> None:
    network = net()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    state = network.state_dict()
    value = {
        "epoch": 3,
        "best_acc": np.float64(0.5),
        "best": torch.tensor(0.5),
        "arch": "resnet",
        "args": argparse.Namespace(lr=0.1),
        "optimizer": optimizer.state_dict(),
        name: state,
    }
    file = read(tmp_path / "a.pth", value, zipped=zipped)
    assert file.nested_under == name
    assert same(file.load(), state)
    assert any(f"'{name}'" in note for note in file.notes)
    assert any("epoch, best_acc, best, arch, args, optimizer" in note for note in file.notes)


def test_of_several_the_preferred_one_is_taken_and_said(tmp_path: Path) -> None:
    state, other = net().state_dict(), {"w": torch.ones(3)}
    file = read(tmp_path / "a.pth", {"ema": other, "model": state, "zzz": dict(other)})
    assert file.nested_under == "model"
    assert any("not taken: 'ema', 'zzz'" in note for note in file.notes)
    deep = read(tmp_path / "b.pth", {"checkpoint": {"model": state}, "step": 1})
    assert deep.nested_under == "checkpoint.model"
    assert same(deep.load(), state)


def test_the_weights_may_stand_beside_scalars(tmp_path: Path) -> None:
    state = net().state_dict()
    file = read(tmp_path / "a.pth", {**state, "epoch": 4, "note": "x"})
    assert file.nested_under is None
    assert same(file.load(), state)
    assert any("epoch, note" in note for note in file.notes)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
def test_prefixes_of_all_keys(tmp_path: Path, prefix: str) -> None:
    state = net().state_dict()
    file = read(tmp_path / "a.pth", {prefix + key: value for key, value in state.items()})
    assert file.key_prefix == prefix
    assert same(file.load(), state)
    assert any(repr(prefix) in note for note in file.notes)
    some = {f"module.{key}" if key.startswith("0") else key: v for key, v in state.items()}
    assert read(tmp_path / "b.pth", some).key_prefix == ""


def test_names_of_one_tensor_stay_names_of_one_tensor(tmp_path: Path) -> None:
    weight = torch.randn(4, 4)
    file = read(tmp_path / "a.pth", {"a": weight, "b": torch.ones(2), "c": weight})
    found = file.load()
    assert found["a"] is found["c"]
    assert file.numel == 18


def test_slices_transposes_and_parameters(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "first": base[:2],
        "last": base[2:],
        "turned": torch.randn(3, 5).t(),
        "parameter": nn.Parameter(torch.randn(2, 2)),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(4),
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    found = read(tmp_path / "a.pth", value).load()
    assert same(found, value)
    assert isinstance(found["parameter"], nn.Parameter)


def test_changing_what_was_read_leaves_the_file_alone(tmp_path: Path) -> None:
    state = {"w": torch.ones(3_000_000)}
    path = tmp_path / "a.pth"
    torch.save(state, path)
    before = path.read_bytes()
    read_state_dict(path, "pth").load()["w"].fill_(7)
    assert path.read_bytes() == before
    assert bool((read_state_dict(path, "pth").load()["w"] == 1).all())


# --- what is refused ----------------------------------------------------------------------------


def test_nothing_is_called(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for zipped in (True, False):
        with pytest.raises(UnsafeFile, match="asks for"):
            read(tmp_path / "a.pth", {"w": torch.ones(1), "x": Bomb(marker)}, zipped=zipped)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: {"w": torch.ones(1).expand(1 << 40)}, "same memory for several"),
        (lambda: {"w": torch.ones(2, 2).to_sparse()}, "sparse tensor"),
        (
            lambda: {"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)},
            "quantised tensor",
        ),
        (lambda: {"w": torch.ones(2).to(torch.float8_e4m3fn)}, "float8_e4m3fn"),
        (lambda: overlapping(), "overlap in memory"),
        (lambda: torch.ones(3), "single tensor"),
        (lambda: [torch.ones(3)], "no state_dict"),
        (lambda: {"epoch": 3}, "holds no weights"),
        (lambda: {"a\nb": torch.ones(3)}, "printable"),
        (lambda: {"x" * 600: torch.ones(3)}, "printable"),
    ],
)
def test_odd_values_are_refused_with_a_sentence(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(InvalidFile, match=words) as caught:
        read(tmp_path / "a.pth", value())
    assert caught.value.message.endswith(".")
    assert caught.value.hint


def overlapping() -> dict[str, Tensor]:
    base = torch.randn(10)
    return {"a": base[:6], "b": base[4:]}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InvalidFile):
        open_model(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    weights = torch.full((64,), 1.5)
    torch.save({"w": weights}, path)
    raw = bytearray(path.read_bytes())
    raw[raw.find(weights.numpy().tobytes())] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InvalidFile, match="checksum"):
        read_state_dict(path, "pth").load()


def with_pickle(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """The archive at `path` with another data.pkl."""
    entries = entries_of(path)
    name = next(name for name in entries if name.endswith("data.pkl"))
    entries[name] = change(entries[name])
    return pack(path, entries)


@pytest.mark.parametrize(("was", "claimed"), [(b"KF", b"KG"), (b"KF", b"J\x00\x00\x00\x40")])
def test_a_storage_smaller_than_its_pickle_says(tmp_path: Path, was: bytes, claimed: bytes) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(70)}, path)
    # The first 70 is the storage's size, the second the tensor's.
    with_pickle(path, lambda pickle: pickle.replace(was, claimed, 1))
    with pytest.raises(InvalidFile, match=r"claims .* bytes, the file holds 280"):
        read_state_dict(path, "pth")
    torch.save({"w": torch.ones(70)}, path)
    with_pickle(path, lambda pickle: claimed.join(pickle.rsplit(was, 1)))
    with pytest.raises(InvalidFile, match=r"claims .* numbers, its bytes hold 70"):
        read_state_dict(path, "pth")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=5))
def test_changed_pickles_are_read_or_refused(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    def change(pickle: bytes) -> bytes:
        raw = bytearray(pickle)
        for at, value in changes:
            raw[at % len(raw)] = value
        return bytes(raw)

    for zipped in (True, False):
        path = tmp_path / "a.pth"
        torch.save({"a": torch.ones(3, 4), "n": 3}, path, _use_new_zipfile_serialization=zipped)
        if zipped:
            with_pickle(path, change)
        else:
            path.write_bytes(change(path.read_bytes()))
        try:
            found = read_state_dict(path, "pth").load()
        except InvalidFile:
            continue
        assert sum(t.numel() * t.element_size() for t in found.values()) <= path.stat().st_size


@pytest.mark.parametrize(
    ("pickle", "words"),
    [
        (b"\x80\x02" + b"(" * 300_000 + b".", "too many values"),
        (b"\x80\x02K\x01" + b"2" * 10 + b".", "instruction DUP"),
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.", "asks for 'os.system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.", "asks for 'os.system'"),
        (b"(S'echo'\nios\nsystem\n.", "instruction INST"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01R.", "no function"),
        (b"\x80\x02X\xff\xff\xff\x7fab.", "can't be read"),
        (b"\x80\x02}" + b"(K\x01K\x02u" * 10 + b"s.", "lacks what it works on"),
        (b"\x80\x02}q\x00]q\x01h\x05.", "lacks what it works on"),
        (b"\x80\x02N", "can't be read"),
        (b"", "can't be read"),
    ],
)
def test_pickles_written_by_hand(tmp_path: Path, pickle: bytes, words: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(InvalidFile, match=words):
        read_state_dict(with_pickle(path, lambda _: pickle), "pth")


def test_tuples_of_tuples_cost_nothing(tmp_path: Path) -> None:
    """Sixty tuples, each of the one before it twice: hashing or printing it would never end."""
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(2)}, path)
    bomb = b"\x80\x02}N" + b"q\x00h\x00\x86" * 60 + b"K\x01s."
    start = time.perf_counter()
    with pytest.raises(InvalidFile, match="holds no weights"):
        read_state_dict(with_pickle(path, lambda _: bomb), "pth")
    assert time.perf_counter() - start < 1


def test_one_mapping_under_many_names_is_looked_at_once(tmp_path: Path) -> None:
    inner = {str(at): at for at in range(3000)}
    middle = {str(at): inner for at in range(3000)}
    start = time.perf_counter()
    with pytest.raises(InvalidFile, match="holds no weights"):
        read(tmp_path / "a.pth", {str(at): middle for at in range(3000)})
    assert time.perf_counter() - start < 5


# --- a look without the network -----------------------------------------------------------------


def test_weights_alone_get_a_look(tmp_path: Path) -> None:
    state = net().state_dict()
    state["0.weight"][0] = 0
    state["0.bias"][0] = float("nan")
    state["3.bias"][:2] = float("inf")
    torch.save(
        {"state_dict": {"module." + key: value for key, value in state.items()}}, tmp_path / "a"
    )
    opened = open_model(tmp_path / "a")
    assert (opened.model, opened.derived, opened.format) == (None, None, "pth")
    assert opened.details["kind"] == "weights"
    assert opened.details["nested_under"] == "state_dict"
    assert opened.details["key_prefix"] == "module."
    assert any("not an analysis" in note for note in opened.details["notes"])
    rows = {row["key"]: row for row in opened.details["weights"]}
    assert list(rows) == list(state)
    row, values = rows["0.weight"], state["0.weight"].double().numpy().ravel()
    assert (row["shape"], row["dtype"], row["numel"]) == ([4, 3, 3, 3], "float32", 108)
    assert (row["zeros"], row["nan"], row["inf"]) == (27, 0, 0)
    for name, function in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        assert row[name] == pytest.approx(function(values), rel=1e-4, abs=1e-7)
    counts, _ = np.histogram(values, 40, (values.min(), values.max()))
    assert sum(row["histogram"]["counts"]) == 108
    assert np.abs(np.array(row["histogram"]["counts"]) - counts).sum() <= 2
    for percent, threshold in row["thresholds"].items():
        removed = round(int(percent) / 100 * 108)
        assert int((np.abs(values) <= threshold * (1 + 1e-5)).sum()) >= removed
        assert int((np.abs(values) < threshold * (1 - 1e-5)).sum()) < max(removed, 1)
    assert rows["0.bias"]["nan"] == 1
    assert rows["3.bias"]["inf"] == 2
    assert rows["1.num_batches_tracked"]["thresholds"] is None
    totals = opened.details["totals"]
    assert totals["tensors"] == len(state)
    assert totals["numel"] == sum(value.numel() for value in state.values())


def test_the_look_at_four_hundred_tensors_is_small(tmp_path: Path) -> None:
    torch.save({f"layer.{at}.weight": torch.randn(20, 20) for at in range(400)}, tmp_path / "a")
    details = open_model(tmp_path / "a").details
    assert len(json.dumps(details, allow_nan=False)) < 1_000_000
