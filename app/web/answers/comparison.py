"""Criteria beside each other."""

from __future__ import annotations

from pydantic import BaseModel


class Criterion(BaseModel):
    """`needs`: `nothing`, `inputs` (samples of train), `gradients` (with labels), `unknown`."""

    name: str
    title: str
    description: str
    source: str
    needs: str
    rewrites: bool


class CriterionList(BaseModel):
    items: list[Criterion]


class Compared(BaseModel):
    """The best and the second best criterion at one level of one unit, by their drops.

    `difference`: by how much the best is ahead, as a share of answers, with its interval; null
    where answers are not right or wrong. `p`: McNemar's mid-p on the `samples` that both were
    measured on. `significant`: larger than the noise.
    """

    unit: str
    sparsity: float
    best: str
    runner_up: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    samples: int | None
    significant: bool | None


class BestOfUnit(BaseModel):
    """`best`: the criterion with the smallest mean drop over the levels where all are known.

    `significant`: ahead of the second best by more than the noise at one level at least, and
    nowhere behind by more. `drops`: the mean drop of each.
    """

    unit: str
    best: str
    significant: bool
    drops: dict[str, float]
    levels: int


class Comparison(BaseModel):
    items: list[Compared]
    units: list[BestOfUnit]
