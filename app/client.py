"""Prunescope from Python.

from app.client import Client
analysis = Client("http://127.0.0.1:8000", token).push(model, example_inputs, "digits.npz")
analysis.wait()
analysis.curves()
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np

from app.domain.errors import InvalidInput, PrunescopeError

POLL_SECONDS = 0.3

Report = Callable[[str], None]


def quiet(_: str) -> None:
    pass


class RequestFailed(PrunescopeError):
    """The server refused, or could not be reached; message and hint are the server's own."""

    code = "request-failed"


@dataclass(frozen=True)
class Analysis:
    """A handle on one analysis of the server."""

    client: Client
    id: int

    @property
    def url(self) -> str:
        return f"{self.client.url}/analyses/{self.id}"

    def get(self) -> dict[str, Any]:
        """The JSON of `GET /api/analyses/{id}`."""
        return self.client.call("GET", f"/api/analyses/{self.id}")

    def wait(self, *, timeout_seconds: float | None = None, report: Report = quiet) -> Analysis:
        """Block until it has ended. Raises RequestFailed if it failed or was cancelled."""
        last = ""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            state = self.get()
            progress = state["progress"] or {}
            text = f"{progress.get('done') or 0:.0f} of {progress.get('total') or 0:.0f} points"
            if samples := progress.get("samples"):
                text += f", {samples:,} samples"
            if text != last and state["status"] == "running":
                report(text)
                last = text
            if state["status"] == "done":
                report("done")
                return self
            if state["status"] in ("failed", "cancelled"):
                error = state["error"] or {}
                raise RequestFailed(
                    error.get("message") or f"The analysis was {state['status']}.",
                    error.get("hint") or "",
                )
            if deadline is not None and time.monotonic() > deadline:
                raise RequestFailed("The analysis is still running.", "Wait longer.")
            time.sleep(POLL_SECONDS)

    def curves(self, criterion: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """`{unit: [{sparsity, achieved, accuracy, low, high, samples, of, drop, …}]}`.

        Of the first criterion of the analysis unless another is named.
        """
        found = self.get()
        chosen = criterion or found["criteria"][0]
        return {
            curve["unit"]: curve["points"]
            for curve in found["curves"]
            if curve["criterion"] == chosen
        }

    def sharpen(
        self,
        *,
        units: Sequence[str] | None = None,
        sparsities: tuple[float, float] | None = None,
        half_width: float | None = None,
        exact: bool = False,
    ) -> Analysis:
        """Have some points, or all, measured more sharply; `wait` then waits for them."""
        said = {"units": units, "sparsities": sparsities, "half_width": half_width}
        body: dict[str, Any] = {
            name: list(value) if isinstance(value, Sequence) else value
            for name, value in said.items()
            if value is not None
        }
        body["exact"] = exact
        self.client.call("POST", f"/api/analyses/{self.id}/sharpen", json=body)
        return self


class Client:
    """Talks to one server. Errors are RequestFailed with the server's sentence and hint."""

    def __init__(self, url: str, token: str, *, timeout_seconds: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout_seconds, write=None),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One request; the decoded JSON, or None when there is no body."""
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise RequestFailed(
                f"{self.url} can't be reached ({error}).", "Is prunescope serve running there?"
            ) from None
        if response.is_error:
            raise self._refused(response)
        return response.json() if response.content else None

    def _refused(self, response: httpx.Response) -> RequestFailed:
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        detail = problem.get("detail") or f"The server answered {response.status_code}."
        hint = problem.get("hint") or ""
        return RequestFailed(detail.removesuffix(hint).strip(), hint)

    def push(
        self,
        model: Any,
        example_inputs: Any,
        dataset: str | Path | Mapping[str, np.ndarray],
        *,
        name: str | None = None,
        task: str | None = None,
        options: Mapping[str, Any] | None = None,
        sparsities: Sequence[float] | None = None,
        criteria: Sequence[str] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        recalibrate_batch_norm: bool = False,
        priority: str | None = None,
        report: Report = quiet,
    ) -> Analysis:
        """Export a network, upload it with a data set, and start an analysis.

        `model` is an `nn.Module` (left in the mode it was in), `example_inputs` one tensor or a
        tuple of them with a batch of at least 2, `dataset` a file or a dict of the arrays (or
        tensors) that the contract names (`x`, `y`, or `x_tune`, `y_tune`, …), `task` what it is for
        (`classification`, `regression`, `language-modelling`), `options` how it is to be read; the
        rest as `analyse`.

        Raises InvalidInput before anything is sent, RequestFailed for what the server says.
        """
        with tempfile.TemporaryDirectory() as folder:
            model_path = Path(folder) / "model.pt2"
            dataset_path = self._dataset_file(dataset, Path(folder))
            report("exporting")
            export(model, example_inputs, model_path)
            return self.push_files(
                model_path,
                dataset_path,
                name=name or type(model).__name__,
                task=task,
                options=options,
                sparsities=sparsities,
                criteria=criteria,
                evaluation=evaluation,
                recalibrate_batch_norm=recalibrate_batch_norm,
                priority=priority,
                report=report,
            )

    def push_files(
        self,
        model: Path,
        dataset: Path,
        *,
        name: str | None = None,
        architecture: str | None = None,
        architecture_args: Mapping[str, Any] | None = None,
        task: str | None = None,
        options: Mapping[str, Any] | None = None,
        report: Report = quiet,
        **asked: Any,
    ) -> Analysis:
        """Upload two files, wait until both are ready, start an analysis.

        `architecture` (`timm:resnet18`, `transformers:bert`) and its arguments belong to a `model`
        that holds weights only; `task` and `options` say how `dataset` is to be read; `asked` as
        `analyse` takes it.
        """
        said = {"architecture": architecture, "architecture_args": architecture_args}
        model_id = self.upload("models", model, name=name, said=said, report=report)
        said = {"task": task, "options": options}
        dataset_id = self.upload("datasets", dataset, said=said, report=report)
        self.wait_ready("models", model_id, report=report)
        self.wait_ready("datasets", dataset_id, report=report)
        return self.analyse(model_id, dataset_id, **asked)

    def upload(
        self,
        noun: str,
        path: Path,
        *,
        name: str | None = None,
        said: Mapping[str, Any] | None = None,
        report: Report = quiet,
    ) -> int:
        """Upload one file to `models` or `datasets`; the new id.

        `said`: what the form has beside the file; mappings are sent as JSON, None is left out.
        """
        report(f"uploading {path.name}")
        with path.open("rb") as file:
            created = self.call(
                "POST",
                f"/api/{noun}",
                files={"file": (path.name, file)},
                data=form_fields({"name": name or None, **(said or {})}),
            )
        return created["id"]

    def wait_ready(
        self, noun: str, item: int, *, timeout_seconds: float = 600.0, report: Report = quiet
    ) -> dict[str, Any]:
        """Block until an upload was read. Raises RequestFailed with the reason if it can't be."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            state = self.call("GET", f"/api/{noun}/{item}")
            if state["status"] == "ready":
                return state
            if state["status"] == "failed":
                raise RequestFailed(state["error"]["message"], state["error"]["hint"])
            if time.monotonic() > deadline:
                raise RequestFailed("The upload is still being read.", "Is a worker running?")
            time.sleep(POLL_SECONDS)

    def analyse(
        self,
        model_id: int,
        dataset_id: int,
        *,
        sparsities: Sequence[float] | None = None,
        criteria: Sequence[str] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        recalibrate_batch_norm: bool = False,
        priority: str | None = None,
    ) -> Analysis:
        """Start an analysis of an uploaded model on an uploaded data set.

        `criteria` by name (GET /api/criteria), `evaluation` as the API takes it, for example
        `{"mode": "exact"}` or `{"half_width": 0.005}`; None leaves things to the server.
        """
        said = {
            "sparsities": None if sparsities is None else list(sparsities),
            "criteria": None if criteria is None else list(criteria),
            "evaluation": None if evaluation is None else dict(evaluation),
            "recalibrate_batch_norm": recalibrate_batch_norm or None,
            "priority": priority,
        }
        body = {name: value for name, value in said.items() if value is not None}
        body |= {"model_id": model_id, "dataset_id": dataset_id}
        return Analysis(self, self.call("POST", "/api/analyses", json=body)["id"])

    def _dataset_file(self, dataset: str | Path | Mapping[str, np.ndarray], folder: Path) -> Path:
        if isinstance(dataset, str | Path):
            if not Path(dataset).is_file():
                raise InvalidInput(f"There is no file {dataset}.", "Give a path to a data file.")
            return Path(dataset)
        path = folder / "dataset.npz"
        np.savez(path, **{key: as_array(key, value) for key, value in dataset.items()})
        return path


def form_fields(said: Mapping[str, Any]) -> dict[str, str]:
    """Text fields of a form. Raises InvalidInput for what JSON can't say."""
    fields = {}
    for name, value in said.items():
        if value is None:
            continue
        try:
            fields[name] = value if isinstance(value, str) else json.dumps(dict(value))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{name} can't be sent as JSON: {error}.") from None
    return fields


def as_array(name: str, value: Any) -> np.ndarray:
    """Arrays, lists, and tensors wherever they live. Raises InvalidInput for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
    else:
        if array.dtype != object:
            return array
        reason = "it holds Python objects"
    raise InvalidInput(
        f"{name} can't be made an array: {reason}",
        "Every sample must have the same shape and hold numbers.",
    )


def export(model: Any, example_inputs: Any, path: Path) -> None:
    """Write a network as `.pt2` with a free batch dimension. Raises InvalidInput if it can't be."""
    import torch  # only in the user's own process, which has it; the server never comes here

    given = example_inputs
    inputs = tuple(given) if isinstance(given, tuple | list) else (given,)
    training = model.training
    try:
        program = torch.export.export(
            model.eval(),
            inputs,
            dynamic_shapes=tuple({0: torch.export.Dim.AUTO} for _ in inputs),
        )
        torch.export.save(program, path)
    except Exception as error:
        first = str(error).strip().splitlines()
        raise InvalidInput(
            f"The network can't be exported: {first[0] if first else type(error).__name__}",
            "torch.export must be able to trace its forward; "
            "control flow that depends on values has to go.",
        ) from error
    finally:
        model.train(training)
