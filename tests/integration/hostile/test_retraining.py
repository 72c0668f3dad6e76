"""Experiments, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import TooLarge
from app.store.tables import (
    Experiment,
    Run,
)
from tests.integration.hostile.saying import Change, figures, put, refused
from tests.integration.office import Office
from tests.support.walls import Tell


class Trainer:
    """A child that retrains. `change` alters one message, by kind and number."""

    def __init__(self, kind: str = "", number: int = 0, change: Change | None = None) -> None:
        self.kind, self.number, self.change = kind, number, change
        self.epochs = (0, 1, 2)
        self.seen_state: list[bytes | None] = []

    def __call__(self, arguments: Any, files: Any, folder: Path, tell: Tell) -> dict[str, Any]:
        counts: dict[str, int] = {}

        def say(kind: str, body: dict[str, Any]) -> dict[str, Any]:
            number = counts.setdefault(kind, 0)
            counts[kind] += 1
            if (kind, number) == (self.kind, self.number) and self.change is not None:
                self.change(body)
            return body

        self.seen_state.append(files["state"].read_bytes() if "state" in files else None)
        final = arguments["splits"]["final"]
        if arguments["dense"]:
            tell("dense", say("dense", {"figures": figures(45, final), "latency_ms": 1.0}))
        removed = {"b.weight": 10, "a.weight": 25}
        tell("pruned", say("pruned", {"removed": removed, "figures": figures(20, final)}))
        for epoch in self.epochs:
            name = f"epoch-{epoch}.safetensors"
            (folder / name).write_bytes(b"state %d" % epoch)
            body = {
                "step": 0,
                "epoch": epoch,
                "train_loss": 0.5 if epoch else None,
                "learning_rate": 0.1,
                "tune": figures(20 + epoch),
                "file": name,
            }
            tell("epoch", say("epoch", body))
        (folder / "best.safetensors").write_bytes(b"weights")
        return say("value", {"best_epoch": 2, "figures": figures(40, final), "latency_ms": 1.0})


def test_an_honest_retraining_is_stored(office: Office) -> None:
    experiment = office.experiment(baselines=("uniform",))
    trainer = office.walls.scripts["retrain"] = Trainer()
    office.run()
    assert office.rows() == {"run": 2, "epoch": 6}
    assert trainer.seen_state == [None, None]
    with office.store.read() as session:
        row = session.get_one(Experiment, experiment.id)
        run = session.get_one(Run, 1)
    assert row.baseline["accuracy"] == 0.9
    assert run.sparsities == {"b.weight": 0.5, "a.weight": 0.25}
    assert (run.after["accuracy"], run.best_epoch) == (0.8, 2)
    assert run.after["sparsity"] == 35 / 120
    assert office.blobs.local_path(run.checkpoint_sha256).read_bytes() == b"weights"
    left = [path for path in (office.settings.data_dir / "work").rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize(
    ("kind", "number", "change", "rows"),
    [
        *(("dense", 0, put("figures", *([key, value])), {}) for key, value in (
            ("samples", 51), ("accuracy", 0.1), ("correct", 60), ("loss", float("nan")))),
        ("dense", 0, put("latency_ms", -1.0), {}),
        ("dense", 0, put("latency_ms", float("inf")), {}),
        ("pruned", 0, put("removed", {"a.weight": 35}), {}),
        ("pruned", 0, put("removed", {"a.bias": 10, "a.weight": 25}), {}),
        ("pruned", 0, put("removed", {"b.weight": 10}), {}),
        ("pruned", 0, put("removed", {"b.weight": -10, "a.weight": 45}), {}),
        ("pruned", 0, put("figures", "correct", 51), {}),
        ("epoch", 0, put("epoch", 1), {"run": 1}),
        ("epoch", 0, put("train_loss", 0.5), {"run": 1}),
        ("epoch", 1, put("epoch", 0), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("epoch", 7), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("step", 3), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("train_loss", None), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("learning_rate", float("nan")), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("tune", "samples", 50), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", "../../../prunescope.db"), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", ".."), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", "nothing"), {"run": 1, "epoch": 1}),
        ("epoch", 1, put("file", 3), {"run": 1, "epoch": 1}),
        ("value", 0, put("best_epoch", 3), {"run": 1, "epoch": 3}),
        ("value", 0, put("best_epoch", -1), {"run": 1, "epoch": 3}),
        ("value", 0, put("figures", "correct", 12), {"run": 1, "epoch": 3}),
        ("value", 0, put("latency_ms", None), {"run": 1, "epoch": 3}),
    ],
)  # fmt: skip
def test_a_retraining_that_can_not_be_is_not_stored(
    office: Office, kind: str, number: int, change: Change, rows: dict[str, int]
) -> None:
    experiment = office.experiment()
    before = office.stored_blobs()
    refused(office, "retrain", Trainer(kind, number, change))
    assert office.rows() == rows
    assert office.stored_blobs() == before
    with office.store.read() as session:
        runs = [run for run in [session.get(Run, 1)] if run is not None]
        baseline = session.get_one(Experiment, experiment.id).baseline
    assert all(run.after is None and run.checkpoint_sha256 is None for run in runs)
    assert (baseline is None) == (kind == "dense")


@pytest.mark.parametrize("epochs", [(0, 1), (0, 1, 2, 3), (0, 2), (1, 2), (0, 0, 1, 2), ()])
def test_epochs_come_one_after_the_other(office: Office, epochs: tuple[int, ...]) -> None:
    office.experiment(epochs=2)
    trainer = Trainer()
    trainer.epochs = epochs
    refused(office, "retrain", trainer)


def test_a_state_is_fetched_before_its_epoch_is_told(office: Office) -> None:
    """What an attempt finds is never older than what somebody was shown."""
    experiment = office.experiment()
    saved = office.settings.data_dir / "work" / "experiments" / str(experiment.id)
    refused(office, "retrain", Trainer("epoch", 2, put("tune", "samples", 7)))
    assert office.rows()["epoch"] == 2
    assert (saved / "plan.safetensors").read_bytes() == b"state 1"


def test_a_state_without_end_is_not_taken(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tasks.uploads.disk_bytes", lambda folder: 3)
    office.experiment()
    office.walls.scripts["retrain"] = Trainer()
    with pytest.raises(TooLarge):
        office.run()
    assert office.rows() == {"run": 1}
