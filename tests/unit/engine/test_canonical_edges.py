"""What the zoo does not cover: writes that can't be followed, batches that can't be changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.domain.errors import InvalidFile, UnsupportedOperator
from tests.unit.engine.exports import DYNAMIC, STATIC, WAYS, answer, export
from tests.unit.engine.models import ZOO
from worker.engine.canonical.modules import ScaledDotProductAttention
from worker.engine.formats.pt2 import load_model
from worker.engine.graph import CanonicalModel
from worker.engine.operators import ALLOWED, SYMBOLIC, resolve


def loaded(net: nn.Module, *inputs: Tensor, folder: Path, way: str = DYNAMIC) -> CanonicalModel:
    return load_model(export(net, inputs, folder / "m.pt2", way), "pt2")


def network(forward) -> nn.Module:
    """A small network with one linear layer `fc` (4 to 4) and this forward function."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("count", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)

    torch.manual_seed(0)
    return Net().eval()


def test_every_operator_on_the_list_exists() -> None:
    for target in [*ALLOWED, *SYMBOLIC]:
        assert callable(resolve(target, ""))
    for target in ALLOWED:
        assert not resolve(target, "")._schema.is_mutable or "batch_norm" in target, target


def write_then_read_the_view(net: nn.Module, x: Tensor) -> Tensor:
    x = net.fc(x)
    left, right = x[:, :2], x[:, 2:]
    x.mul_(3)
    return torch.cat([right, left], dim=1)


def write_a_view_then_read_the_whole(net: nn.Module, x: Tensor) -> Tensor:
    x = net.fc(x)
    x.t()[1].add_(x[:, 0])
    x.unsqueeze(1).transpose(1, 2)[:, 2:].zero_()
    return x


def write_twice_through_different_views(net: nn.Module, x: Tensor) -> Tensor:
    x = net.fc(x).clone()
    even, tail = x[:, ::2], x[:, 1:]
    even += 1
    tail *= even.sum(dim=1, keepdim=True)
    even.neg_()
    return x + tail.sum(dim=1, keepdim=True)


def write_a_lower_precision(net: nn.Module, x: Tensor) -> Tensor:
    x = net.fc(x)
    low = x.to(torch.float16) + 0
    low.add_(x)
    return low.float()


def write_the_input(net: nn.Module, x: Tensor) -> Tensor:
    x.relu_()
    return net.fc(x) + x


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "forward",
    [
        write_then_read_the_view,
        write_a_view_then_read_the_whole,
        write_twice_through_different_views,
        write_a_lower_precision,
        write_the_input,
    ],
)
def test_writes_are_seen_through_every_view(forward, way: str, tmp_path: Path) -> None:
    net, x = network(forward), torch.randn(3, 4)
    model = loaded(net, x.clone(), folder=tmp_path, way=way)
    assert torch.equal(model.module(x.clone()), answer(net, (x.clone(),)))
    if forward is not write_then_read_the_view:
        before = x.clone()
        model.module(x)
        assert torch.equal(x, before)


def count_calls(net: nn.Module, x: Tensor) -> Tensor:
    net.count.add_(1)
    return net.fc(x) + net.count


def write_through_a_reshape(net: nn.Module, x: Tensor) -> Tensor:
    x = net.fc(x)
    torch.flatten(x.unsqueeze(2), 1).relu_()
    return x


@pytest.mark.parametrize(
    ("forward", "words"),
    [(count_calls, "it changes count"), (write_through_a_reshape, "shares its memory")],
)
def test_writes_that_cannot_be_followed_are_refused(forward, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match=words) as caught:
        loaded(network(forward), torch.randn(3, 4), folder=tmp_path)
    assert "the network's own forward function" in caught.value.message


@pytest.mark.parametrize("way", [DYNAMIC, STATIC])
def test_a_network_that_mixes_its_samples_keeps_its_batch_size(way: str, tmp_path: Path) -> None:
    net = network(lambda net, x: net.fc(x).softmax(dim=0))
    x = torch.randn(3, 4)
    model = loaded(net, x, folder=tmp_path, way=way)
    assert model.fixed_batch == 3
    assert torch.equal(model.module(x), answer(net, (x,)))


def test_a_batch_size_that_equals_other_sizes(tmp_path: Path) -> None:
    """Batch 3 in a network full of threes: channels, height, width, heads."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = x.view(3, 3, 3, 4).permute(1, 0, 2, 3).reshape(9, 3, 4)
        x = net.fc(x).view(3, 3, 3, 4).transpose(0, 1).reshape(3, 9, 4)
        x = torch.cat([x, torch.zeros(3, 1, 4)], dim=1)
        return (x.mean(1) * torch.ones(4).expand(3, 4)).view(3, 4)

    net = network(forward)
    x = torch.randn(3, 9, 4)
    model = loaded(net, x, folder=tmp_path, way=STATIC)
    assert model.fixed_batch is None
    assert torch.equal(model.module(x), answer(net, (x,)))
    many = torch.randn(6, 9, 4)
    expected = torch.cat([answer(net, (many[:3],)), answer(net, (many[3:],))])
    assert torch.allclose(model.module(many), expected, atol=1e-6)


def test_outputs_that_are_no_answers(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="not one answer for each sample"):
        loaded(network(lambda net, x: net.fc(x).sum()), torch.randn(3, 4), folder=tmp_path)
    with pytest.raises(InvalidFile, match="not a tensor of numbers"):
        loaded(network(lambda net, x: net.fc(x).argmax(1)), torch.randn(3, 4), folder=tmp_path)


def test_the_first_output_counts_and_logits_before_it(tmp_path: Path) -> None:
    x = torch.randn(3, 4)
    first = network(lambda net, x: (net.fc(x), x))
    assert torch.equal(loaded(first, x, folder=tmp_path).module(x), first.fc(x))
    named = network(lambda net, x: {"features": x, "logits": net.fc(x)})
    assert torch.equal(loaded(named, x, folder=tmp_path).module(x), named.fc(x))


def test_inputs_without_a_common_batch_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return x @ table

    path = tmp_path / "m.pt2"
    export(Two(), (torch.randn(3, 4), torch.randn(4, 2)), path, STATIC)
    with pytest.raises(InvalidFile, match="first axis of every input"):
        load_model(path, "pt2")


def test_attention_dropout_of_training_exports_is_off_in_evaluation(tmp_path: Path) -> None:
    net, inputs = ZOO["vision_transformer"]()
    expected = answer(net, inputs)
    model = load_model(export(net.train(), inputs, tmp_path / "m.pt2"), "pt2")
    assert torch.equal(model.module(*inputs), expected)
    modules = [m for m in model.module.modules() if isinstance(m, ScaledDotProductAttention)]
    assert [m.dropout_p for m in modules] == [0.1]
    assert list(model.state_dict()) == list(net.state_dict())
    model.train_mode(True)
    assert not torch.equal(model.module(*inputs), expected)


@pytest.mark.parametrize("way", [DYNAMIC, STATIC])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_keep_their_keys(kind, way: str, tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(4, 6, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
            self.head = nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    net, x = Recurrent().eval(), torch.randn(3, 5, 4)
    model = loaded(net, x, folder=tmp_path, way=way)
    assert model.fixed_batch is None
    assert list(model.state_dict()) == list(net.state_dict())
    assert torch.equal(model.module(x), answer(net, (x,)))
    assert torch.allclose(model.module(x[:1]), answer(net, (x[:1],)), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet_b", "conv1d", "torch_transformer", "in_place", "tied"])
@pytest.mark.parametrize("form", ["decomposed", "functional", "strict"])
def test_other_forms_of_programs(name: str, form: str, tmp_path: Path) -> None:
    """Programs lowered with run_decompositions, or traced strictly, have the same keys."""
    net, inputs = ZOO[name]()
    shapes = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    program = torch.export.export(net, inputs, dynamic_shapes=shapes, strict=form == "strict")
    if form != "strict":
        program = program.run_decompositions(None if form == "decomposed" else {})
    torch.export.save(program, str(tmp_path / "m.pt2"))
    model = load_model(tmp_path / "m.pt2", "pt2")
    with torch.no_grad():
        assert torch.equal(model.module(*inputs), program.module()(*inputs))
    assert list(model.state_dict()) == list(net.state_dict())


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    net[0].weight.requires_grad_(False)
    model = loaded(net, torch.randn(3, 3), folder=tmp_path)
    state = model.state_dict()
    assert [state[k].requires_grad for k in state] == [False, True, True, True]


def test_no_source_lines_or_paths_remain(tmp_path: Path) -> None:
    net, inputs = ZOO["resnet_a"]()
    model = load_model(export(net, inputs, tmp_path / "m.pt2"), "pt2")
    for node in model.module.graph.nodes:
        assert set(node.meta) <= {"path", "type"}
        assert ".py" not in str(node.meta)
    assert functional.__file__ not in model.module.code
