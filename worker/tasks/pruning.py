"""How many weights leave of which unit: what a plan says, and what a child may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from app.criteria import known_criteria
from app.domain.errors import InvalidInput
from app.domain.levels import removed_count, to_level, to_sparsity
from app.store.tables import Analysis, Plan
from worker.tasks.reports import require

PLAN_RUN = "plan"


@dataclass(frozen=True)
class Pruning:
    """One way of pruning a network. `sizes`: its prunable units and how many weights each has.

    `baseline` names a simpler way of removing as many weights in all as `sparsities` do.
    `calibration_seed`: of the draw of training samples that batch norms are re-estimated from after
    the pruning, as in the analysis; None leaves them as they are.
    """

    sizes: Mapping[str, int]
    sparsities: Mapping[str, float]
    criterion: str
    seed: int
    baseline: str | None = None
    calibration_seed: int | None = None

    @classmethod
    def of_plan(cls, sizes: Mapping[str, int], plan: Plan, analysis: Analysis) -> Pruning:
        calibration_seed = analysis.seed if analysis.recalibrate_batch_norm else None
        return cls(
            sizes,
            plan.sparsities,
            plan.criterion,
            analysis.seed,
            calibration_seed=calibration_seed,
        )

    @classmethod
    def of_run(
        cls, name: str, sizes: Mapping[str, int], plan: Plan, analysis: Analysis, seed: int
    ) -> Pruning:
        """An experiment's contestant: the plan itself, or a baseline to it.

        The plan removes what its analysis did, by that one's seed; `seed` is the experiment's own.
        """
        own = cls.of_plan(sizes, plan, analysis)
        return own if name == PLAN_RUN else replace(own, seed=seed, baseline=name)

    @property
    def argument(self) -> dict[str, Any]:
        """As recipes take it."""
        return {
            "sparsities": dict(self.sparsities),
            "criterion": self.criterion,
            "seed": self.seed,
            "baseline": self.baseline,
            "calibration_seed": self.calibration_seed,
        }

    @property
    def learns(self) -> bool:
        """May the data set's training samples be needed?"""
        if self.calibration_seed is not None:
            return True
        if self.baseline is not None:
            return False
        facts = known_criteria().get(self.criterion)
        return facts is None or facts.needs.data

    @cached_property
    def removed(self) -> dict[str, int]:
        """Entries that the plan removes of each unit that it touches, in whole millionths.

        Raises InvalidInput for a plan that doesn't fit the network.
        """
        counts: dict[str, int] = {}
        for unit, sparsity in self.sparsities.items():
            level = to_level(sparsity)
            if level and unit not in self.sizes:
                raise InvalidInput(
                    f"{unit} can't be pruned.", "Leave it out, or set its sparsity to 0."
                )
            if level and (count := removed_count(to_sparsity(level), self.sizes[unit])):
                counts[unit] = count
        return counts

    def check_removed(self, said: Mapping[str, int]) -> None:
        """Raises ChildMalformed unless a child can have removed that many."""
        for unit, count in said.items():
            require(unit in self.sizes, "weights removed that can't be pruned")
            require(count <= self.sizes[unit], "more weights removed than there are")
        require(sum(said.values()) == sum(self.removed.values()), "another number of weights")
        fine = self.baseline is not None or dict(said) == self.removed
        require(fine, "other weights removed than the plan says")

    def achieved(self, removed: Mapping[str, int]) -> dict[str, float]:
        """Removed fraction of each unit, after rounding to whole weights."""
        return {unit: count / self.sizes[unit] for unit, count in removed.items()}

    def sparsity(self, removed: Mapping[str, int]) -> float:
        """Removed fraction of the weights of all prunable units together."""
        total = sum(self.sizes.values())
        return sum(removed.values()) / total if total else 0.0
