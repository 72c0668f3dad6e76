"""Which weights leave first: one registry, one family a file.

A new criterion is a small class in its own file, a line in `registry.py` and its facts in
`app/domain/criteria.py`.
"""

from worker.engine.criteria.base import (
    CannotRank,
    Criterion,
    Refusal,
    Removal,
    Statistic,
    Subject,
)
from worker.engine.criteria.ranks import removal_order, removal_rank
from worker.engine.criteria.registry import CRITERIA, get_criterion, operators_own
from worker.engine.criteria.removing import removals

__all__ = [
    "CRITERIA",
    "CannotRank",
    "Criterion",
    "Refusal",
    "Removal",
    "Statistic",
    "Subject",
    "get_criterion",
    "operators_own",
    "removal_order",
    "removal_rank",
    "removals",
]
