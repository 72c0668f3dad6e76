"""The canonical form is the user's network: same answers bit for bit, same keys, both modes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.engine.exports import DYNAMIC, WAYS, answer, export
from tests.unit.engine.models import ZOO
from worker.engine.formats.pt2 import load_model
from worker.engine.graph import CanonicalModel

Loaded = tuple[nn.Module, tuple[Tensor, ...], CanonicalModel]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    made: dict[tuple[str, str], Loaded] = {}

    def load(name: str, way: str = DYNAMIC) -> Loaded:
        if (name, way) not in made:
            net, inputs = ZOO[name]()
            folder: Path = tmp_path_factory.mktemp("models")
            made[name, way] = (
                net,
                inputs,
                load_model(export(net, inputs, folder / "m.pt2", way), "pt2"),
            )
        net, inputs, model = made[name, way]
        return net, inputs, copy_of(model)

    return load


def copy_of(model: CanonicalModel) -> CanonicalModel:
    return CanonicalModel(
        copy.deepcopy(model.module),
        model.inputs,
        model.layers,
        model.fixed_batch,
        tuple(model.state_dict()),
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ZOO)
def test_answers_equal_the_source_bit_for_bit(loaded, name: str, way: str) -> None:
    net, inputs, model = loaded(name, way)
    assert torch.equal(model.module(*inputs), answer(net, inputs))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ZOO)
def test_any_batch_size_works(loaded, name: str, way: str) -> None:
    net, inputs, model = loaded(name, way)
    assert model.fixed_batch is None
    for size in (1, 2, 7):
        given = tuple(torch.cat([t, t, t])[1 : 1 + size] for t in inputs)
        assert torch.equal(model.module(*given), answer(net, given))
    assert [spec.shape for spec in model.inputs] == [(None, *t.shape[1:]) for t in inputs]
    assert [spec.dtype for spec in model.inputs] == [t.dtype for t in inputs]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ZOO)
def test_keys_order_shapes_dtypes_and_sharing_are_the_users(loaded, name: str, way: str) -> None:
    net, _, model = loaded(name, way)
    own, ours = net.state_dict(keep_vars=True), model.state_dict()
    assert list(ours) == list(own)
    assert list(model.module.state_dict()) == list(own)
    for key, tensor in own.items():
        assert torch.equal(ours[key], tensor), key
        assert (ours[key].dtype, ours[key].stride()) == (tensor.dtype, tensor.stride()), key
        assert isinstance(ours[key], nn.Parameter) == isinstance(tensor, nn.Parameter), key
        assert ours[key].requires_grad == tensor.requires_grad, key
    shared = {(a, b) for a in own for b in own if own[a] is own[b]}
    assert {(a, b) for a in ours for b in ours if ours[a] is ours[b]} == shared
    first = {key: next(k for k in own if own[k] is own[key]) for key in own}
    assert dict(model.tied) == {key: name for key, name in first.items() if key != name}


@pytest.mark.parametrize("name", ZOO)
def test_weights_go_both_ways_strictly(loaded, name: str) -> None:
    net, inputs, model = loaded(name)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.25)
    model.module.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(model.module(*inputs), answer(other, inputs))
    back = copy.deepcopy(net)
    back.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(answer(back, inputs), answer(other, inputs))


@pytest.mark.parametrize("name", ZOO)
def test_weighted_layers_are_modules_at_the_users_paths(loaded, name: str) -> None:
    net, _, model = loaded(name)
    called = {str(n.target) for n in model.module.graph.nodes if n.op == "call_module"}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    kinds += (nn.ConvTranspose3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)
    kinds += (nn.GroupNorm, nn.RMSNorm, nn.Embedding, nn.PReLU, nn.Bilinear)
    stay_functional = {"functional_parameters": {"std"}, "tied": {"unused"}}
    for path, module in net.named_modules():
        attention = "self_attn" in path
        if isinstance(module, kinds) and list(module.state_dict()) and not attention:
            if path in stay_functional.get(name, set()):
                assert path not in called
                continue
            assert path in called, path
            assert type(model.module.get_submodule(path)) is type(module), path


@pytest.mark.parametrize("name", ZOO)
def test_training_mode_brings_dropout_and_batch_statistics_back(loaded, name: str) -> None:
    net, inputs, model = loaded(name)
    dropout = any(
        isinstance(m, (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)) for m in net.modules()
    ) or name in ("functional_parameters",)
    tracking = [m for m in net.modules() if getattr(m, "running_mean", None) is not None]
    before = answer(net, inputs)
    model.train_mode(True)
    trained = model.module(*inputs)
    assert torch.equal(trained, before) == (not dropout and not tracking)
    for path, module in model.module.named_modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            assert int(module.num_batches_tracked) == 8, path
    if tracking and not dropout:
        same = copy.deepcopy(net).train()
        assert torch.equal(trained, answer(same, inputs))
        for key, tensor in same.state_dict().items():
            assert torch.equal(model.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", ZOO)
def test_gradients_reach_the_same_parameters_as_in_the_source(loaded, name: str) -> None:
    net, inputs, model = loaded(name)
    own = copy.deepcopy(net)
    output = own(*inputs)
    scores = output["logits"] if isinstance(output, dict) else output
    scores.float().square().sum().backward()
    model.module(*inputs).float().square().sum().backward()
    ours = dict(model.module.named_parameters())
    for key, parameter in own.named_parameters():
        gradient = ours[key].grad
        assert (gradient is None) == (parameter.grad is None), key
        if gradient is not None:
            assert torch.allclose(gradient.float(), parameter.grad.float(), 1e-4, 1e-6), key


@pytest.mark.parametrize("name", ZOO)
def test_nothing_writes_in_place(loaded, name: str) -> None:
    _, inputs, model = loaded(name)
    given = [tensor.clone() for tensor in inputs]
    for node in model.module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        assert schema is None or not schema.is_mutable, node
    model.module(*given)
    assert all(torch.equal(a, b) for a, b in zip(given, inputs, strict=True))


@pytest.mark.parametrize("name", ["mlp", "resnet_a", "unet", "functional_parameters", "conv3d"])
def test_exports_made_in_training_mode_come_out_the_same(name: str, tmp_path: Path) -> None:
    net, inputs = ZOO[name]()
    expected = answer(net, inputs)
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    model = load_model(export(net.train(), inputs, tmp_path / "m.pt2"), "pt2")
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state)
    assert torch.equal(model.module(*inputs), expected)


def test_a_copy_keeps_every_key_and_shares_nothing(loaded) -> None:
    _, inputs, model = loaded("tied")
    twin = copy_of(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert dict(twin.tied) == dict(model.tied)
    before = model.module(*inputs)
    with torch.no_grad():
        for parameter in twin.module.parameters():
            parameter.zero_()
    assert torch.equal(model.module(*inputs), before)
    assert not torch.equal(twin.module(*inputs), before)
