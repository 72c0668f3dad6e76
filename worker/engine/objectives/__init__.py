"""How a network is judged and trained: one objective for each kind of task."""

from worker.engine.objectives.base import (
    IGNORED,
    UNDECIDED,
    ByClass,
    Evaluation,
    Judged,
    Objective,
    Predictions,
    Tally,
    first_tensor,
)
from worker.engine.objectives.choose import LabelFacts, choose, label_facts, objective_for
from worker.engine.objectives.divergence import Reference
from worker.engine.objectives.labels import MultiLabel
from worker.engine.objectives.numbers import Regression
from worker.engine.objectives.positions import Positions
from worker.engine.objectives.single import SingleLabel
from worker.engine.objectives.states import State

__all__ = [
    "IGNORED",
    "UNDECIDED",
    "ByClass",
    "Evaluation",
    "Judged",
    "LabelFacts",
    "MultiLabel",
    "Objective",
    "Positions",
    "Predictions",
    "Reference",
    "Regression",
    "SingleLabel",
    "State",
    "Tally",
    "choose",
    "first_tensor",
    "label_facts",
    "objective_for",
]
