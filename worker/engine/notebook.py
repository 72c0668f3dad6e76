"""Sensitivity curves of a network at hand: from Python, with no server and no upload.

    from worker.engine import Sensitivity

    study = Sensitivity(model, loader, train=train_loader, criteria=["magnitude", "wanda"])
    for point in study.run():
        print(point.unit, point.sparsity, point.drop, (point.drop_low, point.drop_high))
    study.to_csv("curves.csv")

The module and the loader become what an upload of them would be, and the same engine measures
them: the figures are those of the server.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Self

from app.domain.adaptive import Goal
from app.domain.errors import InvalidInput
from app.domain.evaluation_checks import faults_of
from app.domain.goals import Goals, evaluation_of
from app.domain.levels import DEFAULT_SPARSITIES, to_levels, to_sparsity
from app.domain.metrics import Task
from app.domain.point_facts import Dense
from worker.engine.background import as_iterator
from worker.engine.cell_run import CellRun
from worker.engine.criteria import get_criterion
from worker.engine.curves import CurveEngine, Finding
from worker.engine.finding_facts import dense_of, facts_of, preview_dense_of
from worker.engine.fit import check_fit
from worker.engine.flow_options import for_analyses
from worker.engine.formats.datasets import inspect_dataset, open_dataset
from worker.engine.from_loader import gather, write_dataset
from worker.engine.from_module import canonical_form
from worker.engine.known_curves import JSON, Key, KnownCurves, Point
from worker.engine.recalibration import has_batch_norm, remarks
from worker.engine.search import GridSearch, KneeSearch, RefiningSearch, Search, curves
from worker.engine.sensitivity import Cell
from worker.engine.units import Unit, weight_units


class Sensitivity:
    """The sensitivity curves of one network on one loader's samples.

    `model`: an `nn.Module` on the CPU, left as it is. `loader`: a DataLoader (or list of batches)
    of `(inputs..., labels)`: what curves are measured on. `train`: another one, for criteria that
    need data and for batch norms. `task`: classification, regression or language-modelling.
    `units`: state_dict keys, by default every weight that can be pruned. `evaluation`: any of
    `mode` ("adaptive", "exact", "knee"), `half_width`, `relative`, `confidence`, `tolerance`,
    `method`, `precision`, `refine`, as `app.domain.goals` has them. `recalibrate_batch_norm`:
    statistics are re-estimated on `train` for every point and for the dense network.

    Raises InvalidInput, InvalidFile or InputMismatch, each with a sentence and what to do.
    """

    def __init__(
        self,
        model: Any,
        loader: Any,
        *,
        train: Any = None,
        criteria: Sequence[str] | str = ("magnitude",),
        sparsities: Sequence[float] = DEFAULT_SPARSITIES,
        units: Sequence[str] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        recalibrate_batch_norm: bool = False,
        seed: int = 0,
        task: str = "classification",
        options: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> None:
        self.criteria = [criteria] if isinstance(criteria, str) else list(criteria)
        self.seed = seed
        self.recalibrate_batch_norm = recalibrate_batch_norm
        self.evaluation = checked_evaluation(evaluation)
        self._levels = to_levels(sparsities)
        needy = [name for name in self.criteria if get_criterion(name).needs.data]
        self._check(task, train)
        self._folder = tempfile.TemporaryDirectory(prefix="prunescope-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        wanted = {"tune": (loader, "The loader")}
        if train is not None and (needy or recalibrate_batch_norm):
            wanted["train"] = (train, "The train loader")
        parts = {
            part: gather(given, name, folder, task=task, seed=seed)
            for part, (given, name) in wanted.items()
        }
        write_dataset(parts, folder / "data.npz")
        examples = parts["tune"].examples
        del parts
        self.notes = inspect_dataset(folder / "data.npz", task, options).notes
        """Sentences about the data and the network that are worth knowing."""
        self._dataset = open_dataset(folder / "data.npz", task, options)
        self._samples = len(self._dataset.split("tune"))
        model = canonical_form(model, examples, folder)
        check_fit(model, self._dataset)
        if recalibrate_batch_norm:
            self.notes = [*self.notes, *remarks(model)]
        all_units = weight_units(model)
        self.units = chosen_units(all_units, units)
        self._engine = CurveEngine(
            model,
            self._dataset.split("tune"),
            all_units,
            seed=seed,
            threads=threads,
            train=self._dataset.split("train") if "train" in wanted else None,
            recalibrated=recalibrate_batch_norm and has_batch_norm(model),
            options=for_analyses(self.evaluation["precision"]),
            at_random=self.evaluation["method"] == "sequence",
        )
        self._sharpenings: list[JSON] = []
        self._runs: list[CellRun] = []
        self._found = KnownCurves([unit.id for unit in self.units], self.criteria)
        self._running = threading.Lock()

    def _check(self, task: str, train: Any) -> None:
        """Raises InvalidInput for what is wrong before anything is read."""
        if task not in list(Task):
            raise InvalidInput(f"There is no task {task!r}.", f"Say one of {', '.join(Task)}.")
        if not self.criteria or not self._levels:
            what = "criterion" if not self.criteria else "sparsity"
            raise InvalidInput(f"There is no {what} to measure.", f"Give at least one {what}.")
        if self.recalibrate_batch_norm and train is None:
            raise InvalidInput(
                "Batch norms are re-estimated from training samples, and there are none.",
                "Pass train=, a loader of them.",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        what = f"{len(self.units)} units, {', '.join(self.criteria)}, {len(self._levels)} levels"
        return f"<Sensitivity: {what}, {len(self._found.known)} points known>"

    def close(self) -> None:
        """Remove the copy of the data. Curves stay readable; nothing more can be measured."""
        self._dataset.close()
        self._folder.cleanup()

    # Measuring.

    @property
    def baseline(self) -> JSON:
        """The dense network's figures: `accuracy`, `loss`, `samples`, `metrics` and an interval."""
        return self._found.baseline(self._measured_dense())

    @property
    def remaining_seconds(self) -> float | None:
        """How long what is being measured will take still, None where that is unknown."""
        return self._engine.remaining_seconds

    @property
    def evaluated_samples(self) -> int:
        """How many times a sample was run through a pruned network."""
        return self._engine.evaluated_samples

    def run(self, *, live: bool = False) -> Iterator[Point]:
        """Measure what is not known yet; each point as soon as it is as sharp as was asked for.

        With `live`, points come again and again as they get sharper, at first as a preview from a
        few samples, coarse levels of all units first. Stopping in the middle (`break`, Ctrl-C)
        loses nothing that has come: the next `run` goes on from there.
        """
        if not self._running.acquire(blocking=False):
            raise InvalidInput("This study is running already.", "Wait for its other loop to end.")
        try:
            for key, settled in as_iterator(self._measure):
                if live or settled:
                    yield self._found.point(key, self._goals)
        finally:
            self._running.release()

    def sharpen(
        self,
        *,
        units: Sequence[str] | None = None,
        sparsities: tuple[float, float] | None = None,
        half_width: float | None = None,
        exact: bool = False,
    ) -> Self:
        """Ask for more of some units, between two sparsities: a half-width, or all samples.

        The next `run` measures it, going on from what is known.
        """
        if exact == (half_width is not None):
            raise InvalidInput("How sharp?", "Give half_width=, or exact=True.")
        if half_width is not None and (faults := faults_of({"half_width": half_width})):
            raise InvalidInput(f"half_width: {faults['half_width']}")
        chosen = None if units is None else [unit.id for unit in chosen_units(self.units, units)]
        span = None if sparsities is None else list(sparsities)
        asked = {"units": chosen, "sparsities": span, "half_width": half_width, "exact": exact}
        self._sharpenings.append(asked)
        return self

    def _measure(
        self,
        tell: Callable[[tuple[Key, bool]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        engine = self._engine
        self._found.refused = engine.prepare(self.criteria, should_stop)
        goals = self._goals

        def found(finding: Finding) -> None:
            dense = preview_dense_of(engine) if finding.preview else self._measured_dense()
            facts = facts_of(engine, finding, dense, goals)
            tell((self._found.add(facts), finding.settled))

        for search in self._searches(goals):
            engine.measure(search, found, should_stop)

    def _searches(self, goals: Goals) -> list[Search]:
        """What is to be measured, one after the other."""
        cells = [
            Cell(unit.id, name, level)
            for unit in self.units
            for name in self.criteria
            if (unit.id, name) not in self._found.refused
            for level in self._levels
        ]
        engine = self._engine
        if not self._runs:
            self._runs = engine.runs_for([(c, goals.of_cell(c.unit, c.level)) for c in cells])
        for run in self._runs:
            run.goal = _strictest(run, goals)
            if run.seen:
                run.judge(engine.strata)
        refine = self._more_levels(int(goals.evaluation["refine"]))
        if goals.mode != "knee":
            if not any(refine.values()):
                return [GridSearch(self._runs)]
            search = RefiningSearch(
                self._runs, lambda: engine.strata, goals.tolerance, refine, self._new_run
            )
            return [search]
        sharper = [run for run in self._runs if _sharpened(run, goals)]
        rest = [run for run in self._runs if not _sharpened(run, goals)]
        knees = KneeSearch(rest, lambda: engine.strata, goals.tolerance, refine, self._new_run)
        return [knees, *([GridSearch(sharper)] if sharper else [])]

    def _more_levels(self, refine: int) -> dict[tuple[str, str], int]:
        """How many levels beside the grid each curve may get still."""
        left = dict.fromkeys(curves(self._runs), refine)
        for run in self._runs:
            left[run.unit, run.criterion] -= run.cells[0].level not in self._levels
        return left

    def _new_run(self, cell: Cell) -> CellRun:
        (run,) = self._engine.runs_for([(cell, self._goals.of_cell(cell.unit, cell.level))])
        self._runs.append(run)
        return run

    def _measured_dense(self, should_stop: Callable[[], bool] | None = None) -> Dense:
        if self._found.dense is None:
            self._engine.predictions(should_stop)
            self._found.dense, self._found.interval = dense_of(self._engine)
        return self._found.dense

    @property
    def _goals(self) -> Goals:
        return Goals.of(self.evaluation, self._sharpenings, self._samples)

    # What is known.

    @property
    def remarks(self) -> list[JSON]:
        """Why a unit has no curve by a criterion: `{unit, criterion, reason}`."""
        return self._found.remarks()

    def points(self) -> list[Point]:
        """All that is known, by unit in network order, criterion and rising sparsity."""
        return self._found.points(self._goals)

    def curves(self) -> list[JSON]:
        """One curve a unit and criterion: `unit`, `criterion`, `points`, `knee`, `fit`, `remark`.

        As `GET /api/analyses/{id}` gives them.
        """
        return self._found.curves(self._goals)

    def document(self) -> JSON:
        """Everything, as `curves.json` of `prunescope analyse` has it, less the names of files."""
        return {
            "split": "tune",
            "granularity": "weight",
            "sparsities": [to_sparsity(level) for level in self._levels],
            "recalibrate_batch_norm": self.recalibrate_batch_norm,
            "seed": self.seed,
            "samples_evaluated": self.evaluated_samples,
            **self._found.document(self._measured_dense(), self._goals),
        }

    def to_csv(self, path: str | Path) -> None:
        """One row a point; the first columns are `parameter,sparsity,top1,top5,loss`."""
        text = self._found.csv(self._measured_dense(), self._goals)
        Path(path).write_text(text, newline="")

    def rows(self) -> list[JSON]:
        """One flat dictionary a point, every metric with its interval in columns of its own."""
        return self._found.rows(self._measured_dense(), self._goals)

    def to_frame(self) -> Any:
        """`rows` as a pandas DataFrame. Raises InvalidInput where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise InvalidInput(
                "pandas is not installed.", "pip install pandas, or use rows() or to_csv()."
            ) from None
        return pandas.DataFrame(self.rows())


def checked_evaluation(asked: Mapping[str, Any] | None) -> JSON:
    """With all its fields. Raises InvalidInput for those that make no sense."""
    faults = faults_of(asked or {})
    if faults:
        said = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        raise InvalidInput(f"The evaluation can't be as asked for. {said}", fields=faults)
    return evaluation_of(asked)


def chosen_units(units: Sequence[Unit], ids: Sequence[str] | None) -> list[Unit]:
    """The prunable ones, or those of these names. Raises InvalidInput for one that can't be."""
    prunable = {unit.id: unit for unit in units if unit.prunable}
    if ids is None:
        if not prunable:
            raise InvalidInput(
                "The network has no weight that can be pruned.",
                "Weights are parameters of two and more axes: of convolutions, linear layers, …",
            )
        return list(prunable.values())
    reasons = {unit.id: unit.reason for unit in units}
    for name in ids:
        if name not in prunable:
            raise InvalidInput(
                f"{name!r} can't be pruned. {reasons.get(name) or 'There is no such parameter.'}",
                f"Units are the keys of the state_dict: {', '.join(list(prunable)[:5])}, …",
            )
    return [unit for unit in prunable.values() if unit.id in set(ids)]


def _strictest(run: CellRun, goals: Goals) -> Goal:
    """The goal of a run that stands for several cells."""
    return reduce(Goal.joined, [goals.of_cell(cell.unit, cell.level) for cell in run.cells])


def _sharpened(run: CellRun, goals: Goals) -> bool:
    return any(goals.sharpened(cell.unit, cell.level) is not None for cell in run.cells)
