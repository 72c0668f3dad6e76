"""The commands when something is wrong: a sentence on stderr, no traceback, 1 or 2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.live import LiveServer
from worker.sandbox.isolation import missing

pytestmark = pytest.mark.slow


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PRUNESCOPE_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean | environment,
    )


def refused(ended: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout
    for words in said:
        assert words in ended.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MAX_UPLOAD_BYTES", "a lot"), ("EXECUTOR", "slurm"), ("PORT", "99999")],
)
def test_a_setting_that_makes_no_sense_is_wrong_use(
    tmp_path: Path, variable: str, value: str
) -> None:
    ended = run("doctor", "--data-dir", tmp_path, **{f"PRUNESCOPE_{variable}": value})
    refused(ended, 2, f"PRUNESCOPE_{variable}", value)


@pytest.mark.parametrize("sparsities", ["0.5,2", "-0.1", "nan", "a,b", "", ","])
def test_sparsities_that_make_no_sense_are_wrong_use(
    tmp_path: Path, sample, sparsities: str
) -> None:
    """`push` says so before anything is uploaded: nobody listens at this address."""
    files = (sample.model_path, sample.dataset_path)
    for ended in (
        run("analyse", *files, "--out", tmp_path / "out", f"--sparsities={sparsities}"),
        run(
            "push", *files, "--url", "http://127.0.0.1:9", "--token=t", f"--sparsities={sparsities}"
        ),
    ):
        refused(ended, 2, "0.1,0.5,0.9")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--half-width=0", "--half-width"),
        ("--half-width=wide", "--half-width"),
        ("--confidence=1", "--confidence"),
        ("--confidence=0.2", "between 0.5 and 1"),
        ("--relative=-1", "--relative"),
        ("--tolerance=2", "--tolerance"),
        ("--evaluation=guess", "adaptive"),
        ("--precision=int8", "float32"),
        ("--refine=99", "--refine"),
        ("--criteria=,", "magnitude,wanda"),
        ("--priority=urgent", "normal"),
    ],
)
def test_a_push_that_makes_no_sense_is_wrong_use(sample, flag: str, said: str) -> None:
    """Said before anything is uploaded: nobody listens at this address."""
    files = (sample.model_path, sample.dataset_path)
    refused(run("push", *files, "--url", "http://127.0.0.1:9", "--token=t", flag), 2, said)


def test_a_criterion_that_is_not_there_is_wrong_use(tmp_path: Path, sample) -> None:
    ended = run(
        *("analyse", sample.model_path, sample.dataset_path),
        *("--out", tmp_path / "out", "--criteria", "magnitude,luck"),
    )
    refused(ended, 2, "luck", "magnitude")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--evaluation", "exact", "--half-width", "0.01"), "--evaluation adaptive"),
        (("--half-width", "2"), "--half-width"),
        (("--confidence", "95"), "--confidence"),
        (("--tolerance", "nan"), "--tolerance"),
        (("--evaluation", "guess"), "guess"),
        (("--precision", "float8"), "float8"),
        (("--refine", "99"), "99"),
        (("--granularity", "channel"), "channel"),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_wrong_use(
    tmp_path: Path, sample, flags: tuple[str, ...], said: str
) -> None:
    files = (sample.model_path, sample.dataset_path)
    refused(run("analyse", *files, "--out", tmp_path / "out", *flags), 2, said)
    assert not (tmp_path / "out").exists()


def test_batch_norms_can_not_be_estimated_from_nothing(tmp_path: Path, sample) -> None:
    arrays = {name: sample.arrays[name] for name in ("x_tune", "y_tune", "scale")}
    np.savez(tmp_path / "tune.npz", **arrays)
    ended = run(
        *("analyse", sample.model_path, tmp_path / "tune.npz"),
        *("--out", tmp_path / "out", "--recalibrate-batch-norm"),
    )
    refused(ended, 1, "from the split train", "x_train")


@pytest.mark.parametrize(
    "flags",
    [
        ("--evaluation", "exact"),
        ("--half-width", "0.03", "--processes", "2"),
        ("--recalibrate-batch-norm", "--evaluation", "exact"),
    ],
    ids=["exact", "adaptive in two processes", "recalibrated"],
)
def test_a_notebook_finds_what_the_shell_does(
    tmp_path: Path, sample, flags: tuple[str, ...]
) -> None:
    """The same network and samples, by torch.export of a file and by the module in memory."""
    from torch.utils.data import DataLoader, TensorDataset

    from worker.engine import Sensitivity

    ended = run(
        *("analyse", sample.model_path, sample.dataset_path, "--out", tmp_path / "out"),
        *("--sparsities", "0.4,0.8", "--criteria", "magnitude,random", "--seed", "3", *flags),
    )
    assert ended.returncode == 0, ended.stderr
    assert " evaluated samples in " in ended.stderr
    assert "Warning" not in ended.stderr
    document = json.loads((tmp_path / "out" / "curves.json").read_text())
    loaders = {
        split: DataLoader(TensorDataset(sample.inputs(split), sample.labels(split)), batch_size=50)
        for split in ("tune", "train")
    }
    evaluation = {"mode": "exact"} if "exact" in flags else {"half_width": 0.03}
    study = Sensitivity(
        sample.network,
        loaders["tune"],
        train=loaders["train"],
        criteria=["magnitude", "random"],
        sparsities=[0.4, 0.8],
        evaluation=evaluation,
        recalibrate_batch_norm="--recalibrate-batch-norm" in flags,
        seed=3,
    )
    list(study.run())
    found = json.loads(json.dumps(study.document()))
    assert found["curves"] == document["curves"]
    assert found["baseline"] == document["baseline"]
    same = set(found) & set(document) - {"samples_evaluated"}
    assert {name: found[name] for name in same} == {name: document[name] for name in same}
    lines = (tmp_path / "out" / "curves.csv").read_bytes().decode()
    study.to_csv(tmp_path / "own.csv")
    assert (tmp_path / "own.csv").read_bytes().decode() == lines
    assert lines.startswith("parameter,sparsity,top1,top5,loss,criterion,")


def test_a_folder_that_can_not_be_made_is_said_before_the_work(tmp_path: Path, sample) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    ended = run("analyse", sample.model_path, sample.dataset_path, "--out", out)
    refused(ended, 1, str(out))
    assert "points" not in ended.stderr
    for command in ("serve", "worker"):
        refused(run(command, "--data-dir", out), 1, str(out))


def test_analyse_reads_every_value_as_the_server_does(tmp_path: Path, sample) -> None:
    arrays = {name: np.array(value) for name, value in sample.arrays.items()}
    arrays["x_tune"] = arrays["x_tune"].astype(np.float32)
    arrays["x_tune"][7] = np.nan
    np.savez(tmp_path / "holes.npz", **arrays)
    ended = run("analyse", sample.model_path, tmp_path / "holes.npz", "--out", tmp_path / "out")
    refused(ended, 1, "sample 7", "NaN")
    assert not (tmp_path / "out").exists()


def test_a_taken_port_is_a_failure_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("serve", "--port", port, "--data-dir", tmp_path / "data", "--workers", "0")
    refused(ended, 1, port, "--port")


def test_push_says_once_what_the_server_said(tmp_path: Path, sample, server: LiveServer) -> None:
    wrong = run("push", sample.model_path, sample.dataset_path, "--url", server.url, "--token=no")
    refused(wrong, 1, "The token is wrong")
    assert wrong.stderr.count("Authorization: Bearer") == 1


@pytest.mark.parametrize(("device", "mark"), [("cpu", "ok "), ("tpu", "!! ")])
def test_doctor_looks_at_the_device(tmp_path: Path, device: str, mark: str) -> None:
    ended = run("doctor", "--data-dir", tmp_path, PRUNESCOPE_DEVICE=device)
    assert ended.returncode == ("!! " in ended.stdout)
    (line,) = (line for line in ended.stdout.splitlines() if " device " in line[:12])
    assert line.startswith(mark)
    assert device in line


@pytest.mark.parametrize("level", ["bubblewrap", "landlock", "rlimits"])
def test_doctor_looks_at_the_isolation(tmp_path: Path, level: str) -> None:
    """Limits alone are found wrong, and each level says what would be stronger."""
    if why := missing(level):
        pytest.skip(f"no {level} here: {why}")
    ended = run("doctor", "--data-dir", tmp_path, PRUNESCOPE_ISOLATION=level)
    lines = ended.stdout.splitlines()
    (at,) = (number for number, line in enumerate(lines) if " isolation " in line[:16])
    assert f" {level}: " in lines[at]
    strongest = level == "bubblewrap" and missing("landlock") == ""
    assert lines[at].startswith("ok ") == (level != "rlimits")
    assert strongest or "ubblewrap" in lines[at + 1] or "Landlock" in lines[at + 1]


def test_doctor_names_the_extras(tmp_path: Path) -> None:
    ended = run("doctor", "--data-dir", tmp_path)
    for extra in ("timm", "transformers", "parquet"):
        (line,) = (line for line in ended.stdout.splitlines() if line[4:].startswith(extra + " "))
        assert line.endswith(("installed", "not installed (optional)"))


def test_a_server_refuses_an_isolation_that_is_not_there(tmp_path: Path) -> None:
    """Rather than start workers that die of it again and again."""
    ended = run("serve", "--data-dir", tmp_path, PRUNESCOPE_ISOLATION="bubblewrap", PATH="/nowhere")
    refused(ended, 1, "'bubblewrap' is not available", "PRUNESCOPE_ISOLATION to auto")
