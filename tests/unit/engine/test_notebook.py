"""Studies in a notebook: the figures of the user's own module, pruned and run by hand."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from app.domain.errors import InvalidInput
from tests.unit.engine.naive import smallest_removed
from tests.unit.engine.networks import conv_net
from tests.unit.engine.traced import randomise_norms
from worker.engine import Point, Sensitivity
from worker.engine.recalibration import calibration_rows

SPARSITIES = (0.2, 0.5, 0.9)
UNITS = ("0.weight", "3.weight", "8.weight")


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    return x, torch.randint(0, 10, (count,), generator=generator)


def learnt(net: nn.Module, count: int, seed: int) -> TensorDataset:
    """Samples whose labels the network mostly gets right, so that pruning has something to lose."""
    x, y = samples(count, seed)
    with torch.no_grad():
        answers = net(x).argmax(1)
    keep = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.9
    return TensorDataset(x, torch.where(keep, answers, y))


def network() -> nn.Sequential:
    net = conv_net()
    randomise_norms(net)
    return net.eval()


def by_hand(
    net: nn.Module, data: TensorDataset, unit: str, sparsity: float, settle: Callable | None = None
) -> dict[str, int]:
    """Counts of a copy of the network with one weight pruned; `settle` is done to both networks."""
    x, y = data.tensors
    pruned = copy.deepcopy(net)
    with torch.no_grad():
        weight = pruned.get_parameter(unit)
        weight.copy_(smallest_removed(weight, sparsity))
    answers = []
    for each in (copy.deepcopy(net), pruned):
        if settle is not None:
            settle(each)
        each.eval()
        with torch.no_grad():
            answers.append(each(x).argmax(1))
    dense, now = answers
    return {
        "correct": int((now == y).sum()),
        "flips": int((now != dense).sum()),
        "lost": int(((dense == y) & (now != y)).sum()),
        "gained": int(((dense != y) & (now == y)).sum()),
    }


def counts(point: Point) -> dict[str, int]:
    assert point.accuracy is not None
    return {
        "correct": round(point.accuracy * point.samples),
        "flips": point.flips,
        "lost": point.lost,
        "gained": point.gained,
    }


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    return network()


@pytest.fixture(scope="module")
def tune(net: nn.Sequential) -> TensorDataset:
    return learnt(net, 700, 1)


@pytest.fixture(scope="module")
def exact(net: nn.Sequential, tune: TensorDataset) -> Sensitivity:
    study = Sensitivity(
        net, DataLoader(tune, batch_size=64), sparsities=SPARSITIES, evaluation={"mode": "exact"}
    )
    assert len(list(study.run())) == len(UNITS) * len(SPARSITIES)
    return study


def test_exact_points_are_those_counted_by_hand(
    net: nn.Sequential, tune: TensorDataset, exact: Sensitivity
) -> None:
    assert [unit.id for unit in exact.units] == list(UNITS)
    points = exact.points()
    assert [(p.unit, p.sparsity) for p in points] == [(u, s) for u in UNITS for s in SPARSITIES]
    for point in points:
        assert counts(point) == by_hand(net, tune, point.unit, point.sparsity)
        assert (point.samples, point.of, point.whole, point.settled) == (700, 700, True, True)
        size = net.get_parameter(point.unit).numel()
        assert point.achieved == round(point.sparsity * size) / size
        assert point.drop == pytest.approx(exact.baseline["accuracy"] - point.accuracy, abs=1e-12)
        assert point.drop_low <= point.drop <= point.drop_high
    with torch.no_grad():
        x, y = tune.tensors
        assert exact.baseline["accuracy"] == float((net(x).argmax(1) == y).double().mean())


def test_the_module_is_left_as_it_was(net: nn.Sequential, tune: TensorDataset) -> None:
    own = copy.deepcopy(net).train()
    own[1].eval()
    state = {key: value.clone() for key, value in own.state_dict().items()}
    study = Sensitivity(
        own,
        DataLoader(tune, batch_size=64),
        train=DataLoader(learnt(net, 100, 2), batch_size=20),
        sparsities=[0.7],
        evaluation={"mode": "exact"},
        recalibrate_batch_norm=True,
    )
    list(study.run())
    assert all(torch.equal(value, state[key]) for key, value in own.state_dict().items())
    assert [module.training for module in (own, own[0], own[1])] == [True, True, False]
    assert all(p.grad is None and p.requires_grad for p in own.parameters())


def test_adaptive_points_can_be_made_exact(
    net: nn.Sequential, tune: TensorDataset, exact: Sensitivity
) -> None:
    study = Sensitivity(
        net,
        DataLoader(tune, batch_size=64),
        sparsities=SPARSITIES,
        evaluation={"half_width": 0.04, "relative": 0.2},
    )
    first = list(study.run())
    assert len(first) == len({(p.unit, p.sparsity) for p in first}) == 9
    partly = [point for point in first if not point.whole]
    assert partly
    for point in partly:
        assert point.settled
        assert point.interval == "split"
        width = max(point.drop_high - point.drop, point.drop - point.drop_low)
        assert width <= max(0.04, 0.2 * abs(point.drop)) + 1e-12
    assert list(study.run()) == []
    study.sharpen(units=["3.weight"], sparsities=(0.4, 1.0), exact=True)
    sharper = list(study.run())
    asked = {("3.weight", 0.5), ("3.weight", 0.9)}
    assert {(p.unit, p.sparsity) for p in sharper} <= asked
    whole = {(p.unit, p.sparsity): p for p in study.points() if p.whole}
    assert asked <= set(whole)
    study.sharpen(exact=True)
    list(study.run())
    assert [counts(p) for p in study.points()] == [counts(p) for p in exact.points()]
    assert all(point.whole for point in study.points())


def test_a_loop_that_was_left_goes_on_later(
    net: nn.Sequential, tune: TensorDataset, exact: Sensitivity
) -> None:
    study = Sensitivity(
        net, DataLoader(tune, batch_size=64), sparsities=SPARSITIES, evaluation={"mode": "exact"}
    )
    for _ in study.run():
        break
    came = len(study.points())
    assert came >= 1
    list(study.run())
    assert study.points() == exact.points()


def test_a_study_that_is_running_is_not_run_twice(net: nn.Sequential, tune: TensorDataset) -> None:
    study = Sensitivity(net, DataLoader(tune, batch_size=64), sparsities=SPARSITIES)
    running = study.run(live=True)
    next(running)
    with pytest.raises(InvalidInput, match="running already"):
        next(study.run())
    running.close()
    list(study.run())


def test_knees_are_the_largest_sparsities_within_the_tolerance(
    net: nn.Sequential, tune: TensorDataset
) -> None:
    grid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    loader = DataLoader(tune, batch_size=64)
    evaluation = {"tolerance": 0.05, "mode": "exact"}
    full = Sensitivity(net, loader, sparsities=grid, evaluation=evaluation)
    list(full.run())
    search = Sensitivity(net, loader, sparsities=grid, evaluation=evaluation | {"mode": "knee"})
    list(search.run())
    expected = {curve["unit"]: curve["knee"] for curve in full.curves()}
    assert any(expected.values())
    for curve in search.curves():
        within = [p["sparsity"] for p in curve["points"] if p["settled"] and p["drop"] <= 0.05]
        sparsity = expected[curve["unit"]] and expected[curve["unit"]]["sparsity"]
        step = 0.1 + 1e-9
        assert abs(max(within, default=0.0) - (sparsity or 0.0)) <= step
    assert search.evaluated_samples < full.evaluated_samples


def test_recalibrated_points_are_those_of_update_bn(
    net: nn.Sequential, tune: TensorDataset
) -> None:
    """Every network, the dense one too, has the statistics that torch's own function gives it."""
    train = learnt(net, 300, 3)
    study = Sensitivity(
        net,
        DataLoader(tune, batch_size=64),
        train=DataLoader(train, batch_size=50, shuffle=True),
        sparsities=[0.5, 0.9],
        evaluation={"mode": "exact"},
        recalibrate_batch_norm=True,
        seed=5,
    )
    list(study.run())
    batches = [train.tensors[0][torch.from_numpy(rows)] for rows in calibration_rows(300, 5)]

    def settle(each: nn.Module) -> None:
        each[6].p = 0.0
        update_bn(batches, each)

    for point in study.points():
        assert counts(point) == by_hand(net, tune, point.unit, point.sparsity, settle)


def test_several_criteria_share_a_study(net: nn.Sequential, tune: TensorDataset) -> None:
    study = Sensitivity(
        net,
        DataLoader(tune, batch_size=64),
        criteria=["magnitude", "random"],
        units=["8.weight", "0.weight"],
        sparsities=[0.6],
        evaluation={"mode": "exact"},
        seed=4,
    )
    list(study.run())
    keys = [(curve["unit"], curve["criterion"]) for curve in study.curves()]
    assert keys == [(u, c) for u in ("0.weight", "8.weight") for c in ("magnitude", "random")]


def test_a_criterion_without_its_data_is_remarked(net: nn.Sequential, tune: TensorDataset) -> None:
    study = Sensitivity(
        net,
        DataLoader(tune, batch_size=64),
        criteria=["magnitude", "wanda"],
        sparsities=[0.5],
        evaluation={"mode": "exact"},
    )
    list(study.run())
    assert {each["criterion"] for each in study.remarks} == {"wanda"}
    assert {point.criterion for point in study.points()} == {"magnitude"}
    curves = {(c["unit"], c["criterion"]): c for c in study.curves()}
    assert curves["0.weight", "wanda"]["remark"]


def test_a_regression_is_judged_by_its_error() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).eval()
    x = torch.randn(500, 6)
    with torch.no_grad():
        y = net(x) + 0.1 * torch.randn(500, 1)
    study = Sensitivity(
        net,
        [(x, y)],
        task="regression",
        sparsities=[0.5],
        evaluation={"mode": "exact"},
    )
    points = list(study.run())
    for point in points:
        pruned = copy.deepcopy(net)
        with torch.no_grad():
            weight = pruned.get_parameter(point.unit)
            weight.copy_(smallest_removed(weight, 0.5))
            error = float(functional.mse_loss(pruned(x), y))
            start = float(functional.mse_loss(net(x), y))
        assert point.metrics["mse"]["value"] == pytest.approx(error, rel=1e-5)
        spread = float(y.var(correction=0))
        assert point.drop == pytest.approx((error - start) / spread, rel=1e-4)


def test_tables_have_every_point(exact: Sensitivity, tmp_path: Path) -> None:
    exact.to_csv(tmp_path / "curves.csv")
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines[0].startswith("parameter,sparsity,top1,top5,loss,criterion")
    assert len(lines) == 1 + 9
    unit, sparsity, top1 = lines[1].split(",")[:3]
    first = exact.points()[0]
    assert (unit, float(sparsity), float(top1)) == (first.unit, first.sparsity, first.accuracy)
    rows = exact.rows()
    assert len(rows) == 9
    assert rows[0]["top5"] == first.metrics["top5"]["value"]
    assert all(not isinstance(value, dict) for row in rows for value in row.values())


def test_a_frame_needs_pandas(exact: Sensitivity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InvalidInput, match="pandas is not installed"):
        exact.to_frame()

    class Pandas:
        @staticmethod
        def DataFrame(rows: list) -> tuple[str, int]:
            return "a frame", len(rows)

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    assert exact.to_frame() == ("a frame", 9)


def test_curves_outlive_the_study(net: nn.Sequential, tune: TensorDataset) -> None:
    with Sensitivity(
        net, DataLoader(tune, batch_size=64), sparsities=[0.5], evaluation={"mode": "exact"}
    ) as study:
        list(study.run())
        before = study.curves()
    assert study.curves() == before
    assert study.document()["curves"] == before


FAULTS = {
    "a criterion": ({"criteria": ["luck"]}, "luck"),
    "no criterion": ({"criteria": []}, "no criterion"),
    "a sparsity": ({"sparsities": [1.5]}, "outside 0 to 1"),
    "no sparsity": ({"sparsities": []}, "no sparsity"),
    "a unit": ({"units": ["9.weight"]}, "no such parameter"),
    "a bias": ({"units": ["0.bias"]}, "too small to gain"),
    "a task": ({"task": "guessing"}, "guessing"),
    "a mode": ({"evaluation": {"mode": "lazy"}}, "mode: It is one of adaptive"),
    "a width": ({"evaluation": {"half_width": 2}}, "half_width: It is a fraction"),
    "a word": ({"evaluation": {"halfwidth": 0.1}}, "no halfwidth"),
    "no train": ({"recalibrate_batch_norm": True}, "train="),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_makes_no_sense_is_said(net: nn.Sequential, tune: TensorDataset, name: str) -> None:
    given, said = FAULTS[name]
    with pytest.raises(InvalidInput, match=f"(?i){said}"):
        Sensitivity(net, DataLoader(tune, batch_size=64), **given)


def test_a_network_and_data_that_do_not_fit_are_said(net: nn.Sequential) -> None:
    x, _ = samples(50, 0)
    with pytest.raises(InvalidInput, match="10"):
        Sensitivity(net, [(x, torch.arange(50))])
    with pytest.raises(InvalidInput, match="does not run on"):
        Sensitivity(net, [(torch.randn(50, 3), torch.zeros(50, dtype=torch.int64))])


def test_the_package_loads_no_torch_until_it_is_asked() -> None:
    code = (
        "import sys, worker.engine; assert 'torch' not in sys.modules;"
        "assert 'Sensitivity' in dir(worker.engine)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(ImportError):
        from worker.engine import Specificity  # noqa: F401


def test_the_same_seed_gives_the_same_points(net: nn.Sequential, tune: TensorDataset) -> None:
    found = []
    for _ in range(2):
        study = Sensitivity(
            net,
            DataLoader(tune, batch_size=64, shuffle=True),
            criteria="random",
            sparsities=[0.4, 0.8],
            evaluation={"half_width": 0.05},
            seed=9,
        )
        list(study.run())
        found.append(study.points())
    assert found[0] == found[1]
    assert np.isfinite([point.drop for point in found[0]]).all()


def test_a_live_study_previews_every_unit_before_it_sharpens_any(
    net: nn.Sequential, tune: TensorDataset, exact: Sensitivity
) -> None:
    """The first points come before the dense network has been run on the whole split."""
    study = Sensitivity(
        net, DataLoader(tune, batch_size=64), sparsities=SPARSITIES, evaluation={"mode": "exact"}
    )
    came = list(study.run(live=True))
    early = came[: len(UNITS) * len(SPARSITIES)]
    assert {(p.unit, p.sparsity) for p in early} == {(u, s) for u in UNITS for s in SPARSITIES}
    assert {p.samples for p in early} == {32}
    assert all(p.preview and not p.settled and p.interval == "split" for p in early)
    assert all(p.drop_low <= p.drop <= p.drop_high for p in early)
    assert study.points() == exact.points()
