"""What another user of the same machine can see."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import httpx
import psutil

from tests.support.live import LiveServer, until


def test_nothing_in_the_data_directory_is_for_others(
    server: LiveServer, sample, tmp_path: Path
) -> None:
    with server.client() as client:
        analysis = client.push_files(sample.model_path, sample.dataset_path, sparsities=[0.5])
        analysis.wait(timeout_seconds=60)
        body = {"analysis_id": analysis.id, "sparsities": {"block2.first.conv.weight": 0.5}}
        plan = client.call("POST", "/api/plans", json=body)["id"]
    headers = {"Authorization": f"Bearer {server.token}"}
    address = f"{server.url}/api/plans/{plan}/checkpoint?format=pth"
    assert httpx.get(address, headers=headers, timeout=60).status_code == 200
    seen = 0
    for root, folders, files in os.walk(server.data_dir):
        assert not stat.S_IMODE(os.stat(root).st_mode) & 0o077, root
        for name in files:
            if Path(root).is_relative_to(server.data_dir / "blobs"):
                continue  # read-only for all, in folders that are closed
            mode = stat.S_IMODE(os.stat(os.path.join(root, name)).st_mode)
            assert not mode & 0o077, os.path.join(root, name)
        seen += len(files) + len(folders)
    assert seen > 10


def test_no_process_carries_the_token_where_others_look(server: LiveServer) -> None:
    (worker,) = until(server.workers, what="a worker")
    for process in [psutil.Process(server.process.pid), worker]:
        assert all(server.token not in part for part in process.cmdline())
    assert all(server.token not in value for value in worker.environ().values())
    httpx.get(f"{server.url}/sign-in?token={server.token}")
    httpx.get(f"{server.url}/api/models", headers={"Authorization": f"Bearer {server.token}"})
    httpx.get(f"{server.url}/nowhere?token={server.token}")
    assert server.token not in server.log.read_text()
