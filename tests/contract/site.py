"""A real server on a real port with a real SQLite file, and a stand-in for the worker.

The stand-in writes what a worker would write, through the same queue and the same store.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import Cookie, CookieJar
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from app.domain.statistics import wilson
from app.domain.words import Status
from app.settings import Settings
from app.store import events, known, points, queue, workers
from app.store.queue import Lease
from app.store.store import Store
from app.store.tables import Analysis, Baseline, Dataset, Measurement, Model, Plan, Point
from app.web.app import create_app

TOKEN = "the-token-of-the-contract-tests"
SAMPLES = 1000


class Forgetful(CookieJar):
    """Keeps no cookie."""

    def set_cookie(self, cookie: Cookie) -> None:
        pass


@dataclass
class Site:
    """`http` is signed in by token, `anonymous` not at all."""

    url: str
    port: int
    settings: Settings
    store: Store
    app: Any
    http: httpx.Client
    anonymous: httpx.Client

    @contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """A client with the sign-in cookie and the headers of a browser."""
        headers = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        with httpx.Client(base_url=self.url, timeout=30, headers=headers) as client:
            answer = client.get("/sign-in", params={"token": TOKEN})
            assert answer.status_code == 303, answer.text
            yield client

    def upload(self, noun: str, content: bytes = b"some bytes", name: str = "file.pt2") -> Any:
        answer = self.http.post(f"/api/{noun}", files={"file": (name, content)})
        assert answer.status_code == 202, answer.text
        return answer.json()


@contextmanager
def running(data_dir: Path, **settings: Any) -> Iterator[Site]:
    chosen = Settings(data_dir=data_dir, token=TOKEN, **settings)
    chosen.prepare()
    store = Store.open(chosen.database_url)
    store.migrate()
    app = create_app(store, chosen)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    url = f"http://127.0.0.1:{port}"
    with (
        httpx.Client(
            base_url=url, timeout=30, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as http,
        httpx.Client(base_url=url, timeout=30, cookies=Forgetful()) as anonymous,
    ):
        yield Site(url, port, chosen, store, app, http, anonymous)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    store.dispose()


def until(question: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return answer


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer, after checking its form (RFC 9457)."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    for member in ("type", "title", "detail", "code"):
        assert isinstance(document[member], str)
        assert document[member]
    assert "Traceback" not in answer.text
    return document


# What a worker would do.

UNITS: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("conv.weight", (8, 1, 3, 3), 4608),
    ("hidden.weight", (32, 128), 4096),
    ("head.weight", (10, 32), 320),
)


def unit(name: str, shape: Sequence[int], macs: int, *, prunable: bool = True) -> dict[str, Any]:
    size = 1
    for extent in shape:
        size *= extent
    return {
        "id": name,
        "size": size,
        "shape": list(shape),
        "members": [name],
        "layer": name.rpartition(".")[0],
        "macs": macs,
        "itemsize": 4,
        "prunable": prunable,
        "reason": None if prunable else "It has one dimension; biases and norms stay whole.",
    }


def take_job(site: Site, kind: str) -> Lease:
    """Claim the next job, which has to be of this kind."""
    with site.store.write() as session:
        worker_id = workers.register(session, pid=1, host="test")
    lease = queue.claim(site.store, worker_id)
    assert lease is not None, "no job is waiting"
    assert lease.kind == kind
    return lease


def finish_job(site: Site, lease: Lease) -> None:
    with queue.fenced(site.store, lease) as session:
        queue.finish(session, lease)


def ready_model(
    site: Site,
    units: Sequence[Mapping[str, Any]] | None = None,
    content: bytes = b"a model",
    name: str = "net.pt2",
) -> int:
    """Upload a model and import it."""
    model_id = site.upload("models", content, name)["id"]
    lease = take_job(site, "import-model")
    listed = list(units or [unit(*each) for each in UNITS])
    if units is None:
        listed.append(unit("conv.bias", (8,), 0, prunable=False))
    with queue.fenced(site.store, lease) as session:
        row = session.get_one(Model, model_id)
        row.parameters = sum(each["size"] for each in listed)
        row.state_bytes = sum(each["size"] * each["itemsize"] for each in listed)
        row.macs = sum(each["macs"] for each in listed)
        row.layers = [
            {"path": "conv", "type": "Conv2d", "parameters": 80, "macs": 4608,
             "output_shape": [None, 8, 8, 8]}
        ]  # fmt: skip
        row.units = {"weight": listed, "channel": []}
        row.inputs = [{"name": "x", "shape": [None, 1, 8, 8], "dtype": "float32"}]
        row.status = Status.READY
        queue.finish(session, lease)
    return model_id


def ready_dataset(site: Site, content: bytes = b"a data set", train: int = 600) -> int:
    dataset_id = site.upload("datasets", content, "digits.npz")["id"]
    lease = take_job(site, "import-dataset")
    with queue.fenced(site.store, lease) as session:
        row = session.get_one(Dataset, dataset_id)
        row.splits = {"train": train, "tune": SAMPLES, "test": 500} if train else {"tune": SAMPLES}
        row.input_shape, row.classes = [1, 8, 8], 10
        row.details = {"inputs": 1, "dtype": "float32", "counts": {}, "notes": []}
        row.status = Status.READY
        queue.finish(session, lease)
    return dataset_id


def start_analysis(site: Site, **body: Any) -> dict[str, Any]:
    if "model_id" not in body:
        body["model_id"] = ready_model(site)
    if "dataset_id" not in body:
        body["dataset_id"] = ready_dataset(site)
    answer = site.http.post("/api/analyses", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def correct_at(unit_id: str, level: int) -> int:
    """A made-up curve: every unit falls, each at its own speed."""
    slope = 200 + 50 * (sum(unit_id.encode()) % 7)
    return 950 - round(slope * (level / 1e6) ** 2)


def context_of(site: Site, lease: Lease) -> str:
    """The key of what the analysis measures, as the server made it."""
    with site.store.read() as session:
        context = session.get_one(Analysis, lease.payload["analysis_id"]).context
    assert context is not None
    return context


def write_baseline(site: Site, lease: Lease, context: str) -> None:
    interval = wilson(950, SAMPLES)
    with queue.fenced(site.store, lease) as session:
        session.get_one(Analysis, lease.payload["analysis_id"]).context = context
        if session.get(Baseline, context) is None:
            session.add(
                Baseline(
                    context=context, samples=SAMPLES, correct=950, accuracy=0.95, loss=0.2,
                    low=interval.low, high=interval.high,
                )
            )  # fmt: skip
        events.publish(session, lease.topic, "baseline", {"accuracy": 0.95, "samples": SAMPLES})


def write_points(
    site: Site, lease: Lease, context: str, cells: Sequence[tuple[str, int, int]]
) -> None:
    """Points of `cells` (unit, level, size), in one transaction with their event."""
    rows = []
    for unit_id, level, size in cells:
        correct = correct_at(unit_id, level)
        interval = wilson(correct, SAMPLES)
        rows.append(
            Point(
                context=context, unit=unit_id, criterion="magnitude", level=level, size=size,
                removed=round(level / 1e6 * size), samples=SAMPLES, correct=correct,
                accuracy=correct / SAMPLES, loss=1 - correct / SAMPLES, low=interval.low,
                high=interval.high, flips=40 + level // 10_000, lost=950 - correct + 3, gained=3,
            )
        )  # fmt: skip
    publish_points(site, lease, rows)


def publish_points(site: Site, lease: Lease, rows: Sequence[Point]) -> None:
    """Store points, and tell the analysis's topic of them, in one transaction."""
    with queue.fenced(site.store, lease) as session:
        points.add(session, rows)
        analysis = session.get_one(Analysis, lease.payload["analysis_id"])
        dataset = session.get_one(Dataset, analysis.dataset_id)
        baseline = session.get(Baseline, analysis.context)
        reader = known.reader_of(analysis, dataset, baseline)
        told = [reader.told(reader.fresh(points.facts_of(row))) for row in rows]
        events.publish(session, lease.topic, "points", {"points": told})


def finish_analysis(site: Site, context: str | None = None) -> int:
    """Do the waiting analysis; returns its id."""
    lease = take_job(site, "analyse")
    context = context or context_of(site, lease)
    analysis_id = lease.payload["analysis_id"]
    write_baseline(site, lease, context)
    with site.store.read() as session:
        row = session.get_one(Analysis, analysis_id)
        units = session.get_one(Model, row.model_id).units or {}
    cells = [
        (each["id"], level, each["size"])
        for each in units["weight"]
        if each["prunable"] and (row.units is None or each["id"] in row.units)
        for level in row.levels
    ]
    write_points(site, lease, context, cells)
    with queue.fenced(site.store, lease) as session:
        queue.progress(session, lease, len(cells), len(cells), 0.0)
        queue.finish(session, lease)
    return analysis_id


def finish_measurement(site: Site) -> None:
    lease = take_job(site, "measure")
    plan_id = lease.payload["plan_id"]
    interval = wilson(900, SAMPLES)
    with queue.fenced(site.store, lease) as session:
        plan = session.get_one(Plan, plan_id)
        session.add(
            Measurement(
                plan_id=plan_id, job_id=lease.job_id, split="tune", samples=SAMPLES, correct=900,
                accuracy=0.9, loss=0.4, low=interval.low, high=interval.high, confidence=0.95,
                sparsity=plan.predicted["sparsity"], flips=80, lost=60, gained=10,
                baseline={"accuracy": 0.95, "correct": 950},
            )
        )  # fmt: skip
        queue.finish(session, lease)
