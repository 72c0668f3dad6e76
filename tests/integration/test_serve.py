"""`prunescope serve`: two kinds of process, and what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.live import LiveServer, live_server, until


def test_the_web_server_answers_at_once_and_never_loads_torch(tmp_path: Path) -> None:
    with live_server(tmp_path / "data", workers=0) as server:
        assert httpx.get(f"{server.url}/healthz").json()["status"] == "ok"
        headers = {"Authorization": f"Bearer {server.token}", "Accept": "text/html"}
        for path in ("/", "/jobs", "/api/models", "/openapi.json"):
            assert httpx.get(server.url + path, headers=headers).status_code == 200
        loaded = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "sqlite" in loaded
        assert "libtorch" not in loaded


def test_a_dead_worker_is_started_again(server: LiveServer) -> None:
    (first,) = until(server.workers, what="a worker")
    first.send_signal(signal.SIGKILL)
    (second,) = until(
        lambda: [w for w in server.workers() if w.pid != first.pid], what="another worker"
    )
    assert second.is_running()
    until(lambda: httpx.get(f"{server.url}/healthz").json()["workers"] == 1, what="its presence")


def test_workers_end_with_their_server_even_when_it_is_killed(tmp_path: Path) -> None:
    server = LiveServer(tmp_path / "data")
    (worker,) = until(server.workers, what="a worker")
    until(lambda: httpx.get(f"{server.url}/healthz").json()["workers"] == 1, what="its presence")
    server.process.kill()
    server.process.wait()
    _gone, alive = psutil.wait_procs([worker], timeout=20)
    assert not alive


def test_the_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    tokens = []
    for _ in range(2):
        with live_server(tmp_path / "data", workers=0) as server:
            tokens.append(server.token)
    assert tokens[0] == tokens[1]
    mode = stat.S_IMODE((tmp_path / "data" / "token").stat().st_mode)
    assert mode == 0o600


def test_stopping_does_not_wait_for_open_streams(tmp_path: Path, sample) -> None:
    server = LiveServer(tmp_path / "data")
    with server.client() as client:
        analysis = client.push_files(sample.model_path, sample.dataset_path, sparsities=[0.5])
        analysis.wait(timeout_seconds=60)
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.stream(
        "GET", f"{server.url}/api/analyses/{analysis.id}/events", headers=headers, timeout=30
    ) as stream:
        next(stream.iter_lines())
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 15
    assert server.process.returncode == 0


@pytest.mark.parametrize(
    "command", ["", "serve", "worker", "push", "analyse", "doctor"], ids=lambda c: c or "group"
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", *filter(None, [command]), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0
    assert "Example:" in ended.stdout
    assert f"prunescope {command}".strip() in ended.stdout


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


def test_wrong_use_is_two_and_failure_is_one(tmp_path: Path, sample) -> None:
    assert run("serve", "--port", "a").returncode == 2
    assert run("analyse", "absent.pt2", "absent.npz", "--out", tmp_path).returncode == 2
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"not an archive")
    ended = run("analyse", broken, sample.dataset_path, "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "torch.export" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_analyse_writes_what_the_server_would_say(
    tmp_path: Path, sample, server: LiveServer
) -> None:
    grid = [0.3, 0.8]
    ended = run(
        *("analyse", sample.model_path, sample.dataset_path),
        *("--out", tmp_path / "out", "--sparsities", "0.3,0.8"),
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [
        str(tmp_path / "out" / name) for name in ("curves.csv", "curves.json", "report.html")
    ]
    document = json.loads((tmp_path / "out" / "curves.json").read_text())
    with server.client() as client:
        analysis = client.push_files(sample.model_path, sample.dataset_path, sparsities=grid)
        analysis.wait(timeout_seconds=60)
        said = analysis.curves()
    assert {curve["unit"]: curve["points"] for curve in document["curves"]} == said
    rows = (tmp_path / "out" / "curves.csv").read_text().splitlines()
    assert len(rows) == 1 + len(said) * len(grid)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "block2.first.conv.weight" in report
    assert "<script src=" not in report, "the report stands alone"


def test_push_from_the_shell(tmp_path: Path, sample, server: LiveServer) -> None:
    ended = run(
        *("push", sample.model_path, sample.dataset_path, "--sparsities", "0.5"),
        *("--url", server.url),
        PRUNESCOPE_TOKEN=server.token,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().startswith(f"{server.url}/analyses/")
    assert "done" in ended.stderr


def test_push_from_python_leaves_the_network_as_it_was(sample, server: LiveServer) -> None:
    import torch

    network = sample.network.train()
    try:
        with server.client() as client:
            analysis = client.push(
                network, torch.zeros(2, 1, 8, 8), sample.arrays, sparsities=[0.5]
            )
            analysis.wait(timeout_seconds=60)
            assert set(analysis.curves()) == {
                name for name, p in network.named_parameters() if p.dim() > 1
            }
        assert network.training
    finally:
        network.eval()


def test_doctor_says_what_is_there(tmp_path: Path) -> None:
    ended = run("doctor", "--data-dir", tmp_path)
    assert ended.returncode == 0, ended.stdout
    for subject in ("torch", "database", "isolation"):
        assert subject in ended.stdout
    (tmp_path / "prunescope.db").write_bytes(b"this is no database" * 100)
    ended = run("doctor", "--data-dir", tmp_path)
    assert ended.returncode == 1
    assert "!!" in ended.stdout


@pytest.mark.parametrize("flags", [("--device", "cuda"), ("--device", "tpu")])
def test_a_device_that_can_not_be_used_is_said_at_the_start(
    tmp_path: Path, flags: tuple[str, str]
) -> None:
    for command in ("serve", "worker"):
        ended = run(command, "--data-dir", tmp_path / "data", *flags)
        assert ended.returncode == 1
        assert flags[1] in ended.stderr
        assert "Traceback" not in ended.stderr
