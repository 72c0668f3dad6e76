"""How the engine goes about it: order, reports, stops, and what it does not compute."""

from __future__ import annotations

import gc
import time
import weakref

import pytest
import torch
from torch import Tensor, nn

from app.domain.errors import Stopped
from tests.unit.engine.architectures import BY_NAME
from tests.unit.engine.traced import TracedModel, make_split, plain_units, trace
from worker.engine import passes
from worker.engine.passes import pass_length
from worker.engine.sensitivity import Cell, CellResult, SensitivityEngine

LEVELS = [100_000, 300_000, 500_000, 700_000, 900_000]


def make_engine(model: TracedModel, split: object, **options: int) -> SensitivityEngine:
    return SensitivityEngine(model, split, plain_units(model), **options)  # type: ignore[arg-type]


def state(model: TracedModel) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def unchanged(model: TracedModel, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def chain(depth: int, width: int = 8) -> TracedModel:
    torch.manual_seed(0)
    return trace(nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)]))


def test_coarse_levels_of_all_units_come_first() -> None:
    model = BY_NAME["resnet"].model()
    engine = make_engine(model, BY_NAME["resnet"].split(12))
    reported: list[CellResult] = []
    engine.run(list(reversed(engine.cells(LEVELS))), reported.append)
    units = [unit.id for unit in plain_units(model) if unit.prunable]
    order = [500_000, 900_000, 100_000, 300_000, 700_000]
    assert [(result.cell.level, result.cell.unit) for result in reported] == [
        (level, unit) for level in order for unit in units
    ]


def test_several_passes_report_as_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "PASS_SECONDS", 0.0)
    model, split = chain(12), make_split([(8,)], 64, 8)
    engine = make_engine(model, split, batch_size=16)
    starts: list[int] = []
    model.module.get_submodule("0").register_forward_pre_hook(lambda *_: starts.append(1))
    reported: list[tuple[int, CellResult]] = []
    engine.run(engine.cells(LEVELS), lambda result: reported.append((len(starts), result)))
    moments = sorted({moment for moment, _ in reported})
    assert len(moments) > 2
    assert len({result.cell for _, result in reported}) == 60


def test_pass_lengths_keep_the_prefix_small_and_the_wait_short() -> None:
    quick = 2.0**-7
    assert pass_length([quick] * 1000, 0.001, 5) == 512
    assert pass_length([quick] * 1000, 0.001, 0) == 128
    assert pass_length([1.0] * 1000, 2.0, 5) == 18
    assert pass_length([1.0] * 1000, 2.0, 0) == 6
    assert pass_length([quick] * 520, 0.001, 5) == 520
    assert pass_length([0.01] * 3, 0.001, 5) == 3
    assert pass_length([100.0, 100.0], 0.001, 5) == 1
    assert pass_length([0.0, 0.0], 0.0, 0) == 2


def test_only_what_depends_on_a_weight_runs_again() -> None:
    depth, samples, batch = 6, 40, 20
    model, split = chain(depth), make_split([(8,)], samples, 8)
    runs = [0] * depth
    for at in range(depth):

        def count(*_: object, at: int = at) -> None:
            runs[at] += 1

        model.module.get_submodule(str(at)).register_forward_pre_hook(count)
    engine = make_engine(model, split, batch_size=batch)
    engine.baseline()
    runs[:] = [0] * depth
    engine.run(engine.cells(LEVELS), lambda _: None)
    batches = samples // batch
    cells = [batches * len(LEVELS) * (at + 1) for at in range(depth)]
    prefix = [batches if at < depth - 1 else 0 for at in range(depth)]
    assert runs == [c + p for c, p in zip(cells, prefix, strict=True)]


def test_equal_counts_are_measured_once_and_nothing_removed_not_at_all() -> None:
    model, split = trace(nn.Linear(2, 2)), make_split([(2,)], 10, 2)
    runs: list[int] = []
    model.module.register_forward_pre_hook(lambda *_: runs.append(1))
    engine = make_engine(model, split)
    engine.baseline()
    levels = [0, 1, 100_000, 240_000, 260_000, 500_000]
    reported: list[CellResult] = []
    engine.run(engine.cells(levels), reported.append)
    by_level = {result.cell.level: result for result in reported}
    assert [by_level[level].removed for level in levels] == [0, 0, 0, 1, 1, 2]
    assert by_level[100_000].evaluation == engine.baseline()
    assert by_level[240_000].evaluation == by_level[260_000].evaluation


def test_memory_is_one_batch_of_live_values_however_deep_the_network() -> None:
    class Watched(nn.Module):
        alive: set[int]

        def forward(self, x: Tensor) -> Tensor:
            result = x * 1.0001 + 0.5
            token = id(result)
            Watched.alive.add(token)
            Watched.most = max(Watched.most, len(Watched.alive))
            weakref.finalize(result, Watched.alive.discard, token)
            return result

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.watch = nn.Linear(6, 6), Watched()

        def forward(self, x: Tensor) -> Tensor:
            return self.watch(self.linear(x))

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
            return isinstance(m, (Watched, nn.Linear))

    Watched.alive, Watched.most = set(), 0
    network = nn.Sequential(*[Layer() for _ in range(30)]).eval()
    model = TracedModel(torch.fx.GraphModule(network, Tracer().trace(network)))
    engine = make_engine(model, make_split([(6,)], 200, 6), batch_size=20)
    engine.baseline()
    gc.collect()
    Watched.most = len(Watched.alive)
    engine.run(engine.cells(LEVELS), lambda _: None)
    assert Watched.most <= 5
    gc.collect()
    assert not Watched.alive


def test_a_stop_comes_through_quickly_and_leaves_the_weights_alone() -> None:
    model = BY_NAME["resnet"].model()
    engine = make_engine(model, BY_NAME["resnet"].split(2000), batch_size=50)
    engine.baseline()
    before = state(model)
    asked: list[float] = []
    began = time.monotonic()

    def should_stop() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 3

    with pytest.raises(Stopped):
        engine.run(engine.cells(range(1000, 900_000, 10_000)), lambda _: None, should_stop)
    assert unchanged(model, before)
    assert len(asked) == 4
    assert max(b - a for a, b in zip([began, *asked], asked, strict=False)) < 1.0
    done: list[CellResult] = []
    engine.run([Cell("0.weight", "magnitude", 500_000)], done.append)
    assert len(done) == 1


@pytest.mark.parametrize("fault", ["report", "forward", "progress"])
def test_weights_are_restored_whatever_goes_wrong(fault: str) -> None:
    model, split = BY_NAME["resnet"].model(), BY_NAME["resnet"].split(30)
    engine = make_engine(model, split, batch_size=10)
    engine.baseline()
    before = state(model)

    def fail(*_: object) -> None:
        raise RuntimeError(fault)

    if fault == "forward":
        calls: list[int] = []

        def late(*_: object) -> None:
            calls.append(1)
            if len(calls) == 9:
                fail()

        engine = make_engine(model, split, batch_size=10)
        model.module.get_submodule("8").register_forward_hook(late)
    with pytest.raises(RuntimeError, match=fault):
        engine.run(
            engine.cells(LEVELS),
            fail if fault == "report" else lambda _: None,
            None,
            fail if fault == "progress" else None,  # type: ignore[arg-type]
        )
    assert unchanged(model, before)
    assert all(parameter.requires_grad for parameter in model.module.parameters())


def test_progress_rises_to_one_and_tells_what_is_left() -> None:
    model, split = chain(20), make_split([(8,)], 400, 8)
    engine = make_engine(model, split, batch_size=20)
    assert engine.remaining_seconds is None
    told: list[float] = []
    engine.run(engine.cells(LEVELS), lambda _: None, None, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert engine.remaining_seconds == pytest.approx(0.0, abs=1e-6)


def test_nothing_to_measure_is_done_at_once() -> None:
    engine = make_engine(chain(2), make_split([(8,)], 4, 8))
    told: list[float] = []
    engine.run([], lambda _: pytest.fail("nothing to report"), None, told.append)
    assert told[-1] == 1.0


def test_threads_hold_for_the_call_only() -> None:
    before = torch.get_num_threads()
    seen: set[int] = set()
    model = chain(2)
    model.module.get_submodule("0").register_forward_pre_hook(
        lambda *_: seen.add(torch.get_num_threads())
    )
    engine = make_engine(model, make_split([(8,)], 4, 8), batch_size=4, threads=2)
    engine.baseline()
    assert 2 in seen
    assert torch.get_num_threads() == before


def test_a_network_in_training_is_measured_in_evaluation_and_goes_back() -> None:
    model, split = BY_NAME["plain-cnn"].model(), BY_NAME["plain-cnn"].split(20)
    expected = make_engine(model, split).baseline()
    statistics = state(model)
    model.train_mode(True)
    assert make_engine(model, split).baseline() == expected
    assert model.module.training
    assert unchanged(model, statistics)
