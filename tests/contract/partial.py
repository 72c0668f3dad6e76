"""Points of parts of the split, as a worker would store them."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from app.domain.adaptive import Strata, Sums
from app.domain.levels import to_level
from app.domain.metrics import METRICS, Kind
from app.domain.point_facts import PointFacts, estimated
from app.domain.statistics import wilson
from app.domain.stream_order import STRATA
from app.store import known, points, queue
from app.store.queue import Lease
from app.store.tables import Analysis, Baseline, Outcome, Point
from tests.contract.site import SAMPLES, Site, context_of, publish_points

SIZES = (50, 100, 100, 150, 150, 150, 150, 150)
"""Strata of the thousand samples; the dense network is wrong on the first of them."""


def stream(seed: int = 0) -> np.ndarray:
    """The stratum of each sample of the stream [samples]."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(STRATA), SIZES))


def write_dense(site: Site, lease: Lease) -> np.ndarray:
    """The baseline with its strata and answers; which of these are right, in stream order."""
    context, members = context_of(site, lease), stream()
    right = members != 0
    interval = wilson(950, SAMPLES)
    figure = {"value": 0.95, "low": interval.low, "high": interval.high}
    nothing = {"value": None, "low": None, "high": None}
    metrics = {metric.name: nothing for metric in METRICS[Kind.SINGLE_LABEL]}
    row = Baseline(
        context=context, kind="single-label", samples=SAMPLES, correct=950, accuracy=0.95, loss=0.2,
        low=interval.low, high=interval.high, strata=Strata(SIZES).as_json(),
        metrics=metrics | {"accuracy": figure, "loss": nothing | {"value": 0.2}},
    )  # fmt: skip
    dense = Outcome(
        context=context, unit="", criterion="", level=0, samples=SAMPLES, hits=packed(right),
        by_class={"seen": [600, 400], "right": [560, 390]},
        state=zlib.compress(members.astype(np.uint8).tobytes()),
    )  # fmt: skip
    with queue.fenced(site.store, lease) as session:
        points.add_baseline(session, row)
        points.add_outcomes(session, [dense])
    return right


def packed(bits: np.ndarray) -> bytes:
    return zlib.compress(np.packbits(bits).tobytes())


def write_part(
    site: Site,
    lease: Lease,
    unit: str,
    sparsity: float,
    right: np.ndarray,
    *,
    criterion: str = "magnitude",
    size: int = 320,
    remark: str | None = None,
    state: bytes | None = b"state",
) -> dict[str, Any]:
    """A point of the first samples of the stream; `right` [samples] are its answers to them.

    Returns the columns that follow from its sums.
    """
    context, members = context_of(site, lease), stream()
    samples = len(right)
    dense_right = (members != 0)[:samples]
    lost, gained = int((dense_right & ~right).sum()), int((right & ~dense_right).sum())
    sums = Sums(lost=lost, gained=gained)
    sums.add(members[:samples], dense_right.astype(float) - right)
    with site.store.read() as session:
        baseline = session.get_one(Baseline, context)
        confidence = known.goals_of(
            session.get_one(Analysis, lease.payload["analysis_id"]), dataset_of(session, lease)
        ).confidence
    own = estimated(known.dense_of(baseline), sums.as_json(), confidence, "looks")
    whole = samples == SAMPLES
    if whole:
        drop = (lost - gained) / SAMPLES
        interval = wilson(int(right.sum()), SAMPLES)
        own |= {"drop": drop, "drop_low": drop - 0.01, "drop_high": drop + 0.01}
        own |= {"low": interval.low, "high": interval.high, "accuracy": right.mean().item()}
    level = to_level(sparsity)
    facts = PointFacts(
        unit, criterion, level, size, round(sparsity * size), samples, flips=lost + gained,
        lost=lost, gained=gained, correct=int(right.sum()), of=SAMPLES, remark=remark,
        sums=None if whole else sums.as_json(), **own,
    )  # fmt: skip
    publish_points(site, lease, [Point(context=context, **facts._asdict())])
    outcome = Outcome(
        context=context, unit=unit, criterion=criterion, level=level, samples=samples,
        hits=packed(right), by_class={"seen": [samples - 40, 40], "right": [int(right.sum()), 0]},
        sums=sums.as_json(), state=state,
    )  # fmt: skip
    with queue.fenced(site.store, lease) as session:
        points.add_outcomes(session, [outcome])
    return own


def dataset_of(session: Any, lease: Lease) -> Any:
    from app.store.tables import Dataset

    row = session.get_one(Analysis, lease.payload["analysis_id"])
    return session.get_one(Dataset, row.dataset_id)
