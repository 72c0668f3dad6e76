"""Graphs that are better left alone stay as they are, to the bit, and say why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from tests.unit.engine.fast.cells import dense, plain
from tests.unit.engine.networks import canonical, conv_net
from tests.unit.engine.traced import TracedModel, randomise_norms
from worker.engine.fast.accelerate import accelerate, disagreement
from worker.engine.fast.work import Work
from worker.engine.flow_options import FAST, PLAIN
from worker.engine.suffix import Flow

X = (torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


def traced(network: nn.Module) -> TracedModel:
    return TracedModel(fx.symbolic_trace(network.eval()))


def same_bits(model: TracedModel, inputs: tuple[Tensor, ...]) -> Flow:
    flow = Flow(model.module, list(inputs), FAST)
    with torch.no_grad():
        assert torch.equal(
            dense(flow, [x.clone() for x in inputs])[flow.output], plain(model, inputs)
        )
    assert flow.reason is not None
    return flow


def test_hooks() -> None:
    model = traced(conv_net())
    model.module.get_submodule("0").register_forward_hook(lambda m, i, o: o + 1)
    assert "hooks" in (same_bits(model, X).reason or "")


def test_writers_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    assert "in place" in (same_bits(traced(network), X).reason or "")


def test_other_number_types() -> None:
    model = traced(conv_net().double())
    assert "number types" in (same_bits(model, (X[0].double(),)).reason or "")


def test_a_batch_norm_that_uses_the_statistics_of_its_batch() -> None:
    model = traced(conv_net())
    model.module.get_submodule("1").train()
    made = accelerate(model.module, X)
    assert made.module is model.module
    assert "training" in (made.reason or "")


@pytest.mark.parametrize("variance", [0.0, 1e-14, float("inf"), float("nan")])
def test_statistics_out_of_the_ordinary_are_not_folded(variance: float) -> None:
    network = randomise_norms(conv_net())
    network[1].eps = 0.0
    network[1].running_var[0] = variance
    model = traced(network)
    flow = Flow(model.module, list(X), FAST)
    expected = plain(model, X).detach()
    with torch.no_grad():
        found = dense(flow, X)[flow.output]
    assert torch.equal(found.isnan(), expected.isnan())
    finite = expected.isfinite()
    assert torch.allclose(found[finite], expected[finite], rtol=1e-5, atol=1e-5)


def test_weights_of_nan_and_infinity_go_where_they_went() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        network = randomise_norms(conv_net())
        with torch.no_grad():
            network[0].weight[2] = value
        model = traced(network)
        flow = Flow(model.module, list(X), FAST)
        with torch.no_grad():
            found, expected = dense(flow, X)[flow.output], plain(model, X)
        assert torch.equal(found.isfinite(), expected.isfinite())


def test_the_given_graph_is_not_touched(tmp_path: Path) -> None:
    model = canonical(randomise_norms(conv_net(dropout=0.2)), X, tmp_path)
    before = [(n.name, n.op, n.target, n.args) for n in model.module.graph.nodes]
    names = [name for name, _ in model.module.named_modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    accelerate(model.module, X)
    assert [(n.name, n.op, n.target, n.args) for n in model.module.graph.nodes] == before
    assert [name for name, _ in model.module.named_modules()] == names
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())


def test_without_options_no_bit_changes(tmp_path: Path) -> None:
    model = canonical(randomise_norms(conv_net()), X, tmp_path)
    flow = Flow(model.module, list(X), PLAIN)
    with torch.no_grad():
        assert torch.equal(dense(flow, X)[flow.output], plain(model, X))


def test_a_graph_that_came_out_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = traced(randomise_norms(conv_net()))
    watch, seen = Work.watch, []

    def wrong(self: Work, sample: list[Tensor]) -> Tensor:
        seen.append(1)
        found = watch(self, sample)
        return found if len(seen) == 1 else found + 0.01 * (found.max() - found.min())

    monkeypatch.setattr(Work, "watch", wrong)
    made = accelerate(model.module, X)
    assert made.module is model.module
    assert made.difference == pytest.approx(0.01, rel=1e-3)


def test_disagreement_counts_what_is_not_finite() -> None:
    one = torch.tensor([[0.0, 1.0, float("nan")]])
    assert disagreement(one, one) == 0.0
    assert disagreement(torch.tensor([[0.0, 1.1, float("nan")]]), one) == pytest.approx(0.1)
    assert disagreement(torch.tensor([[0.0, float("nan"), 1.0]]), one) == float("inf")
    assert disagreement(one.double(), one) == float("inf")
