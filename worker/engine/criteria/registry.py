"""The criteria by name: the built-in ones, and those of the operator's own packages.

A package says in its `pyproject.toml`:

    [project.entry-points."prunescope.criteria"]
    mine = "my_scores.mine:Mine"

and `Mine` is a subclass of `worker.engine.criteria.Criterion` whose `facts.name` is the name of the
entry point. One that can't be loaded is reported with a sentence and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from app.domain.errors import InvalidInput
from worker.engine.criteria.base import Criterion
from worker.engine.criteria.filters import BatchNormScale, FilterL1, FilterL2, Fpgm
from worker.engine.criteria.gradients import Fisher, Snip, Taylor
from worker.engine.criteria.magnitude import Lamp, Magnitude
from worker.engine.criteria.random import Random
from worker.engine.criteria.sparsegpt import SparseGpt, SparseGptUpdate
from worker.engine.criteria.wanda import Wanda

GROUP = "prunescope.criteria"

_BUILT_IN: tuple[type[Criterion], ...] = (
    Magnitude,
    Random,
    Lamp,
    Taylor,
    Fisher,
    Snip,
    Wanda,
    SparseGpt,
    SparseGptUpdate,
    FilterL1,
    FilterL2,
    BatchNormScale,
    Fpgm,
)

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {kind.facts.name: kind() for kind in _BUILT_IN}
)
"""The built-in criteria, in the order of `app.domain.criteria.CRITERIA`."""


def get_criterion(name: str) -> Criterion:
    """The criterion of this name.

    Raises InvalidInput that lists the known ones, or says why a registered one can't be loaded.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    own, faults = operators_own()
    if name in own:
        return own[name]
    if name in faults:
        raise InvalidInput(faults[name], "Ask whoever runs this server to correct it.")
    raise InvalidInput(
        f"There is no criterion called {name!r}.",
        f"Use one of: {', '.join([*CRITERIA, *own])}.",
    )


@cache
def operators_own() -> tuple[Mapping[str, Criterion], Mapping[str, str]]:
    """The criteria registered by other packages, and for each that is broken a sentence why."""
    known: dict[str, Criterion] = {}
    faults: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            known[point.name] = _loaded(point)
        except Exception as error:
            # Another's code: whatever it raises, the other criteria go on.
            said = str(error) or type(error).__name__
            faults[point.name] = f"The criterion {point.name} can't be used: {said[:300]}"
    return MappingProxyType(known), MappingProxyType(faults)


def _loaded(point: EntryPoint) -> Criterion:
    if point.name in CRITERIA:
        raise ValueError("the name is that of a built-in criterion.")
    made = point.load()
    criterion = made() if isinstance(made, type) else made
    if not isinstance(criterion, Criterion):
        raise TypeError(f"{point.value} is no worker.engine.criteria.Criterion.")
    if criterion.facts.name != point.name:
        raise ValueError(f"it calls itself {criterion.facts.name!r}.")
    return criterion
