"""Retraining wins accuracy back, never revives a removed weight, and survives being killed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from app.domain.errors import InvalidInput, Stopped, TrainingDiverged
from tests.unit.engine.networks import FixedBatch, Tied, canonical, conv_net
from worker.engine.formats.datasets import Dataset, open_dataset
from worker.engine.graph import CanonicalModel
from worker.engine.masks import MaskSet
from worker.engine.retraining import EpochResult, RetrainResult, RetrainSettings, retrain
from worker.engine.units import weight_units


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    source = load_digits()
    images = source.images[:, None].astype(np.uint8)
    np.savez(path, x=images, y=source.target, scale=1 / 16)
    return open_dataset(path)


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> dict[str, Tensor]:
    """A dense network's weights, above 95 % on tune."""
    net = conv_net()
    (x,), y = digits.split("train").batch(0, 10**6)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for rows in torch.randperm(len(y), generator=generator).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    assert _accuracy(net, digits) > 0.95
    return net.state_dict()


def _accuracy(net: nn.Module, data: Dataset) -> float:
    (x,), y = data.split("tune").batch(0, 10**6)
    with torch.no_grad():
        return float((net.eval()(x).argmax(1) == y).float().mean())


def _dense(trained: dict[str, Tensor], folder: Path, dropout: float = 0.0) -> CanonicalModel:
    net = conv_net(dropout=dropout)
    net.load_state_dict(trained)
    return canonical(net, (torch.zeros(2, 1, 8, 8),), folder)


def _masks(model: CanonicalModel, sparsity: float = 0.9) -> MaskSet:
    units = weight_units(model)
    return MaskSet.from_plan(model, units, {u.id: sparsity for u in units if u.prunable})


def _run(
    trained: dict[str, Tensor],
    data: Dataset,
    folder: Path,
    settings: RetrainSettings,
    *,
    dropout: float = 0.0,
    resume: bool = False,
    should_stop: Callable[[], bool] | None = None,
    seen: list[EpochResult] | None = None,
) -> RetrainResult:
    model = _dense(trained, folder, dropout)
    state = folder / "state.safetensors"
    return retrain(
        model, _masks(model), data.split("train"), data.split("tune"), settings,
        save_to=state, resume_from=state if resume else None,
        on_epoch=None if seen is None else seen.append, should_stop=should_stop,
    )  # fmt: skip


def test_accuracy_comes_back_and_zeros_stay(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    seen: list[EpochResult] = []
    result = _run(trained, digits, tmp_path, RetrainSettings(epochs=5), seen=seen)
    assert [e.epoch for e in seen] == [0, 1, 2, 3, 4, 5]
    assert seen == result.epochs
    assert seen[0].train_loss is None
    best = result.epochs[result.best_epoch]
    assert best.tune_accuracy == max(e.tune_accuracy for e in seen)
    assert best.tune_accuracy > 0.85
    assert best.tune_accuracy > seen[0].tune_accuracy + 0.2
    # An eager network of the user's with the checkpoint does what was reported, zeros included.
    own = conv_net(seed=5)
    own.load_state_dict(result.best_state, strict=True)
    assert _accuracy(own, digits) == pytest.approx(best.tune_accuracy, abs=1e-6)
    kept = _masks(_dense(trained, tmp_path)).as_tensors()
    assert len(kept) == 3
    for key, mask in kept.items():
        removed = result.best_state[key][~mask]
        assert len(removed) == round(0.9 * mask.numel())
        assert bool((removed.view(torch.int32) == 0).all())
        assert not torch.equal(result.best_state[key][mask], trained[key][mask])


def test_first_epoch_is_the_pruned_network(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    result = _run(trained, digits, tmp_path, RetrainSettings(epochs=0))
    own = conv_net()
    own.load_state_dict(trained)
    for key, mask in _masks(_dense(trained, tmp_path)).as_tensors().items():
        own.state_dict()[key].masked_fill_(~mask, 0)
    assert result.best_epoch == 0
    assert result.epochs[0].tune_accuracy == pytest.approx(_accuracy(own, digits), abs=1e-6)
    assert result.epochs[0].tune_samples == len(digits.split("tune"))


def test_one_epoch_equals_a_loop_written_out(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    """Nesterov and weight decay by hand, whole split as one batch: one step at the peak rate."""
    train = digits.split("train")
    settings = RetrainSettings(epochs=1, batch_size=len(train), learning_rate=0.05)
    result = _run(trained, digits, tmp_path, settings)
    own = conv_net()
    own.load_state_dict(trained)
    masks = _masks(_dense(trained, tmp_path)).as_tensors()
    with torch.no_grad():
        for name, weight in own.named_parameters():
            if name in masks:
                weight.masked_fill_(~masks[name], 0)
    (x,), y = train.batch(0, len(train))
    loss = functional.cross_entropy(own.train()(x), y)
    loss.backward()
    assert result.epochs[1].train_loss == pytest.approx(loss.item(), rel=1e-4)
    assert result.epochs[1].learning_rate == 0.05
    assert result.best_epoch == 1
    for name, weight in own.named_parameters():
        decayed = weight.grad + (1e-4 * weight if weight.ndim > 1 else 0)
        expected = weight - 0.05 * (decayed + 0.9 * decayed)
        if name in masks:
            expected = torch.where(masks[name], expected, torch.zeros(()))
        torch.testing.assert_close(result.best_state[name], expected.detach(), atol=1e-5, rtol=1e-4)


def test_same_seed_same_run_other_seed_other_run(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    settings = RetrainSettings(epochs=2, seed=3)
    first = _run(trained, digits, tmp_path, settings, dropout=0.3)
    torch.manual_seed(99)
    second = _run(trained, digits, tmp_path, settings, dropout=0.3)
    other = _run(trained, digits, tmp_path, RetrainSettings(epochs=2, seed=4), dropout=0.3)
    assert first.epochs == second.epochs
    _assert_same(first.best_state, second.best_state)
    assert first.epochs != other.epochs


@pytest.mark.parametrize("rate", [None, 0.1])
def test_resuming_gives_the_identical_result(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path, rate: float | None
) -> None:
    settings = RetrainSettings(epochs=4, learning_rate=rate, seed=1)
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = _run(trained, digits, tmp_path / "whole", settings, dropout=0.3)
    seen: list[EpochResult] = []

    def in_the_third_epoch() -> bool:
        in_the_third_epoch.calls += len(seen) == 3  # type: ignore[attr-defined]  # own counter
        return in_the_third_epoch.calls > 5  # type: ignore[attr-defined]  # own counter

    in_the_third_epoch.calls = 0  # type: ignore[attr-defined]  # own counter
    with pytest.raises(Stopped):
        _run(
            trained, digits, tmp_path / "broken", settings, dropout=0.3,
            should_stop=in_the_third_epoch, seen=seen,
        )  # fmt: skip
    assert [e.epoch for e in seen] == [0, 1, 2]
    again: list[EpochResult] = []
    torch.manual_seed(1234)
    resumed = _run(
        trained, digits, tmp_path / "broken", settings, dropout=0.3, resume=True, seen=again
    )
    assert again == resumed.epochs == whole.epochs
    assert again[:3] == seen
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.learning_rate == whole.learning_rate
    _assert_same(resumed.best_state, whole.best_state)
    files = [(tmp_path / name / "state.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]


def test_a_finished_state_gives_its_result_without_training(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    settings = RetrainSettings(epochs=2, learning_rate=0.1)
    first = _run(trained, digits, tmp_path, settings)
    second = _run(trained, digits, tmp_path, settings, resume=True, should_stop=lambda: True)
    assert second.epochs == first.epochs
    _assert_same(second.best_state, first.best_state)


def test_a_state_of_other_settings_is_refused(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    _run(trained, digits, tmp_path, RetrainSettings(epochs=1, learning_rate=0.1))
    with pytest.raises(InvalidInput, match="other settings"):
        _run(trained, digits, tmp_path, RetrainSettings(epochs=2, learning_rate=0.1), resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"something else")
    with pytest.raises(InvalidInput, match="not a training state"):
        _run(trained, digits, tmp_path, RetrainSettings(epochs=1), resume=True)


def test_stopping_is_noticed_at_every_batch(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    """Whatever the call at which the answer turns true, no further one follows."""
    for limit in (0, 1, 7, 30, 61, 80):
        calls = itertools.count()
        with pytest.raises(Stopped):
            _run(
                trained, digits, tmp_path, RetrainSettings(epochs=3),
                should_stop=lambda calls=calls, limit=limit: next(calls) >= limit,
            )  # fmt: skip
        assert next(calls) == limit + 1


def test_divergence_is_named(trained: dict[str, Tensor], digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="in epoch") as caught:
        _run(trained, digits, tmp_path, RetrainSettings(epochs=3, learning_rate=1e30))
    assert "lower learning rate" in caught.value.hint


def test_batch_of_one_is_left_out(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    """Batch norm after pooling to 1 x 1 raises on a batch of one; so none may come."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    model = canonical(net, (torch.zeros(2, 1, 8, 8),), tmp_path)
    train = digits.split("train")
    size = next(b for b in range(50, 200) if len(train) % b == 1)
    result = retrain(
        model, _masks(model, 0.5), train, digits.split("tune"),
        RetrainSettings(epochs=1, batch_size=size, learning_rate=0.1),
        save_to=tmp_path / "state",
    )  # fmt: skip
    assert math.isfinite(result.epochs[1].train_loss or math.nan)


def test_batch_norm_on_single_samples_is_named(digits: Dataset, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    model = canonical(net, (torch.zeros(2, 1, 8, 8),), tmp_path)
    with pytest.raises(InvalidInput, match=r"single sample.*batch size of at least 2"):
        retrain(
            model,
            _masks(model, 0.5),
            digits.split("train"),
            digits.split("tune"),
            RetrainSettings(1, batch_size=1, learning_rate=0.1),
            save_to=tmp_path / "s",
        )


def test_fixed_batch_size(digits: Dataset, tmp_path: Path) -> None:
    model = canonical(
        FixedBatch(64, 10, batch=100), (torch.zeros(100, 1, 8, 8),), tmp_path, fixed=True
    )
    assert model.fixed_batch == 100
    result = retrain(
        model, _masks(model, 0.5), digits.split("train"), digits.split("tune"),
        RetrainSettings(epochs=3, batch_size=7), save_to=tmp_path / "state",
    )  # fmt: skip
    assert result.epochs[-1].tune_accuracy > 0.8


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 12, (200, 5))
    np.savez(tmp_path / "d.npz", x=tokens, y=tokens[:, 0])
    model = canonical(Tied(), (torch.zeros(2, 5, dtype=torch.int64),), tmp_path)
    with open_dataset(tmp_path / "d.npz") as data:
        result = retrain(
            model, _masks(model, 0.5), data.split("train"), data.split("tune"),
            RetrainSettings(epochs=2, batch_size=16, learning_rate=0.1), save_to=tmp_path / "state",
        )  # fmt: skip
    state = result.best_state
    assert state["head.weight"].data_ptr() == state["embedding.weight"].data_ptr()
    assert int((state["head.weight"] == 0).sum()) == 36
    assert int(state["calls"]) == 3
    Tied().load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (RetrainSettings(epochs=-1), "epochs"),
        (RetrainSettings(epochs=1, batch_size=0), "batch_size"),
        (RetrainSettings(epochs=1, learning_rate=0.0), "learning_rate"),
        (RetrainSettings(epochs=1, learning_rate=math.nan), "learning_rate"),
    ],
)
def test_settings_that_make_no_sense(
    trained: dict[str, Tensor],
    digits: Dataset,
    tmp_path: Path,
    settings: RetrainSettings,
    field: str,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        _run(trained, digits, tmp_path, settings)
    assert list(caught.value.fields) == [field]


def test_the_callers_random_numbers_are_left_alone(
    trained: dict[str, Tensor], digits: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = _dense(trained, tmp_path)
    masks = _masks(model)
    torch.manual_seed(5)
    retrain(
        model, masks, digits.split("train"), digits.split("tune"), RetrainSettings(epochs=1),
        save_to=tmp_path / "state",
    )  # fmt: skip
    assert torch.equal(torch.rand(3), expected)


def _assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key
