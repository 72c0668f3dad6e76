"""The fast flow against the whole network run with the same weights, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.benchmarks import analysis_networks
from tests.matrix.examine import export
from tests.matrix.own_networks import OWN
from tests.matrix.registry import Entry, samples_like
from tests.unit.engine.architectures import ARCHITECTURES, Architecture
from tests.unit.engine.fast.cells import apart, pruned
from worker.engine.batches import load_batch
from worker.engine.flow_options import FAST, FlowOptions
from worker.engine.formats.pt2 import load_model
from worker.engine.graph import CanonicalModel
from worker.engine.suffix import Flow

ROUNDING = 3e-6
BFLOAT16 = FlowOptions("bfloat16", fuse=True)
BFLOAT16_ROUNDING = 0.05
TIMED = ("digits", "resnet18", "lstm", "vit6", "bert12")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same_answers(found: Tensor, expected: Tensor) -> bool:
    """Whether every answer is the same; a near tie in the network itself may fall either way."""
    if expected.dim() < 2 or expected.shape[-1] < 2:
        return True
    top = expected.topk(2, dim=-1).values
    clear = (top[..., 0] - top[..., 1]) > 1e-5 * (expected.max() - expected.min())
    return bool((found.argmax(-1) == expected.argmax(-1))[clear].all())


def sample_of(model: CanonicalModel, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [x if model.fixed_batch else x[:2] for x in inputs]


@pytest.mark.parametrize("name", TIMED)
def test_the_networks_that_are_timed(name: str) -> None:
    samples = 16
    if name == "digits":
        model, split = analysis_networks.digits()
    else:
        model, split = getattr(analysis_networks, name)(samples)
    inputs = load_batch(model, split, 0, samples)[0]
    flow = Flow(model.module, sample_of(model, inputs), FAST)
    assert flow.reason is None
    for key, found, expected in pruned(model, flow, inputs):
        assert apart(found, expected) < ROUNDING, key
        assert same_answers(found, expected), key


@pytest.mark.parametrize("entry", OWN.entries, ids=lambda e: e.name)
def test_networks_as_people_write_them(entry: Entry, tmp_path: Path) -> None:
    made = entry.make()
    export(made, tmp_path / "model.pt2")
    model = load_model(tmp_path / "model.pt2", "pt2")
    model.train_mode(False)
    inputs = samples_like(made.inputs, model.fixed_batch or 5)
    flow = Flow(model.module, sample_of(model, inputs), FAST)
    assert flow.reason is None or entry.name == "bfloat16"
    for key, found, expected in pruned(model, flow, inputs):
        assert apart(found, expected) < ROUNDING, key
        assert same_answers(found, expected), key
    half = Flow(model.module, sample_of(model, inputs), BFLOAT16)
    for key, found, expected in pruned(model, half, inputs):
        assert apart(found, expected) < BFLOAT16_ROUNDING, key


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_traced_networks_with_writes_in_place(architecture: Architecture) -> None:
    model, split = architecture.model(), architecture.split(8)
    inputs = split.batch(0, 8)[0]
    flow = Flow(model.module, [x[:2] for x in inputs], FAST)
    for key, found, expected in pruned(model, flow, inputs):
        assert apart(found, expected) < ROUNDING, key
        if flow.reason is not None:
            assert torch.equal(found, expected), key


@pytest.mark.parametrize("name", ["resnet18", "vit6", "lstm"])
def test_bfloat16_is_near_and_gives_float32(name: str) -> None:
    model, split = getattr(analysis_networks, name)(16)
    inputs = load_batch(model, split, 0, 16)[0]
    flow = Flow(model.module, sample_of(model, inputs), BFLOAT16)
    assert flow.reason is None
    for key, found, expected in pruned(model, flow, inputs):
        # Eight bits of mantissa: one in 256 for a number, more for what many of them make.
        assert 1e-5 < apart(found, expected) < BFLOAT16_ROUNDING, key
