"""`make demo`: server and worker started, the sample trained and uploaded like anybody's model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import httpx
import numpy as np

from app.client import Client, RequestFailed
from app.commandline import settings_from
from app.settings import Settings

MODEL_NAME = "digits-cnn"
LEAST_TUNE_ACCURACY = 0.97
START_SECONDS = 60.0


def say(text: str) -> None:
    click.echo(text, err=True)


def answers(url: str, token: str) -> bool:
    """Whether our own server, with our own token, is at this address."""
    try:
        response = httpx.get(
            f"{url}/api/jobs", headers={"Authorization": f"Bearer {token}"}, timeout=5
        )
    except httpx.HTTPError:
        return False
    return response.status_code == 200


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or any other one when that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise RequestFailed("No port can be opened on this machine.", "Set PORT to a free one.")


def running_server(settings: Settings) -> str | None:
    """The address of the server that an earlier demo started, if it still answers."""
    try:
        noted = json.loads((settings.data_dir / "demo-server.json").read_text())
    except (OSError, ValueError):
        return None
    return noted["url"] if answers(noted["url"], settings.token) else None


def start_server(settings: Settings) -> str:
    """Start `prunescope serve` in the background; its output goes to `server.log`."""
    port = free_port(settings.host, settings.port)
    url = f"http://{settings.host}:{port}"
    log = settings.data_dir / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "app.cli", "serve"),
                *("--host", settings.host, "--port", str(port)),
                *("--data-dir", str(settings.data_dir)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not answers(url, settings.token):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RequestFailed("The server did not start.", f"{log} says why.")
        time.sleep(0.1)
    noted = {"url": url, "pid": process.pid}
    (settings.data_dir / "demo-server.json").write_text(json.dumps(noted))
    return url


def known_analysis(client: Client, marker: Path) -> int | None:
    """The sample's analysis of an earlier demo, if it is still there."""
    try:
        analysis = int(marker.read_text())
        client.call("GET", f"/api/analyses/{analysis}")
    except (OSError, ValueError, RequestFailed):
        return None
    return analysis


def upload_sample(client: Client) -> int:
    """Train the sample, push it through the public API, wait for its curves; the analysis's id."""
    import torch

    from worker.sample import digits, train

    say("training a small network on scikit-learn's digits …")
    arrays = digits()
    network, accuracy = train(arrays)
    if accuracy <= LEAST_TUNE_ACCURACY:
        raise RequestFailed(
            f"The sample reached only {accuracy:.1%} on its tune split.",
            "This is a bug: report it.",
        )
    say(f"{accuracy:.1%} on its tune split; uploading and analysing it …")
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "digits.npz"
        np.savez(dataset, **arrays)
        analysis = client.push(network, torch.zeros(2, 1, 8, 8), dataset, name=MODEL_NAME)
    return analysis.wait(timeout_seconds=600).id


def stop_server(settings: Settings) -> None:
    """End the server of an earlier demo; what it holds stays."""
    file = settings.data_dir / "demo-server.json"
    try:
        os.kill(json.loads(file.read_text())["pid"], signal.SIGTERM)
        say("stopped")
    except (OSError, ValueError):
        say("no demo server is running")
    file.unlink(missing_ok=True)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path))
@click.option("--host")
@click.option("--port", type=int)
@click.option("--stop", is_flag=True, help="Stop the server of an earlier demo.")
def main(stop: bool, **flags: object) -> None:
    """Start everything, upload the sample once, print the one link."""
    settings = settings_from(**flags)
    settings.prepare()
    if stop:
        stop_server(settings)
        return
    try:
        url = running_server(settings) or start_server(settings)
        marker = settings.data_dir / "demo-analysis"
        with Client(url, settings.token) as client:
            analysis = known_analysis(client, marker)
            if analysis is None:
                analysis = upload_sample(client)
                marker.write_text(f"{analysis}\n")
    except RequestFailed as error:
        say(f"{error.message} {error.hint}")
        sys.exit(1)
    say("It keeps running in the background; `make demo-stop` stops it. Open:")
    click.echo(f"{url}/sign-in?token={settings.token}&next=/analyses/{analysis}")


if __name__ == "__main__":
    main()
