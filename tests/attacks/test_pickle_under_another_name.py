"""A pickle that is called something else: what a file is, its bytes say, not its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit, pickles

UNPICKLES = "import pickle\npickle.load(open(path, 'rb'))"
LOADS = "import torch\ntorch.load(open(path, 'rb'), weights_only=False)"
MODELS = [".pt2", ".safetensors", ".onnx", ".pkl", ".bin", ""]
DATASETS = [".npz", ".npy", ".csv", ".zip", ".safetensors", ".parquet", ".txt", ""]


@pytest.mark.parametrize("suffix", MODELS)
@pytest.mark.parametrize("protocol", pickles.dumped("x"))
def test_as_a_model(tmp_path: Path, canary: kit.Canary, suffix: str, protocol: int) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickles.dumped(canary.command)[protocol])
    kit.refused(kit.read_model(path), "", canary)


@pytest.mark.parametrize("suffix", DATASETS)
@pytest.mark.parametrize("protocol", pickles.dumped("x"))
def test_as_a_data_set(tmp_path: Path, canary: kit.Canary, suffix: str, protocol: int) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickles.dumped(canary.command)[protocol])
    kit.refused(kit.read_dataset(path), "", canary)


@pytest.mark.parametrize("suffix", DATASETS)
@pytest.mark.parametrize("save", [pickles.saved, pickles.saved_before_zips])
def test_a_file_of_torch_as_a_data_set(
    tmp_path: Path, canary: kit.Canary, suffix: str, save
) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(save(pickles.shell(canary.command)))
    kit.refused(kit.read_dataset(path), "", canary)
    kit.dangerous(kit.elsewhere(LOADS, path=str(path)), canary)


def test_that_pickle_is_one(tmp_path: Path, canary: kit.Canary) -> None:
    for protocol, raw in pickles.dumped(canary.command).items():
        path = tmp_path / f"{protocol}.csv"
        path.write_bytes(raw)
        kit.elsewhere(UNPICKLES, path=str(path))
        assert canary.killed(), protocol


@pytest.mark.parametrize("task", ["classification", "regression", "language-modelling"])
def test_whatever_the_task(tmp_path: Path, canary: kit.Canary, task: str) -> None:
    path = tmp_path / "evil.csv"
    path.write_bytes(pickles.whole(pickles.shell(canary.command)))
    kit.refused(kit.read_dataset(path, task=task, options={"target": "y"}), "", canary)
