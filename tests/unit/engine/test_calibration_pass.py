"""Statistics of many cells at once against the plain way: prune, re-estimate, put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.domain.errors import Stopped
from tests.unit.engine import naive
from tests.unit.engine.architectures import BY_NAME
from tests.unit.engine.models import ZOO
from tests.unit.engine.networks import canonical, conv_net
from tests.unit.engine.traced import make_split, randomise_norms, trace
from worker.engine.calibration_pass import CalibrationPass, PrunedCell, calibrated
from worker.engine.recalibration import batch_norms, recalibrate
from worker.engine.units import weight_units
from worker.engine.weights import find_weight

SPARSITIES = (0.3, 0.8)
SEED = 4


class Vectors(nn.Module):
    """Batch norms of vectors and of sequences, with a weight behind all of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(3, 6, 3)
        self.first = nn.BatchNorm1d(6)
        self.layer = nn.Linear(24, 10)
        self.second = nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(self.conv(x))).flatten(1)
        return self.head(torch.tanh(self.second(self.layer(x))))


class CalledTwice(nn.Module):
    """One batch norm before and behind a weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.second(functional.relu(self.norm(self.first(x))))))


def cell_of(weight: Tensor, sparsity: float) -> PrunedCell:
    original = weight.clone()
    pruned = naive.smallest_removed(weight, sparsity)
    return PrunedCell(
        weight, prune=lambda: _put(weight, pruned), restore=lambda: _put(weight, original)
    )


def _put(weight: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        weight.copy_(values)


def plainly(model, train, cell: PrunedCell) -> dict[str, Tensor]:
    """The buffers of the network after pruning and re-estimating all of it."""
    cell.prune()
    with recalibrate(model, train, seed=SEED):
        found = buffers(model)
    cell.restore()
    return found


def buffers(model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.module.named_buffers()}


def compare(
    model, train, cells: Sequence[PrunedCell], close: Callable[[Tensor, Tensor], bool]
) -> None:
    """Both ways for every cell, the dense statistics being those of `recalibrate`."""
    recalibrate(model, train, seed=SEED)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = calibrated(model, train, cells, SEED)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for cell, statistics in zip(cells, found, strict=True):
        expected = plainly(model, train, cell)
        with statistics:
            measured = buffers(model)
        for name, value in expected.items():
            assert close(measured[name], value), name
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def zoo(name: str, folder: Path):
    net, inputs = ZOO[name]()
    return canonical(net, inputs, folder), make_split([tuple(inputs[0].shape[1:])], 300, 10)


def cells_of(model) -> list[PrunedCell]:
    keys = [unit.id for unit in weight_units(model) if unit.prunable]
    return [cell_of(find_weight(model, key), s) for key in keys for s in SPARSITIES]


@pytest.mark.parametrize("name", ["resnet_a", "resnet_b", "mobilenet", "densenet", "shuffle"])
def test_a_network_that_was_read_has_the_statistics_of_the_plain_way(
    tmp_path: Path, name: str
) -> None:
    model, train = zoo(name, tmp_path)
    compare(model, train, cells_of(model), torch.equal)


def test_conv_net(tmp_path: Path) -> None:
    model = canonical(randomise_norms(conv_net()), (torch.randn(2, 1, 8, 8),), tmp_path)
    compare(model, make_split([(1, 8, 8)], 400, 10), cells_of(model), torch.equal)


def test_vectors(tmp_path: Path) -> None:
    model = canonical(randomise_norms(Vectors()), (torch.randn(2, 3, 6),), tmp_path)
    compare(model, make_split([(3, 6)], 400, 4), cells_of(model), torch.equal)


def test_a_graph_that_writes_in_place() -> None:
    architecture = BY_NAME["resnet"]
    model, train = architecture.model(), architecture.split(150)
    weights = [p for p in model.module.parameters() if p.dim() > 1]
    cells = [cell_of(weight.detach(), s) for weight in weights for s in SPARSITIES]
    compare(model, train, cells, torch.equal)


def test_a_batch_norm_that_is_called_twice() -> None:
    """The averages of its calls are averaged: the same to rounding."""
    model = trace(randomise_norms(CalledTwice()))
    weights = [model.module.get_parameter(f"{n}.weight") for n in ("first", "second", "head")]
    cells = [cell_of(weight.detach(), s) for weight in weights for s in SPARSITIES]
    compare(
        model,
        make_split([(6,)], 400, 4),
        cells,
        lambda one, other: torch.allclose(one, other, rtol=1e-5, atol=1e-6),
    )


def test_a_weight_behind_all_batch_norms_moves_none(tmp_path: Path) -> None:
    model = canonical(randomise_norms(Vectors()), (torch.randn(2, 3, 6),), tmp_path)
    train = make_split([(3, 6)], 400, 4)
    cells = [cell_of(find_weight(model, key), 0.5) for key in ("conv.weight", "head.weight")]
    first, last = calibrated(model, train, cells, SEED)
    assert [each.layer for each in first.layers] == list(batch_norms(model).values())
    assert last.layers == ()
    assert not first.applied


def test_the_part_before_is_run_once_a_batch(tmp_path: Path) -> None:
    """Counted by what the first convolution is asked for: once a batch, however many the cells."""
    model = canonical(randomise_norms(Vectors()), (torch.randn(2, 3, 6),), tmp_path)
    runs: list[int] = []
    # A hook has the step call the module itself.
    model.module.get_submodule("conv").register_forward_hook(lambda *_: runs.append(1))
    cells = [cell_of(find_weight(model, "layer.weight"), s) for s in np.linspace(0.1, 0.9, 9)]
    planned = CalibrationPass(model, make_split([(3, 6)], 512, 4), SEED)
    runs.clear()
    planned.run(cells)
    assert len(runs) == 4


def test_groups_do_not_matter(tmp_path: Path) -> None:
    model, train = zoo("resnet_b", tmp_path)
    planned = CalibrationPass(model, train, SEED)
    cells = cells_of(model)[:6]
    together = planned.run(cells)
    alone = [planned.run([cell])[0] for cell in cells]
    for one, other in zip(together, alone, strict=True):
        for left, right in zip(one.layers, other.layers, strict=True):
            assert left.layer is right.layer
            assert torch.equal(left.mean, right.mean)
            assert torch.equal(left.variance, right.variance)


def test_figures_of_a_cell_are_those_of_the_plain_way(tmp_path: Path) -> None:
    """Beyond the buffers: what the network answers with them."""
    model, train = zoo("resnet_b", tmp_path)
    x = torch.randn(16, 3, 12, 12)
    cells = cells_of(model)[2:8]
    recalibrate(model, train, seed=SEED)
    for cell, statistics in zip(cells, calibrated(model, train, cells, SEED), strict=True):
        with torch.no_grad():
            cell.prune()
            with statistics:
                answer = model.module(x)
            with recalibrate(model, train, seed=SEED):
                expected = model.module(x)
            cell.restore()
        assert torch.equal(answer, expected)


def test_a_stop_leaves_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked at every moment, however fast the machine.
    monkeypatch.setattr("worker.engine.pulse._STOP_SECONDS", 0.0)
    model, train = zoo("resnet_b", tmp_path)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    asked: Iterator[bool] = iter([False, False, True])
    with pytest.raises(Stopped):
        CalibrationPass(model, train, SEED).run(cells_of(model), lambda: next(asked, True))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
