"""Suffixes on graphs full of in-place operators and views, where a cache is easily spoilt."""

from __future__ import annotations

import operator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from tests.unit.engine.architectures import ARCHITECTURES, Architecture
from tests.unit.engine.traced import TracedModel, make_split, plain_units
from worker.engine.criteria import Removal
from worker.engine.evaluation import Predictions, first_tensor
from worker.engine.objectives import SingleLabel
from worker.engine.passes import Job, Pass
from worker.engine.pulse import Pulse
from worker.engine.sensitivity import Cell, SensitivityEngine
from worker.engine.suffix import Flow, execute

WIDTH = 4
OPERATORS = {
    "weight": lambda g, a, b, w: g.call_function(torch.mul, (a, w)),
    "linear": lambda g, a, b, w: g.call_function(torch.matmul, (a, w)),
    "module": lambda g, a, b, w: g.call_module(f"layer{w.target[-1]}", (a,)),
    "add": lambda g, a, b, w: g.call_function(torch.add, (a, b)),
    "sigmoid": lambda g, a, b, w: g.call_function(torch.sigmoid, (a,)),
    "relu_": lambda g, a, b, w: g.call_function(torch.relu_, (a,)),
    "add_": lambda g, a, b, w: g.call_method("add_", (a, b)),
    "mul_": lambda g, a, b, w: g.call_method("mul_", (a, 0.5)),
    "iadd": lambda g, a, b, w: g.call_function(operator.iadd, (a, w)),
    "view": lambda g, a, b, w: g.call_method("view", (a, -1, WIDTH)),
    "flip view": lambda g, a, b, w: g.call_method("transpose", (g.call_method("t", (a,)), 0, 1)),
    "half_": lambda g, a, b, w: half(g, a),
    "detached": lambda g, a, b, w: g.call_method("detach", (a,)),
    "clone": lambda g, a, b, w: g.call_function(torch.clone, (a,)),
}


def half(graph: fx.Graph, a: fx.Node) -> fx.Node:
    """Change half of the columns through a view; the result is the whole, changed."""
    parts = graph.call_function(torch.chunk, (a, 2, 1))
    graph.call_method("mul_", (graph.call_function(operator.getitem, (parts, 0)), -0.75))
    return a


@st.composite
def graphs(draw: st.DrawFn) -> TracedModel:
    """Random programs over values of one shape, with any mixture of the operators above."""
    torch.manual_seed(draw(st.integers(0, 3)))
    root = nn.Module()
    for at in range(3):
        root.register_parameter(f"weight{at}", nn.Parameter(torch.randn(WIDTH, WIDTH)))
        root.add_module(f"layer{at}", nn.Linear(WIDTH, WIDTH))
    graph = fx.Graph()
    values = [graph.placeholder("x")]
    # Rows of the batch meet a square weight elementwise, hence batches of WIDTH samples.
    for _ in range(draw(st.integers(2, 12))):
        name = draw(st.sampled_from(sorted(OPERATORS)))
        a, b = (draw(st.sampled_from(values[-5:])) for _ in range(2))
        weight = graph.get_attr(f"weight{draw(st.integers(0, 2))}")
        values.append(OPERATORS[name](graph, a, b, weight))
    last = graph.call_function(torch.add, (values[-1], draw(st.sampled_from(values))))
    graph.output((graph.call_method("clone", (last,)), values[0]))
    graph.lint()
    return TracedModel(fx.GraphModule(root.eval(), graph))


def logits_of(model: TracedModel, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return first_tensor(model.module(inputs.clone()))


@settings(max_examples=150, deadline=None)
@given(model=graphs())
def test_random_graphs_with_writes_and_views_give_the_naive_logits(model: TracedModel) -> None:
    inputs = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(9))
    flow = Flow(model.module, [inputs])
    parameters = dict(model.module.named_parameters())
    suffixes = {key: flow.suffix(weight.detach()) for key, weight in parameters.items()}
    expected = {}
    for key, weight in parameters.items():
        original = weight.detach().clone()
        with torch.no_grad():
            weight[1] = 0.0
            expected[key] = logits_of(model, inputs)
            weight.copy_(original)
    with torch.inference_mode():
        outcome = Outcome(flow, suffixes, parameters)
        outcome.run(inputs.clone())
    assert outcome.logits.keys() == expected.keys()
    for key, logits in outcome.logits.items():
        for round_of_two in logits:
            assert torch.equal(round_of_two, expected[key]), key


class Outcome:
    """Every suffix, twice, at the first moment it may run, while the dense run goes on."""

    def __init__(
        self, flow: Flow, suffixes: dict[str, object], parameters: dict[str, nn.Parameter]
    ) -> None:
        self.flow, self.suffixes, self.parameters = flow, suffixes, parameters
        self.logits: dict[str, list[Tensor]] = {}

    def run(self, inputs: Tensor) -> None:
        registers = self.flow.registers()
        registers[self.flow.inputs[0]] = inputs
        self.at(-1, registers)
        for node in self.flow.prefix([self.flow.output]):
            registers[node] = self.flow.step(node)(registers)
            self.at(node, registers)

    def at(self, node: int, registers: list[object]) -> None:
        for key, suffix in self.suffixes.items():
            if suffix.ready != node:
                continue
            weight = self.parameters[key].detach()
            original = weight.clone()
            weight[1] = 0.0
            for _ in range(2):
                scratch = self.flow.registers()
                for source in suffix.boundary:
                    scratch[source] = registers[source]
                execute(suffix.instructions, scratch)
                self.logits.setdefault(key, []).append(scratch[self.flow.output].clone())
            weight.copy_(original)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_every_sample_has_the_naive_logits(architecture: Architecture) -> None:
    model, split = architecture.model(), architecture.split(20)
    inputs, labels = split.batch(0, 20)
    flow = Flow(model.module, [x[:2] for x in inputs])
    taken: list[Tensor] = []
    for unit in plain_units(model):
        weight = model.module.get_parameter(unit.id).detach()
        rank = torch.arange(weight.numel()).reshape(weight.shape)
        objective = SingleLabel(architecture.classes)
        suffix = flow.suffix(weight)
        job = Job(weight, Removal(rank), suffix, (), (unit.size // 2,), 1.0, objective)
        job.chunks = (job.suffix.instructions,)
        job.tally.judge = lambda logits, *_: taken.append(logits.clone())  # type: ignore
        with torch.inference_mode():
            Pass(flow, [job]).run_batch([x.clone() for x in inputs], labels, None, Pulse(), 1.0)
        original = weight.clone()
        weight.view(-1)[: unit.size // 2] = 0.0
        with torch.no_grad():
            expected = first_tensor(model.module(*[x.clone() for x in inputs]))
        weight.copy_(original)
        assert torch.equal(taken.pop()[0], expected), unit.id


def test_an_input_that_the_network_changes_is_not_changed_for_the_cells() -> None:
    class Impolite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((1, WIDTH), 2.0))
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(self.scale)
            return self.head(x)

    torch.manual_seed(0)
    network = Impolite().eval()
    model = TracedModel(fx.symbolic_trace(network))
    split = make_split([(WIDTH,)], 3 * WIDTH, 3)
    engine = SensitivityEngine(model, split, plain_units(model), batch_size=WIDTH)
    dense: Predictions = engine.predictions()
    results: dict[Cell, int | None] = {}
    engine.run(
        engine.cells([0, 1_000_000]),
        lambda result: results.__setitem__(result.cell, result.evaluation.flips),
    )
    with torch.no_grad():
        bias_only = int(network.head.bias.argmax())
    changed = int((dense.classes != bias_only).sum())
    assert results[Cell("scale", "magnitude", 1_000_000)] == changed
    assert results[Cell("head.weight", "magnitude", 1_000_000)] == changed


def test_preparing_five_hundred_weights_takes_moments() -> None:
    network = nn.Sequential(*[nn.Linear(4, 4) for _ in range(500)])
    model = TracedModel(fx.symbolic_trace(network))
    flow = Flow(model.module, [torch.zeros(2, 4)])
    suffixes = [flow.suffix(network[at].weight.detach()) for at in range(500)]
    assert [len(suffix.instructions) for suffix in suffixes] == list(range(500, 0, -1))
    shared = {id(instruction) for suffix in suffixes for instruction in suffix.instructions}
    assert len(shared) == 500
