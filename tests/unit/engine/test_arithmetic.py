"""What bfloat16 changes, against the whole network run in float32 and by the flow itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from app.domain.errors import Stopped
from tests.unit.engine.traced import TracedModel, plain_units, split_of, trace
from worker.engine import arithmetic
from worker.engine.arithmetic import Arithmetic
from worker.engine.curves import CurveEngine
from worker.engine.flow_options import for_analyses
from worker.engine.formats.splits import Split
from worker.engine.suffix import Flow

SAMPLES = 600


def network(outputs: int = 4) -> TracedModel:
    torch.manual_seed(0)
    return trace(nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, outputs)))


def engine_of(model: TracedModel, split: Split, precision: str = "bfloat16") -> CurveEngine:
    options = for_analyses(precision)  # type: ignore[arg-type]
    return CurveEngine(model, split, plain_units(model), options=options)


def scene(labels: np.ndarray) -> Split:
    x = np.random.default_rng(0).standard_normal((SAMPLES, 6)).astype(np.float32)
    return split_of([x], labels)


def test_answers_that_differ_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "COMPARED", 300)
    model = network()
    # Near ties everywhere, so that rounding turns some.
    with torch.no_grad():
        model.module.get_parameter("2.weight").mul_(0.01)
        model.module.get_parameter("2.bias").zero_().add_(1)
    split = scene(np.random.default_rng(1).integers(0, 4, SAMPLES))
    engine = engine_of(model, split)
    found = engine.arithmetic()
    assert found is not None
    assert (found.used, found.reason) == ("bfloat16", None)
    stream = engine.stream
    assert found.samples in stream.looks
    assert 300 <= found.samples < SAMPLES
    assert found.answers == found.samples
    inputs, labels = stream.split.batch(0, found.samples)
    x = torch.as_tensor(inputs[0])
    with torch.inference_mode():
        plain = model.module(x)
        flow = Flow(model.module, [x[:2]], for_analyses("bfloat16"))
        registers = flow.registers()
        registers[flow.inputs[0]] = x
        for at in flow.prefix([flow.output]):
            registers[at] = flow.step(at)(registers)
    own = registers[flow.output]
    differing = int((plain.argmax(1) != own.argmax(1)).sum())
    assert differing > 0
    assert found.differing == differing
    loss = [
        float(nn.functional.cross_entropy(each, torch.as_tensor(labels))) for each in (own, plain)
    ]
    assert (found.loss, found.loss_float32) == (pytest.approx(loss[0]), pytest.approx(loss[1]))
    assert engine.arithmetic() is found


def test_numbers_have_losses_only() -> None:
    model = network(1)
    split = replace(scene(np.linspace(-1, 1, SAMPLES, dtype=np.float32)), task="regression")
    found = engine_of(model, split).arithmetic()
    assert found is not None
    assert found.differing is None
    assert found.loss != found.loss_float32
    assert found.loss == pytest.approx(found.loss_float32, rel=0.05)


def test_a_network_of_one_batch_size_is_compared_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Unflatten(0, (4, 2)), nn.Flatten(0, 1))
    model = trace(nn.Sequential(net, nn.Linear(64, 4)), fixed_batch=8)
    found = engine_of(model, scene(np.zeros(SAMPLES, np.int64))).arithmetic()
    assert found is not None
    assert found.answers == found.samples == SAMPLES
    assert found.loss == pytest.approx(found.loss_float32, rel=0.05)


def test_float32_has_nothing_to_compare() -> None:
    split = scene(np.zeros(SAMPLES, np.int64))
    assert engine_of(network(), split, "float32").arithmetic() is None


def test_where_bfloat16_is_not_used_there_is_a_reason() -> None:
    model = network()
    model.module.get_submodule("1").register_forward_hook(lambda *_: None)
    found = engine_of(model, scene(np.zeros(SAMPLES, np.int64))).arithmetic()
    assert found == Arithmetic("float32", "It has hooks.")


def test_it_stops() -> None:
    engine = engine_of(network(), scene(np.zeros(SAMPLES, np.int64)))
    engine.predictions()
    with pytest.raises(Stopped):
        engine.arithmetic(lambda: True)
