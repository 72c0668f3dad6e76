"""Strangers' networks: the canonical form is theirs, bit for bit, whatever they are made of."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.engine.breadth.attention import ATTENTION
from tests.unit.engine.breadth.oddities import ODDITIES
from tests.unit.engine.breadth.recurrent import RECURRENT
from tests.unit.engine.exports import DYNAMIC, STATIC, STATIC_ONE, answer, export
from worker.engine.formats.pt2 import load_model
from worker.engine.graph import CanonicalModel

NETWORKS = {**RECURRENT.networks, **ATTENTION.networks, **ODDITIES.networks}
CASES = [(name, way) for name in NETWORKS for way in (DYNAMIC, STATIC)]
CASES += [
    (name, STATIC_ONE) for name in (*RECURRENT.networks, "bags", "causal", "relative", "indexed")
]
Loaded = tuple[nn.Module, tuple[Tensor, ...], CanonicalModel]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    made: dict[tuple[str, str], Loaded] = {}

    def load(name: str, way: str = DYNAMIC) -> Loaded:
        if (name, way) not in made:
            net, inputs = NETWORKS[name]()
            path: Path = tmp_path_factory.mktemp("models") / "m.pt2"
            with warnings.catch_warnings():
                # torch.export warns of the flat weights of its own recurrent layers.
                warnings.simplefilter("ignore")
                export(net, inputs, path, way)
            made[name, way] = net, inputs, load_model(path, "pt2")
        return made[name, way]

    return load


def ours(model: CanonicalModel, inputs: tuple[Tensor, ...]) -> Tensor:
    """Kernels may differ between gradients on and off; both sides have them off."""
    with torch.no_grad():
        return model.module(*inputs)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_answers_at_every_batch_size_equal_the_source(loaded, name: str, way: str) -> None:
    net, inputs, model = loaded(name, way)
    assert model.fixed_batch is None
    assert torch.equal(ours(model, inputs), answer(net, inputs))
    for size in (1, 2, 7):
        given = tuple(torch.cat([t, t, t])[1 : 1 + size].clone() for t in inputs)
        assert torch.equal(ours(model, given), answer(net, given)), size
    assert [spec.shape for spec in model.inputs] == [(None, *t.shape[1:]) for t in inputs]


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_order_strides_and_sharing_are_the_users(loaded, name: str) -> None:
    net, _, model = loaded(name)
    own, found = net.state_dict(keep_vars=True), model.state_dict()
    assert list(found) == list(own) == list(model.module.state_dict())
    for key, tensor in own.items():
        assert torch.equal(found[key], tensor), key
        assert (found[key].dtype, found[key].stride()) == (tensor.dtype, tensor.stride()), key
        assert isinstance(found[key], nn.Parameter) == isinstance(tensor, nn.Parameter), key
    shared = {(a, b) for a in own for b in own if own[a] is own[b]}
    assert {(a, b) for a in found for b in found if found[a] is found[b]} == shared


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_source(loaded, name: str) -> None:
    net, inputs, model = loaded(name)
    own, twin = copy.deepcopy(net), copy.deepcopy(model.module)
    output = own(*inputs)
    scores = output["logits"] if isinstance(output, dict) else output
    scores.float().square().sum().backward()
    twin(*inputs).float().square().sum().backward()
    found = dict(twin.named_parameters())
    for key, parameter in own.named_parameters():
        gradient = found[key].grad
        assert (gradient is None) == (parameter.grad is None), key
        if gradient is not None:
            loose = 1e-2 if parameter.dtype is torch.float16 else 1e-4
            assert torch.allclose(gradient, parameter.grad, loose, loose * 1e-2), key


@pytest.mark.parametrize("name", RECURRENT.networks)
def test_recurrent_layers_are_modules_at_the_users_paths(loaded, name: str) -> None:
    net, _, model = loaded(name)
    called = {str(n.target) for n in model.module.graph.nodes if n.op == "call_module"}
    for path, module in net.named_modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            assert path in called
            found = model.module.get_submodule(path)
            assert repr(found) == repr(module)
            assert list(found.state_dict()) == list(module.state_dict())


@pytest.mark.parametrize("name", ["lstm", "gru", "activations", "cells", "convnext", "bags"])
def test_training_mode_is_that_of_the_source(loaded, name: str) -> None:
    """With the same seed, dropout between recurrent layers drops the same entries."""
    net, inputs, model = loaded(name)
    own, twin = copy.deepcopy(net).train(), copy.deepcopy(model.module).train()
    with torch.no_grad():
        torch.manual_seed(5)
        expected = own(*inputs)
        torch.manual_seed(5)
        assert torch.equal(twin(*inputs), expected)
    drops = name in ("lstm", "gru", "activations")
    assert torch.equal(expected, answer(net, inputs)) == (not drops)


@pytest.mark.parametrize("name", ["lstm", "gru", "encoder", "multi_head", "causal", "activations"])
def test_exports_made_in_training_mode_come_out_the_same(name: str, tmp_path: Path) -> None:
    net, inputs = NETWORKS[name]()
    expected = answer(net, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = export(net.train(), inputs, tmp_path / "m.pt2")
    model = load_model(path, "pt2")
    assert torch.equal(ours(model, inputs), expected)
    assert list(model.state_dict()) == list(net.state_dict())
    torch.manual_seed(5)
    model.train_mode(True)
    assert not torch.equal(ours(model, inputs), expected)


def test_weights_loaded_into_a_recurrent_layer_are_the_ones_it_runs_with(loaded) -> None:
    net, inputs, model = loaded("lstm")
    twin, other = copy.deepcopy(model.module), copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-0.5)
    twin.load_state_dict(other.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(twin(*inputs), answer(other, inputs))
        twin.get_parameter("rnn.weight_hh_l1").zero_()
        assert not torch.equal(twin(*inputs), answer(other, inputs))
        assert torch.equal(ours(model, inputs), answer(net, inputs))


def test_recurrent_layers_are_counted_with_their_outputs(loaded) -> None:
    """5 steps; weights of 4 or 3 gates from 4 features, and from 6 of the state."""
    _, _, model = loaded("states")
    layers = {layer.path: layer for layer in model.layers}
    second = 4 * 6 * (12 + 6) * 2
    assert layers["lstm"].macs == 5 * (4 * 6 * (4 + 6) * 2 + second)
    assert layers["gru"].macs == 5 * 3 * 6 * (4 + 6)
    assert layers["lstm"].output_shape == (None, 5, 12)
    assert layers["gru"].output_shape == (None, 5, 6)
