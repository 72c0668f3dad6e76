"""Ways of exporting and calling: batch second, states as inputs, free sizes, odd names, depth."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.domain.errors import UnsupportedOperator
from tests.unit.engine.breadth.oddities import ODDITIES
from tests.unit.engine.exports import answer
from worker.engine.canonical import recurrence
from worker.engine.formats.pt2 import load_model
from worker.engine.graph import CanonicalModel
from worker.engine.units import NORM, weight_units

AUTO = torch.export.Dim.AUTO


def loaded(
    net: nn.Module, inputs: tuple[Tensor, ...], folder: Path, shapes: Any = None, **more: Any
) -> CanonicalModel:
    path = folder / "m.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net.eval(), inputs, dynamic_shapes=shapes, **more)
        torch.export.save(program, str(path))
    return load_model(path, "pt2")


def same(model: CanonicalModel, given: tuple[Tensor, ...], expected: Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(model.module(*given), expected)


class BatchSecond(nn.Module):
    """[time, batch, features] to [batch, classes], or to classes at every time."""

    def __init__(self, every: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.every = every
        self.rnn = nn.LSTM(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rnn(x)[0]
        return self.head(x if self.every else x[-1])


@pytest.mark.parametrize("times", [5, 3])
@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("every", [True, False])
def test_a_batch_on_the_second_axis_comes_first(
    every: bool, free: bool, times: int, tmp_path: Path
) -> None:
    net, x = BatchSecond(every), torch.randn(times, 3, 4)
    model = loaded(net, (x,), tmp_path, ({1: AUTO},) if free else None)
    assert model.fixed_batch is None
    assert [spec.shape for spec in model.inputs] == [(None, times, 4)]
    for size in (1, 3, 7):
        x = torch.randn(times, size, 4)
        expected = answer(net, (x,))
        expected = expected.transpose(0, 1) if every else expected
        assert same(model, (x.transpose(0, 1).contiguous(),), expected)


class GivenState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(4, 6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.head(self.rnn(x, state)[0][:, -1])


@pytest.mark.parametrize("free", [True, False])
def test_a_state_that_is_an_input_has_its_samples_first(free: bool, tmp_path: Path) -> None:
    net, inputs = GivenState(), (torch.randn(3, 5, 4), torch.randn(2, 3, 6))
    model = loaded(net, inputs, tmp_path, ({0: AUTO}, {1: AUTO}) if free else None)
    assert model.fixed_batch is None
    assert [spec.shape for spec in model.inputs] == [(None, 5, 4), (None, 2, 6)]
    x, state = torch.randn(7, 5, 4), torch.randn(2, 7, 6)
    given = (x, state.transpose(0, 1).contiguous())
    assert same(model, given, answer(net, (x, state)))


class OneState(nn.Module):
    """A learned state for one sample: torch itself runs this network with one sample only."""

    def __init__(self) -> None:
        super().__init__()
        self.state = nn.Parameter(torch.randn(1, 1, 6))
        self.rnn = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x, (self.state, self.state))[0][:, -1]


def test_a_state_for_one_sample_is_never_run_with_more(tmp_path: Path) -> None:
    """ATen would read past the end of the state, and write past the end of its memory."""
    model = loaded(OneState(), (torch.randn(1, 5, 4),), tmp_path)
    assert model.fixed_batch == 1
    with pytest.raises(RuntimeError, match="hidden"), torch.no_grad():
        model.module(torch.randn(3, 5, 4))


def lstm_arguments() -> tuple[Tensor, list[Tensor], list[Tensor]]:
    weights = [torch.randn(24, 4), torch.randn(24, 6), torch.randn(24), torch.randn(24)]
    return torch.randn(3, 5, 4), [torch.zeros(1, 3, 6), torch.zeros(1, 3, 6)], weights


def broken_state(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> None:
    states[0] = torch.zeros(1, 1, 6)


def broken_cell(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> None:
    states[1] = torch.zeros(1, 2, 6)


def broken_weight(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> None:
    weights[1] = torch.randn(24, 2)


def broken_bias(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> None:
    weights[3] = torch.randn(6)


def missing_weight(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> None:
    weights.pop()


def other_type(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> None:
    weights[0] = weights[0].double()


BREAKS = [broken_state, broken_cell, broken_weight, broken_bias, missing_weight, other_type]


@pytest.mark.parametrize("spoil", BREAKS)
def test_recurrent_operators_with_sizes_that_do_not_fit_are_not_run(
    spoil: Callable[..., None],
) -> None:
    x, states, weights = lstm_arguments()
    settings = (True, 1, 0.0, False, False, True)
    expected = torch.ops.aten.lstm.input(x, states, weights, *settings)
    for one, other in zip(recurrence.lstm(x, states, weights, *settings), expected, strict=True):
        assert torch.equal(one, other)
    spoil(x, states, weights)
    with pytest.raises(ValueError, match="recurrent layer"):
        recurrence.lstm(x, states, weights, *settings)


class Called(nn.Module):
    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)
        self.run = forward

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        return self.run(self, *args, **kwargs)


def test_recurrent_weights_that_are_computed_stay_functional(tmp_path: Path) -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weights = nn.ParameterList([torch.randn(18, 4), torch.randn(18, 6)])

        def forward(self, x: Tensor) -> Tensor:
            weights = [torch.tanh(w) for w in self.weights]
            state = x.new_zeros(1, x.shape[0], 6)
            return torch.gru(x, state, weights, False, 1, 0.0, False, False, True)[0][:, -1]

    net, x = Computed(), torch.randn(3, 5, 4)
    model = loaded(net, (x,), tmp_path, ({0: AUTO},))
    assert recurrence.gru in {node.target for node in model.module.graph.nodes}
    assert same(model, (x,), answer(net, (x,)))
    assert [layer.macs for layer in model.layers if layer.macs] == [5 * 18 * (4 + 6)]


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, scale: Tensor, mask: Tensor) -> Tensor:
        return self.fc(x) * scale * mask


def test_inputs_given_by_keyword(tmp_path: Path) -> None:
    net, x = Keywords(), torch.randn(3, 4)
    by_name = {"scale": torch.randn(3, 1), "mask": torch.rand(3, 4) > 0.5}
    shapes = {"x": {0: AUTO}, "scale": {0: AUTO}, "mask": {0: AUTO}}
    model = loaded(net, (x,), tmp_path, shapes, kwargs=by_name)
    assert [spec.name for spec in model.inputs] == ["x", "scale", "mask"]
    assert model.fixed_batch is None
    assert same(model, (x, *by_name.values()), net(x, **by_name))


class PlacesFromMask(nn.Module):
    """A word's place is the number of words before it; there are six places (OPT)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(9, 4), nn.Embedding(6, 4)

    def forward(self, words: Tensor, marks: Tensor) -> Tensor:
        return self.words(words) + self.places(marks.cumsum(1) * marks)


@pytest.mark.parametrize("name", ["mask", "marks"])
@pytest.mark.parametrize("free", [True, False])
def test_masks_of_whole_numbers_need_not_be_indices(name: str, free: bool, tmp_path: Path) -> None:
    class Named(PlacesFromMask):
        def forward(self, words: Tensor, mask: Tensor) -> Tensor:
            return super().forward(words, mask)

    net = Named() if name == "mask" else PlacesFromMask()
    inputs = (torch.randint(0, 6, (3, 5)), torch.ones(3, 5, dtype=torch.int64))
    model = loaded(net, inputs, tmp_path, ({0: AUTO}, {0: AUTO}) if free else None)
    assert model.fixed_batch is None
    assert same(model, inputs, answer(net, inputs))


@pytest.mark.parametrize("strict", [True, False])
def test_named_and_several_free_sizes(strict: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    )
    batch = torch.export.Dim("batch", min=2, max=64)
    height, width = torch.export.Dim("height", min=8, max=99), torch.export.Dim("width", min=8)
    shapes = ({0: batch, 2: height, 3: width},)
    model = loaded(net, (torch.randn(3, 3, 12, 10),), tmp_path, shapes, strict=strict)
    assert model.inputs[0].shape == (None, 3, None, None)
    for shape in ((1, 3, 12, 10), (5, 3, 9, 17)):
        x = torch.randn(shape)
        assert same(model, (x,), answer(net, (x,)))


def test_free_lengths_of_sequences(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words = nn.Embedding(9, 4)
            self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.layer(self.words(tokens)))

    net = Net()
    model = loaded(net, (torch.randint(0, 9, (3, 5)),), tmp_path, ({0: AUTO, 1: AUTO},))
    assert model.inputs[0].shape == (None, None)
    for shape in ((2, 8), (7, 1)):
        tokens = torch.randint(0, 9, shape)
        assert same(model, (tokens,), answer(net, (tokens,)))


def test_outputs_of_several_kinds(tmp_path: Path) -> None:
    x = torch.randn(3, 4)
    nested = Called(lambda net, x: {"aux": (x.argmax(1), [x]), "logits": net.fc(x)})
    assert same(loaded(nested, (x,), tmp_path), (x,), x)
    flat = Called(lambda net, x: {"features": x, "pred": net.fc(x)})
    assert same(loaded(flat, (x,), tmp_path), (x,), flat.fc(x))
    several = Called(lambda net, x: (x.argmax(1), net.fc(x), x))
    assert same(loaded(several, (x,), tmp_path), (x,), several.fc(x))


def test_autocast_that_is_on_is_refused(tmp_path: Path) -> None:
    def forward(net: Called, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net.fc(x)

    with pytest.raises(UnsupportedOperator, match="wrap_with_autocast") as caught:
        loaded(Called(forward), (torch.randn(3, 4),), tmp_path)
    assert "outside of torch.autocast" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout])
def test_dropout_in_place(kind: type[nn.Module], tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), kind(0.3, inplace=True), nn.Flatten())
    x = torch.randn(3, 2, 6, 6)
    model = loaded(net, (x,), tmp_path, ({0: AUTO},))
    assert type(model.module.get_submodule("1")) is kind
    assert same(model, (x,), answer(net, (x,)))
    model.train_mode(True)
    assert not same(model, (x,), answer(net, (x,)))


def test_spectral_norm_exported_in_training_says_what_to_do(tmp_path: Path) -> None:
    net, inputs = ODDITIES.networks["spectral_normed"]()
    net.train()
    program = torch.export.export(net, inputs)
    torch.export.save(program, str(tmp_path / "m.pt2"))
    with pytest.raises(UnsupportedOperator, match="parametrizations") as caught:
        load_model(tmp_path / "m.pt2", "pt2")
    assert "model.eval()" in (caught.value.hint or "")


def test_parameters_of_norms_are_never_pruned_whatever_their_axes(tmp_path: Path) -> None:
    net, inputs = ODDITIES.networks["norms_of_two_axes"]()
    found = {unit.id: unit for unit in weight_units(loaded(net, inputs, tmp_path))}
    for key in ("norm.weight", "norm.bias", "rms.weight"):
        assert (found[key].prunable, found[key].reason) == (False, NORM)
    assert found["head.weight"].prunable

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(4, 6))
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(nn.functional.layer_norm(x, (4, 6), self.scale)).mean(1)

    found = {u.id: u for u in weight_units(loaded(Functional(), inputs, tmp_path))}
    assert (found["scale"].prunable, found["scale"].reason) == (False, NORM)


def test_odd_names_and_deep_nesting(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: nn.Module = nn.Linear(4, 4)
    for depth in range(25):
        net = nn.ModuleDict({f"step {depth}": net}) if depth % 5 else nn.Sequential(net, nn.ReLU())

    class Walk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.root = net

        def forward(self, x: Tensor) -> Tensor:
            for module in self.root.modules():
                x = module(x) if isinstance(module, (nn.Linear, nn.ReLU)) else x
            return x

    walk, x = Walk(), torch.randn(3, 4)
    model = loaded(walk, (x,), tmp_path, ({0: AUTO},))
    assert list(model.state_dict()) == list(walk.state_dict())
    assert same(model, (x,), answer(walk, (x,)))


def test_three_hundred_layers_are_read_in_seconds(tmp_path: Path) -> None:
    blocks = [m for _ in range(150) for m in (nn.Linear(16, 16), nn.LayerNorm(16), nn.ReLU(True))]
    net, x = nn.Sequential(*blocks, nn.Linear(16, 3)), torch.randn(3, 16)
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(net.eval(), (x,)), str(path))
    began = time.process_time()
    model = load_model(path, "pt2")
    assert time.process_time() - began < 15
    assert len(model.layers) == 301
    assert same(model, (x,), answer(net, (x,)))
