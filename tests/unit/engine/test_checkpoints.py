"""What is downloaded loads strictly in the user's own code and is what was promised."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.unit.engine.networks import Tied, canonical, conv_net
from worker.engine.formats.checkpoints import (
    copy_state,
    pruned_state,
    replacing,
    write_masks,
    write_pth,
    write_recipe,
    write_safetensors,
)
from worker.engine.masks import MaskSet
from worker.engine.units import weight_units


def _pruned_by_hand(weight: Tensor, sparsity: float) -> Tensor:
    """Zero the smallest entries one at a time."""
    flat = weight.detach().clone().reshape(-1)
    for _ in range(round(sparsity * flat.numel())):
        alive = torch.where(flat == 0, torch.inf, flat.abs())
        flat[int(alive.argmin())] = 0
    return flat.reshape(weight.shape)


def test_both_formats_load_strictly_with_the_same_zeros(tmp_path: Path) -> None:
    user = conv_net()
    model = canonical(conv_net(), (torch.zeros(2, 1, 8, 8),), tmp_path)
    plan = {"0.weight": 0.5, "8.weight": 0.9}
    masks = MaskSet.from_plan(model, weight_units(model), plan)
    state = pruned_state(model, masks)
    write_safetensors(state, tmp_path / "w.safetensors")
    write_pth(state, tmp_path / "w.pth")
    expected = user.state_dict()
    for key, sparsity in plan.items():
        expected[key] = _pruned_by_hand(expected[key], sparsity)
    for loaded in (
        load_file(tmp_path / "w.safetensors"),
        torch.load(tmp_path / "w.pth", weights_only=True),
    ):
        assert loaded.keys() == expected.keys()
        for key, tensor in expected.items():
            assert loaded[key].dtype == tensor.dtype
            assert torch.equal(loaded[key], tensor)
        own = conv_net(seed=9)
        own.load_state_dict(loaded, strict=True)
    # The model itself stayed dense.
    assert torch.equal(model.state_dict()["8.weight"], user.state_dict()["8.weight"])


def test_pth_keeps_the_order_of_keys(tmp_path: Path) -> None:
    state = {key: torch.zeros(2) for key in ("z", "a", "m.x")}
    write_pth(state, tmp_path / "w.pth")
    assert list(torch.load(tmp_path / "w.pth", weights_only=True)) == ["z", "a", "m.x"]


def test_tied_weights_survive(tmp_path: Path) -> None:
    model = canonical(Tied(), (torch.zeros(2, 5, dtype=torch.int64),), tmp_path)
    units = weight_units(model)
    unit = next(u for u in units if "embedding.weight" in u.members)
    assert set(unit.members) == {"embedding.weight", "head.weight"}
    state = pruned_state(model, MaskSet.from_plan(model, units, {unit.id: 0.25}))
    write_pth(state, tmp_path / "w.pth")
    write_safetensors(state, tmp_path / "w.safetensors")
    shared = torch.load(tmp_path / "w.pth", weights_only=True)
    assert shared["embedding.weight"].data_ptr() == shared["head.weight"].data_ptr()
    apart = load_file(tmp_path / "w.safetensors")
    user = Tied()
    assert list(shared) == list(user.state_dict())
    for loaded in (shared, apart):
        assert loaded.keys() == user.state_dict().keys()
        user.load_state_dict(loaded, strict=True)
        assert user.head.weight is user.embedding.weight
        assert int((user.head.weight == 0).sum()) == 18
        assert int(loaded["calls"]) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        "turned": torch.arange(6).reshape(2, 3).t().to(dtype),
        "scalar": torch.tensor(5).to(dtype),
        "empty": torch.zeros(0, 4).to(dtype),
        "slice": torch.arange(20).to(dtype)[4:9],
    }
    write_safetensors(state, tmp_path / "w.safetensors")
    write_pth(state, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size < 10_000
    for loaded in (
        load_file(tmp_path / "w.safetensors"),
        torch.load(tmp_path / "w.pth", weights_only=True),
    ):
        for key, tensor in state.items():
            assert loaded[key].dtype is dtype
            assert torch.equal(loaded[key], tensor)


def test_result_names_hash_and_size_and_bytes_repeat(tmp_path: Path) -> None:
    state = conv_net().state_dict()
    for write, name in ((write_safetensors, "w.safetensors"), (write_pth, "w.pth")):
        first = write(state, tmp_path / name)
        second = write(state, tmp_path / f"other-{name}")
        content = (tmp_path / name).read_bytes()
        assert first.bytes == len(content)
        assert first.sha256 == hashlib.sha256(content).hexdigest()
        assert second.sha256 == first.sha256


def test_masks_are_bools_keyed_like_the_weights(tmp_path: Path) -> None:
    model = canonical(conv_net(), (torch.zeros(2, 1, 8, 8),), tmp_path)
    masks = MaskSet.from_plan(model, weight_units(model), {"8.weight": 0.75})
    write_masks(masks, tmp_path / "masks.safetensors")
    loaded = load_file(tmp_path / "masks.safetensors")
    weight = conv_net().state_dict()["8.weight"]
    assert list(loaded) == ["8.weight"]
    assert loaded["8.weight"].dtype is torch.bool
    assert torch.equal(loaded["8.weight"], _pruned_by_hand(weight, 0.75) != 0)


def test_recipe_is_json_and_refuses_what_json_has_not(tmp_path: Path) -> None:
    write_recipe({"name": "größer", "sparsity": 0.5}, tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text("utf-8")
    assert json.loads(text) == {"name": "größer", "sparsity": 0.5}
    assert "größer" in text
    with pytest.raises(ValueError, match="JSON compliant"):
        write_recipe({"loss": float("nan")}, tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text("utf-8") == text


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing(tmp_path / "w") as part:
            part.write_text("new, but only half")
            raise RuntimeError("half")

    (tmp_path / "w").write_text("old")
    with pytest.raises(RuntimeError, match="half"):
        write_half()
    assert (tmp_path / "w").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_copies_share_among_themselves_only() -> None:
    module = nn.Linear(3, 3)
    state = {"a": module.weight.data, "b": module.weight.data, "c": module.weight.data.t()}
    copies = copy_state(state)
    copies["a"][0, 0] = 7
    assert copies["b"][0, 0] == 7
    assert copies["c"][0, 0] != 7
    assert module.weight[0, 0] != 7
