"""How far an analysis in bfloat16 is from one in float32, measured on its dense network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from worker.engine.batches import load_batch
from worker.engine.flow_options import Precision
from worker.engine.objectives import Objective
from worker.engine.passes import Whole
from worker.engine.pulse import Pulse
from worker.engine.stream import DenseStream, Stream
from worker.engine.suffix import Flow

if TYPE_CHECKING:
    from worker.engine.graph import CanonicalModel

COMPARED = 1024
"""So many samples of the stream, its first ones, are run in float32 too."""


@dataclass(frozen=True)
class Arithmetic:
    """`used`: what was computed in; `reason`: why that is not bfloat16.

    Of `answers` answers of the stream's first `samples` samples `differing` are others than those
    of the plain network in float32; None for regression. `loss` and `loss_float32` are of the same
    samples, None when not finite.
    """

    used: Precision
    reason: str | None = None
    samples: int = 0
    answers: int = 0
    differing: int | None = None
    loss: float | None = None
    loss_float32: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def beside_float32(
    model: CanonicalModel,
    stream: Stream,
    dense: DenseStream,
    objective: Objective,
    flow: Flow,
    pulse: Pulse,
) -> Arithmetic:
    """Compare a flow in bfloat16 with the plain network. Call it in inference mode.

    Raises Stopped between batches.
    """
    if flow.reason is not None:
        return Arithmetic("float32", flow.reason)
    count = next((look for look in stream.looks if look >= COMPARED), stream.looks[-1])
    sample, _ = load_batch(model, stream.split, 0, min(2, len(stream.split)))
    plain, own = Whole(Flow(model.module, sample)), Whole(flow)
    narrow, wide = objective.tally(1), objective.tally(1)
    for start, stop in stream.bounds(0, count):
        inputs, labels = load_batch(model, stream.split, start, stop)
        answers = dense.batch(start, stop).answers
        outputs = objective.outputs(own(inputs), labels)
        narrow.judge(outputs.unsqueeze(0), labels, None)
        outputs = objective.outputs(plain(inputs), labels)
        wide.judge(outputs.unsqueeze(0), labels, answers)
        pulse.check()
    found, exact = narrow.evaluation(0), wide.evaluation(0)
    return Arithmetic("bfloat16", None, count, found.judged, exact.flips, found.loss, exact.loss)
