"""Curves that are good enough to decide on within seconds, and sharper until they are exact.

All cells see the samples of the split in one order (`stream.py`). First every cell sees a few, as
a preview; then each goes on from look to look until its goal is reached or the split is used up.
Batches outside, units inside, as in `sensitivity.py`: a pass computes the dense prefix of a batch
once for all of its cells. A cell that has seen all samples has the figures of the whole split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from app.domain.adaptive import Strata, Sums
from app.domain.errors import InvalidInput
from app.domain.levels import coarse_to_fine
from app.domain.metrics import Kind
from app.domain.stream_order import PREVIEW
from worker.engine.arithmetic import Arithmetic, beside_float32
from worker.engine.calibration_pass import CalibrationPass, PrunedCell
from worker.engine.cell_run import Bits, CellRun
from worker.engine.curve_pulse import CurvePulse
from worker.engine.dense_seen import DenseSeen
from worker.engine.evaluation import paired_with_itself
from worker.engine.objectives import Evaluation, Judged
from worker.engine.passes import Pass, Whole, pass_length
from worker.engine.pulse import Pulse
from worker.engine.sample_order import SampleOrder
from worker.engine.sensitivity import Cell, SensitivityEngine
from worker.engine.stream import DenseStream, Stream, sizes_of
from worker.engine.watch import Watch, sums_of_preview

if TYPE_CHECKING:
    from worker.engine.search import Search

_MOST_HITS = 2**26
"""With more answers than this in a split their hits are not kept."""
_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Finding:
    """What is known of a cell now. `whole`: the figures of the whole split, once it is measured.

    `preview`: the strata are not known yet; all samples count as of stratum 0.
    """

    cell: Cell
    run: CellRun
    samples: int
    of: int
    settled: bool
    whole: Evaluation | None
    raw: Evaluation
    preview: bool = False


class CurveEngine(SensitivityEngine):
    """Measures cells along the stream. As `SensitivityEngine`; `measure` in the place of `run`.

    `at_random`: samples come in a simple random order instead of a stratified one.
    """

    def __init__(self, *args: Any, at_random: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self._at_random = at_random
        self._stream: Stream | None = None
        self._dense_stream: DenseStream | None = None
        self._seen: DenseSeen
        self._arithmetic: Arithmetic | None = None
        self._calibration: CalibrationPass | None = None
        self._first_scale = 1.0
        self.preview_dense: Evaluation | None = None
        """The dense network on the samples of the preview, once there was one."""
        self._left: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)
        self._measured_samples = 0

    @property
    def evaluated_samples(self) -> int:
        """Samples times cells run so far."""
        return self._measured_samples

    @property
    def stream(self) -> Stream:
        """The order of the samples; the dense network is run for it once. Raises InputMismatch."""
        if self._stream is None:
            self.predictions()
            self._stream = self._order.of_split(self._seen)
            with self._running():
                flow = self._compiled()
                self._dense_stream = DenseStream(
                    self._model, self._stream, self.objective, Whole(flow), self._near_ties()
                )
            self._seen.forget()
        return self._stream

    @cached_property
    def _order(self) -> SampleOrder:
        return SampleOrder(
            self._split, self.objective, self._samples, self._seed, self.batch_size,
            self._model.fixed_batch, self._at_random,
        )  # fmt: skip

    @property
    def strata(self) -> Strata:
        return self.stream.strata

    @property
    def dense_hits(self) -> Bits | None:
        """Which of the dense network's answers are right, in stream order; None for numbers."""
        order = self.stream.order
        if self._seen.hits is None:
            return None
        bits = Bits()
        bits.add(np.concatenate(self._seen.hits)[order])
        return bits

    def arithmetic(self, should_stop: Callable[[], bool] | None = None) -> Arithmetic | None:
        """How far bfloat16 is from float32; None where it was not asked for. Raises Stopped."""
        if self._options.precision == "float32":
            return None
        if self._arithmetic is None:
            stream = self.stream
            assert self._dense_stream is not None
            with self._running():
                self._arithmetic = beside_float32(
                    self._model, stream, self._dense_stream, self.objective, self._compiled(),
                    Pulse(should_stop),
                )  # fmt: skip
        return self._arithmetic

    def runs_for(self, wanted: Iterable[tuple[Cell, Any]]) -> list[CellRun]:
        """One run for all cells of a unit and criterion that remove as much, coarse levels first.

        `wanted` are cells with their goals; those that share a run get a goal that reaches both.
        """
        goals = dict(wanted)
        found: dict[tuple[str, str, int], CellRun] = {}
        for cell in self._ordered(list(goals)):
            removed, size = self._removed(cell), self._by_id[cell.unit].size
            key = (cell.unit, cell.criterion, removed)
            if key in found:
                found[key].cells.append(cell)
                found[key].goal = found[key].goal.joined(goals[cell])
            else:
                hits = Bits() if self._keeps_hits else None
                found[key] = CellRun([cell], removed, size, goals[cell], hits=hits)
        return list(found.values())

    def resume(self, run: CellRun, known: Mapping[str, Any]) -> None:
        """Let a run go on from `{samples, sums, state}` of an earlier one, along the same stream.

        Raises InvalidInput, the run being as it was, where it can't be gone on from.
        """
        stream, before = self.stream, replace(run)
        run.resume(known, stream.mark)
        try:
            seen = stream.members[: run.seen]
            if run.seen not in stream.looks or not np.array_equal(run.sums.n, sizes_of(seen)):
                raise InvalidInput(
                    "What was kept of a point is of another stream.", "Measure it again."
                )
            assert run.state is not None
            self.objective.restore([run.state])
            _, labels = self._split.batch(0, 1)
            if run.hits is not None and run.hits.count != labels.numel() * run.seen:
                raise InvalidInput(
                    "What was kept of a point has other answers.", "Measure it again."
                )
        except InvalidInput:
            vars(run).update(vars(before))
            raise

    def packed_state(self, run: CellRun) -> str | None:
        """All but the sums that `resume` needs, as text; None where it would be large.

        None too for a preview, whose sums are of no strata yet.
        """
        return None if run.preview is not None else run.packed_state(self.stream.mark)

    def measure(
        self,
        search: Search,
        on_finding: Callable[[Finding], None],
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[float], None] | None = None,
        on_dense: Callable[[], None] | None = None,
        preview: bool = True,
    ) -> None:
        """Measure what `search` asks for until it asks for nothing more.

        `on_finding` gets each cell again whenever it is known better: after the preview, now and
        then, and once for all when it is settled. `on_dense` is called when the dense network has
        been measured on the whole split, which a preview does not wait for.

        Raises Stopped within a few hundred milliseconds of `should_stop()` turning true,
        InvalidInput for a cell that doesn't fit the units.
        """
        pulse = self._pulse = CurvePulse(should_stop, on_progress, lambda: self._left())
        pulse.check()
        self.prepare(list(dict.fromkeys(run.criterion for run in search.runs())), should_stop)
        # Batch norms re-estimated for each cell cost more than a preview is worth.
        early = preview and self._dense is None and not self._recalibrated
        if early and self._samples > 2 * PREVIEW and len(self._order.first) < self._samples:
            fresh = [run for run in search.runs() if run.removed and run.seen == 0]
            self._preview(fresh, on_finding, pulse)
        self.predictions(should_stop)
        stream = self.stream
        if on_dense is not None:
            on_dense()
        self._left = lambda: self._work(search)
        for run in search.runs():
            self._rebin(run, stream)
        told = time.monotonic()
        while active := search.active():
            idle = [run for run in active if run.removed == 0]
            if idle:
                for run in idle:
                    self._settle_whole(run)
                    self._tell(run, on_finding)
                search.settled(idle)
                continue
            partial_runs = [run for run in active if not run.goal.whole]
            if partial_runs:
                seen = min(run.seen for run in partial_runs)
                group = [run for run in partial_runs if run.seen == seen]
                until = stream.next_look(seen)
            else:
                seen = active[0].seen
                group = [run for run in active if run.seen == seen]
                until = self._samples
            done = self._advance(group, until, on_finding, pulse, told)
            if done:
                told = time.monotonic()
            search.settled([run for run in group if run.settled])
            pulse.tell()
        self._left = lambda: (1.0, 0.0)
        pulse.tell()

    def remark_on(self, unit: str, criterion: str) -> str | None:
        """What people should know of the order in which entries leave."""
        return self._removal(unit, criterion).remark

    def evaluation(self, run: CellRun) -> Evaluation:
        """The figures of the samples seen so far, as they are."""
        if run.removed == 0 or run.state is None:
            return self.baseline()
        return self.objective.restore([run.state]).evaluation(0)

    # How a pass goes.

    def _advance(
        self,
        group: Sequence[CellRun],
        until: int,
        on_finding: Callable[[Finding], None],
        pulse: Pulse,
        told: float,
    ) -> bool:
        """Bring runs that have seen the same samples to `until`; whether all of them were told."""
        seen = group[0].seen
        share = (until - seen) / self._samples
        prefix = sum(self._seconds) * share
        costs = [self._cost(run.unit) * share for run in group]
        at, position = 0, 2
        # What is first known beyond a preview, and long passes, are told as they end; the short
        # ones that follow would spend their time on telling.
        telling = seen <= PREVIEW or time.monotonic() - told >= _TELL_SECONDS
        while at < len(group):
            length = pass_length(costs[at:], prefix, position, self.objective.row_bytes)
            some = group[at : at + length]
            with self._running():
                self._pass(some, self.stream.bounds(seen, until), pulse)
            for run in some:
                run.judge(self.strata)
                if run.settled or telling:
                    self._tell(run, on_finding)
            at += length
            position += 1
            pulse.tell()
        return telling

    def _pass(
        self, runs: Sequence[CellRun], bounds: Sequence[tuple[int, int]], pulse: Pulse
    ) -> None:
        """Show the runs these batches of the stream. Call it within `_running`."""
        assert self._dense_stream is not None
        watches = self._watches(runs, pulse)
        jobs = [watch.job for watch in watches]
        one_pass = Pass(self._compiled(), jobs, self._near_ties())
        for start, stop in bounds:
            batch = self._dense_stream.batch(start, stop)
            for watch in watches:
                watch.batch = batch
            share = (stop - start) / self._samples
            one_pass.run_batch(
                batch.inputs, batch.labels, batch.answers, pulse, share, batch.reference
            )
            self._measured_samples += (stop - start) * len(runs)
        for watch in watches:
            watch.finish(bounds[-1][1])

    def _watches(self, runs: Sequence[CellRun], pulse: Pulse) -> list[Watch]:
        grouped: dict[tuple[str, str], list[CellRun]] = {}
        for run in runs:
            grouped.setdefault((run.unit, run.criterion), []).append(run)
        if self._recalibrated:
            self._estimate_statistics(runs, pulse)
        jobs = self._jobs([run.cells[0] for run in runs])
        watches = []
        for key, some in grouped.items():
            some.sort(key=lambda run: run.removed)
            job = jobs[key]
            known = [run.state for run in some if run.state is not None]
            if known:
                # All have seen the same samples: none is without.
                job.tally = self.objective.restore(known)
            if self._recalibrated:
                job.statistics = [run.statistics for run in some]
            watches.append(Watch(job, some, self._scale, keep=self._stream is None))
        return watches

    def _estimate_statistics(self, runs: Sequence[CellRun], pulse: Pulse) -> None:
        """What batch norms have in each cell, found once and kept."""
        waiting = [run for run in runs if run.statistics is None]
        if not waiting:
            return
        if self._calibration is None:
            assert self._train is not None
            self._calibration = CalibrationPass(self._model, self._train, self._seed)
        found = self._calibration.run([self._pruned(run) for run in waiting], pulse.should_stop)
        for run, statistics in zip(waiting, found, strict=True):
            run.statistics = statistics

    def _pruned(self, run: CellRun) -> PrunedCell:
        weight, removal = self._weight(run.unit), self._removal(run.unit, run.criterion)
        original = weight

        def prune() -> None:
            nonlocal original
            original = weight.clone()
            new = removal.weight(run.removed)
            if new is None:
                weight.masked_fill_(removal.rank < run.removed, 0)
            else:
                weight.copy_(new)

        return PrunedCell(weight, prune, lambda: weight.copy_(original))

    # The dense network, and the stream that follows from it.

    def _see_dense(self, start: int, outputs: Tensor, labels: Tensor, judged: Judged) -> None:
        if start == 0:
            # An earlier run may have been stopped.
            self._seen = DenseSeen(self.objective, self._keeps_hits)
        self._seen.add(outputs, labels, judged)

    @property
    def _keeps_hits(self) -> bool:
        if self.objective.kind is Kind.REGRESSION:
            return False
        _, labels = self._split.batch(0, 1)
        return labels.numel() * self._samples <= _MOST_HITS

    @property
    def _scale(self) -> float:
        return self._stream.strata.scale if self._stream is not None else self._first_scale

    # The preview, before anything is known of the split.

    def _preview(
        self, runs: Sequence[CellRun], on_finding: Callable[[Finding], None], pulse: Pulse
    ) -> None:
        with self._running():
            flow = self._compiled()
            stream = self._order.of_preview()
            dense = DenseStream(self._model, stream, self.objective, Whole(flow), self._near_ties())
            bounds = stream.bounds(0, len(self._order.first))
            self._seconds = [0.0] * flow.count
            self.preview_dense = self._preview_dense(dense, bounds)
            self._first_scale = len(self._order.first) / max(1, self.preview_dense.judged)
        self._dense_stream = dense
        turn = coarse_to_fine([run.cells[0].level for run in runs])
        for level in turn:
            some = [run for run in runs if run.cells[0].level == level]
            with self._running():
                self._pass(some, bounds, pulse)
            for run in some:
                self._tell(run, on_finding, preview=True)
        self._dense_stream = None
        self._costs.clear()

    def _preview_dense(self, dense: DenseStream, bounds: Sequence[tuple[int, int]]) -> Evaluation:
        tally = self.objective.tally(1)
        for start, stop in bounds:
            batch = dense.batch(start, stop)
            outputs = self.objective.outputs(Whole(self._compiled())(batch.inputs), batch.labels)
            tally.add(outputs.unsqueeze(0), batch.labels, None)
        return paired_with_itself(tally.evaluation(0))

    @property
    def preview_strata(self) -> Strata:
        """What a preview's sums are of: a split in one stratum."""
        return self._order.preview_strata(self._first_scale)

    def _rebin(self, run: CellRun, stream: Stream) -> None:
        """Put a preview's samples into their strata, now that these are known."""
        if run.preview is None:
            return
        run.sums = sums_of_preview(run, stream.members, stream.strata.scale)
        run.preview = None

    # Telling.

    def _settle_whole(self, run: CellRun) -> None:
        """With nothing removed it is the dense network."""
        run.sums = Sums(n=np.asarray(self.strata.sizes, dtype=np.float64))
        run.seen, run.settled = self._samples, True

    def _tell(
        self, run: CellRun, on_finding: Callable[[Finding], None], preview: bool = False
    ) -> None:
        raw = self.evaluation(run)
        whole = raw if run.seen == self._samples else None
        for cell in run.cells:
            on_finding(
                Finding(cell, run, run.seen, self._samples, run.settled, whole, raw, preview)
            )

    def _work(self, search: Search) -> tuple[float, float]:
        """Seconds of work done and left, by what nodes cost and cells will need."""
        done = left = 0.0
        for run in search.runs():
            if run.removed:
                done += self._cost(run.unit) / self._samples * run.seen
        for run in search.expected():
            if run.removed:
                more = run.needed(self.strata) - run.seen
                left += self._cost(run.unit) / self._samples * more
        return done, left
