"""Files of torch.save whose tensors lie about size, place and strides, in both of its forms."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.attacks import exported, kit, pickles, zips
from tests.unit.engine.archives import WEIGHTS

NUMBERS = 12
FORMS = ["zip", "before zips", "old pt2"]


def number(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def row(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", size: int = NUMBERS, kind: str = "FloatStorage") -> bytes:
    parts = (pickles.text("storage"), pickles.name("torch", kind), pickles.text(key),
             pickles.text("cpu"), number(size))  # fmt: skip
    return b"(" + b"".join(parts) + b"tQ"


def tensor(
    shape: tuple[int, ...] = (4, 3), strides: tuple[int, ...] = (3, 1), offset: int = 0,
    where: bytes | None = None,
) -> bytes:  # fmt: skip
    hooks = pickles.name("collections", "OrderedDict") + b")R"
    where = storage() if where is None else where
    arguments = (where, number(offset), row(shape), row(strides), b"\x89", hooks)
    return pickles.called("torch._utils", "_rebuild_tensor_v2", *arguments)


def state_dict(*tensors: bytes) -> bytes:
    pairs = (pickles.text(f"{n}.weight") + each for n, each in enumerate(tensors))
    return b"}(" + b"".join(pairs) + b"u"


def written(folder: Path, body: bytes, form: str, data: bytes = bytes(4 * NUMBERS)) -> Path:
    path = folder / "evil.pth"
    whole = pickles.whole(body)
    if form == "before zips":
        keys = pickle.dumps(["0"], 2)
        start = pickles.saved_before_zips(body)
        start = start[: start.index(whole)] + whole + keys
        path.write_bytes(start + (len(data) // 4).to_bytes(8, "little") + data)
        return path
    top = {"a/data.pkl": whole, "a/data/0": data, "a/version": b"3\n", "a/byteorder": b"little"}
    saved = zips.archive(zips.members(top))
    if form == "old pt2":
        entries = exported.sound()
        entries.pop(WEIGHTS)
        return exported.written(folder, entries | {"m/data/weights/model.pt": saved})
    path.write_bytes(saved)
    return path


LIES = {
    "a terabyte": ((1 << 20, 1 << 20), (1 << 20, 1), 0),
    "stride 0": ((1 << 30, 3), (0, 1), 0),
    "strides 0": ((1 << 30, 1 << 30), (0, 0), 0),
    "entries that overlap": ((6, 6), (1, 1), 0),
    "a negative stride": ((4, 3), (-3, 1), 9),
    "a negative size": ((-4, 3), (3, 1), 0),
    "a negative offset": ((4, 3), (3, 1), -12),
    "an offset by one": ((4, 3), (3, 1), 1),
    "an offset that overflows": ((4, 3), (3, 1), (1 << 62) - 1),
    "a product of 0 in 64 bits": ((1 << 32, 1 << 32), (1 << 32, 1), 0),
    "an extent that overflows": ((3, 3), ((1 << 61) + 1, 1), 0),
    "numbers beyond 64 bits": ((1 << 70, 1), (1, 1), 0),
    "a hundred axes": ((1,) * 100, (1,) * 100, 0),
    "100,000 axes": ((2,) * 100_000, (1,) * 100_000, 0),
    "fewer strides": ((4, 3), (3,), 0),
    "more strides": ((4, 3), (3, 1, 1), 0),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies(tmp_path: Path, canary: kit.Canary, form: str, lie: str) -> None:
    path = written(tmp_path, state_dict(tensor(*LIES[lie])), form)
    kit.refused(kit.read_model(path), "", canary, memory_bytes=100 * kit.MIB)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lie", [
    storage(size=13), storage(size=0), storage(size=-1), storage(size=1 << 40),
    storage(size=1 << 62), storage(kind="DoubleStorage"), storage(kind="UntypedStorage"),
    storage(kind="QUInt8Storage"), storage(key="1"), storage(key="../../data/0"),
    storage(key="/etc/passwd"), storage(key=""), storage()[:-1], pickles.text("storage") + b"Q",
    b"NQ", b")Q",
])  # fmt: skip
def test_a_storage_that_lies(tmp_path: Path, canary: kit.Canary, form: str, lie: bytes) -> None:
    path = written(tmp_path, state_dict(tensor(where=lie)), form)
    kit.refused(kit.read_model(path), "", canary, memory_bytes=100 * kit.MIB)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_that_overlap(tmp_path: Path, canary: kit.Canary, form: str) -> None:
    path = written(tmp_path, state_dict(tensor(), tensor((4, 2), (2, 1), 1)), form)
    kit.refused(kit.read_model(path), "overlap in memory", canary)


@pytest.mark.parametrize("form", ["zip", "before zips"])
def test_without_lies_it_is_read(tmp_path: Path, form: str) -> None:
    outcome = kit.read_model(written(tmp_path, state_dict(tensor()), form))
    kit.harmless(outcome)
    assert outcome.value["details"]["kind"] == "weights"


@pytest.mark.parametrize("form", ["zip", "before zips"])
def test_without_strides_the_sizes_are_counted(
    tmp_path: Path, canary: kit.Canary, form: str
) -> None:
    """The oldest way to say a tensor; its strides follow from 100,000 sizes of 2^62."""
    shape = row(((1 << 62) - 1,) * 100_000)
    for function in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        body = pickles.called("torch._utils", function, storage(), number(0), shape)
        path = written(tmp_path, state_dict(body), form)
        kit.refused(kit.read_model(path), "", canary, seconds=5)
