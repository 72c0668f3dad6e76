"""Small files that ask for a lot: of disk, of memory."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from app.domain.errors import InvalidFile
from tests.unit.engine.archives import call, changed, graph_of
from worker.engine.formats import zip_walls
from worker.engine.formats.datasets import inspect_dataset


def packed(array: np.ndarray) -> bytes:
    raw = io.BytesIO()
    np.save(raw, array)
    return raw.getvalue()


def test_many_small_bombs_are_one_large_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No member is large enough to be suspicious alone."""
    monkeypatch.setattr(zip_walls, "RATIO_COUNTS_FROM", 4 << 20)
    zeros = packed(np.zeros((64, 1 << 12), np.float32))
    labels = packed(np.zeros(64, np.int64))
    with zipfile.ZipFile(tmp_path / "many.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"x_tune.{number}.npy", zeros)
        archive.writestr("y_tune.npy", labels)
    cache = tmp_path / "cache"
    with pytest.raises(InvalidFile, match="decompression bomb"):
        inspect_dataset(tmp_path / "many.npz", folder=cache)
    assert not cache.exists()


def test_an_honest_archive_of_that_size_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_walls, "RATIO_COUNTS_FROM", 1 << 20)
    rng = np.random.default_rng(0)
    np.savez_compressed(
        tmp_path / "honest.npz",
        x_tune=rng.integers(0, 8, (4000, 300), dtype=np.uint8),
        y_tune=np.repeat(np.arange(10), 400),
    )
    assert inspect_dataset(tmp_path / "honest.npz", folder=tmp_path).splits["tune"] == 4000


def test_a_workspace_that_no_shape_tells_of(tmp_path: Path) -> None:
    """A dilated convolution of doubles unfolds its input: 239 GB that are in no output's shape."""

    def change(record: dict) -> None:
        doubles = ("dtype", {"as_scalar_type": 8})
        graph = graph_of(record)
        sizes = {"as_ints": [1, 1, 3000, 3000]}
        small = {"as_ints": [1, 1, 60, 60]}
        graph["nodes"] += [
            call("torch.ops.aten.ones.default", "image", ("size", sizes), doubles),
            call("torch.ops.aten.ones.default", "kernel", ("size", small), doubles),
            call(
                "torch.ops.aten.conv2d.default",
                "evil",
                ("input", {"as_tensor": {"name": "image"}}),
                ("weight", {"as_tensor": {"name": "kernel"}}),
                ("bias", {"as_none": True}),
                ("stride", {"as_ints": [1, 1]}),
                ("padding", {"as_ints": [0, 0]}),
                ("dilation", {"as_ints": [2, 2]}),
            ),
            call("torch.ops.aten.sum.default", "total", ("self", {"as_tensor": {"name": "evil"}})),
            call(
                "torch.ops.aten.add.Tensor",
                "sum_1",
                ("self", {"as_tensor": {"name": "linear_1"}}),
                ("other", {"as_tensor": {"name": "total"}}),
            ),
        ]  # fmt: skip
        graph["outputs"][0]["as_tensor"]["name"] = "sum_1"
        graph["tensor_values"]["sum_1"] = graph["tensor_values"]["linear_1"]
        (spec,) = record["graph_module"]["signature"]["output_specs"]
        spec["user_output"]["arg"]["as_tensor"]["name"] = "sum_1"

    path = changed(tmp_path, change)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from app.domain.errors import InvalidFile\n"
        "from worker.limits import limit_memory\n"
        "from worker.engine.formats.pt2 import load_model\n"
        "limit_memory(4 << 30)\n"
        "try:\n"
        "    load_model(Path(sys.argv[1]), 'pt2')\n"
        "except InvalidFile as error:\n"
        "    print(error.message)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert "more memory than this machine can give" in ended.stdout, ended.stderr[-2000:]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 << 20  # KiB
