"""What is measured, downloaded and retrained along a plan is one network, by any criterion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from app.domain.errors import InvalidInput
from tests.unit.engine.networks import canonical, conv_net
from worker.engine.criteria import CRITERIA, Refusal, removals
from worker.engine.formats.datasets import open_dataset
from worker.engine.formats.pt2 import load_model
from worker.engine.masks import planned_counts
from worker.engine.units import weight_units
from worker.inside import export, measure, retrain
from worker.inside.job import InsideJob

PLAN = {"0.weight": 0.25, "3.weight": 0.5, "8.weight": 0.6}
READING = {"task": "classification", "options": {}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plans")
    canonical(conv_net(dropout=0.2), (torch.randn(2, 1, 8, 8),), folder)
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for name, samples in (("train", 96), ("tune", 64), ("test", 64)):
        arrays[f"x_{name}"] = generator.standard_normal((samples, 1, 8, 8)).astype(np.float32)
        arrays[f"y_{name}"] = generator.integers(0, 10, samples)
    np.savez(folder / "data.npz", **arrays)
    del arrays["x_train"], arrays["y_train"]
    np.savez(folder / "bare.npz", **arrays)
    return {
        "model": folder / "model.pt2",
        "dataset": folder / "data.npz",
        "bare": folder / "bare.npz",
    }


def job(
    files: Mapping[str, Path],
    folder: Path,
    told: list[tuple[str, dict[str, Any]]] | None = None,
    **arguments: Any,
) -> InsideJob:
    folder.mkdir(exist_ok=True)
    said = told if told is not None else []
    return InsideJob(
        READING | arguments, files, folder, lambda kind, body: said.append((kind, body))
    )


def pruning(criterion: str, **others: Any) -> dict[str, Any]:
    return {
        "sparsities": PLAN,
        "criterion": criterion,
        "seed": 3,
        "baseline": None,
    } | others


def exported(files: Mapping[str, Path], folder: Path, criterion: str, form: str) -> Any:
    own = {"model": files["model"], "dataset": files["dataset"]}
    if not CRITERIA[criterion].needs.data:
        del own["dataset"]
    export.run(job(own, folder, format=form, keys={}, pruning=pruning(criterion)))
    if form == "pth":
        return torch.load(folder / "checkpoint", weights_only=True)
    return load_file(folder / "checkpoint")


def network_of(state: Mapping[str, Tensor]) -> nn.Module:
    net = conv_net(dropout=0.2)
    net.load_state_dict(dict(state), strict=True)
    return net.eval()


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "bn-scale"])
def test_a_download_has_the_weights_and_the_figures_that_were_measured(
    criterion: str, files: dict[str, Path], tmp_path: Path
) -> None:
    state = exported(files, tmp_path / "a", criterion, "safetensors")
    masks = exported(files, tmp_path / "b", criterion, "masks")
    old = exported(files, tmp_path / "c", criterion, "pth")
    measured = measure.run(job(files, tmp_path / "d", split="tune", pruning=pruning(criterion)))
    x, y = (torch.from_numpy(np.load(files["dataset"])[f"{part}_tune"]) for part in "xy")
    with torch.no_grad():
        output = network_of(state)(x)
    assert measured["pruned"]["correct"] == int((output.argmax(1) == y).sum())
    loss = float(functional.cross_entropy(output.double(), y))
    assert measured["pruned"]["loss"] == pytest.approx(loss, rel=1e-6)

    # The same entries, and weights, as the analysis has for each unit by itself.
    model = load_model(files["model"], "pt2")
    units = weight_units(model)
    train = open_dataset(files["dataset"], "classification", {}).split("train")
    found = removals(model, units, [criterion, "magnitude"], seed=3, train=train)
    for unit, count in planned_counts(units, PLAN).items():
        removal = found[unit, criterion]
        assert not isinstance(removal, Refusal)
        kept = removal.kept(count)
        assert int((~kept).sum()) == count
        assert torch.equal(masks[unit], kept)
        dense = model.state_dict()[unit].detach()
        expected = removal.weight(count)
        assert torch.equal(state[unit], dense * kept if expected is None else expected)
        assert torch.equal(old[unit], state[unit])
    for key, value in model.state_dict().items():
        if key not in PLAN:
            assert torch.equal(state[key], value)


@pytest.mark.parametrize("criterion", ["sparsegpt-update", "taylor"])
def test_retraining_starts_from_the_pruned_network(
    criterion: str, files: dict[str, Path], tmp_path: Path
) -> None:
    state = exported(files, tmp_path / "a", criterion, "safetensors")
    measured = measure.run(job(files, tmp_path / "b", split="test", pruning=pruning(criterion)))
    told: list[tuple[str, dict[str, Any]]] = []
    settings = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-9, "seed": 0}
    arguments = {
        "settings": settings,
        "splits": {"train": "train", "tune": "tune", "final": "test"},
        "dense": False,
        "pruning": pruning(criterion),
    }
    retrain.run(job(files, tmp_path / "c", told, **arguments))
    (_, before), *_ = [entry for entry in told if entry[0] == "pruned"]
    assert before["figures"]["correct"] == measured["pruned"]["correct"]
    assert before["figures"]["loss"] == measured["pruned"]["loss"]
    best = load_file(tmp_path / "c" / "best.safetensors")
    for unit in PLAN:
        # At next to no learning rate the weights stay what they were.
        assert torch.allclose(best[unit], state[unit], atol=1e-6)
        assert bool((best[unit][state[unit] == 0] == 0).all())


def test_a_run_is_exported_without_its_masks_being_found_again(
    files: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"epochs": 0, "batch_size": 32, "learning_rate": 0.1, "seed": 0}
    arguments = {
        "settings": settings,
        "splits": {"train": "train", "tune": "tune", "final": "test"},
        "dense": False,
        "pruning": pruning("sparsegpt-update"),
    }
    retrain.run(job(files, tmp_path / "a", **arguments))
    best = tmp_path / "a" / "best.safetensors"
    own = {"model": files["model"], "weights": best}
    export.run(
        job(own, tmp_path / "b", format="safetensors", keys={}, pruning=pruning("sparsegpt-update"))
    )
    made, kept = load_file(tmp_path / "b" / "checkpoint"), load_file(best)
    assert all(torch.equal(made[key], kept[key]) for key in kept)


def test_a_baseline_looks_at_no_samples(files: dict[str, Path], tmp_path: Path) -> None:
    own = {"model": files["model"], "dataset": files["bare"]}
    wanted = pruning("taylor", baseline="uniform")
    found = measure.run(job(own, tmp_path / "a", split="tune", pruning=wanted))
    assert found["pruned"]["samples"] == 64


def test_without_training_samples_it_is_said(files: dict[str, Path], tmp_path: Path) -> None:
    own = {"model": files["model"], "dataset": files["bare"]}
    with pytest.raises(InvalidInput, match="no split train"):
        measure.run(job(own, tmp_path / "a", split="tune", pruning=pruning("wanda")))
