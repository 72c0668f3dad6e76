"""What a request asks for, held against what is there. All errors name the field and a way out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches

from app.criteria import known_criteria
from app.domain.criteria import Needs
from app.domain.errors import Conflict, InvalidInput
from app.domain.goals import Goals
from app.domain.levels import DEFAULT_SPARSITIES, to_level, to_levels, to_sparsity
from app.domain.words import SplitName, Status
from app.store.points import levels_of
from app.store.tables import Analysis, Dataset, Model
from app.web.schemas import AnalysisBody, ExperimentBody, PlanBody, SharpenBody
from app.web.views.analyses import analysed_units
from app.web.views.common import JSON

_WITH_TRAIN = "upload the data set with x_train and y_train, or with x and y alone."

DEFAULT_BATCH_SIZE = 64
NAMED = 5


def refuse(field: str, message: str, hint: str = "") -> InvalidInput:
    return InvalidInput(message, hint, fields={field: message})


def check_available(body: AnalysisBody) -> None:
    """Raises InvalidInput for what the contract names but this version can't do."""
    if body.granularity != "weight":
        raise refuse(
            "granularity",
            "Whole channels can't be analysed yet.",
            "Use granularity weight, which is also the default.",
        )
    known = known_criteria()
    unknown = [name for name in body.criteria if name not in known]
    if unknown:
        raise refuse(
            "criteria",
            f"There is no criterion {quoted(unknown)}.",
            f"Known are: {', '.join(known)}.",
        )


def check_data(body: AnalysisBody, dataset: Dataset) -> None:
    """Raises InvalidInput for what needs training samples, where the data set has none.

    As long as some criterion can do without, the analysis runs: the worker remarks on the others.
    """
    if (dataset.splits or {}).get(SplitName.TRAIN):
        return
    if body.recalibrate_batch_norm:
        raise refuse(
            "recalibrate_batch_norm",
            "Batch norm is recalibrated on the train split, and the data set has none.",
            f"Leave recalibrate_batch_norm out, or {_WITH_TRAIN}",
        )
    known = known_criteria()
    if all(known[name].needs.data and known[name].needs != Needs.UNKNOWN for name in body.criteria):
        raise refuse(
            "criteria",
            f"The criterion {quoted(body.criteria)} needs samples of the train split, and the data "
            "set has none.",
            f"Choose one that the weights are enough for, such as magnitude, or {_WITH_TRAIN}",
        )


def sharpening_of(
    body: SharpenBody, analysis: Analysis, goals: Goals, units: Sequence[JSON]
) -> JSON:
    """The goal as it is stored. Raises InvalidInput, and Conflict where nothing can be sharper."""
    if body.exact == (body.half_width is not None):
        raise refuse(
            "half_width",
            "Say either how narrow intervals are to become, or that points are to be exact.",
            "Send half_width, such as 0.005, or exact: true.",
        )
    lowest, highest = body.sparsities or (0.0, 1.0)
    if lowest > highest:
        raise refuse("sparsities", "The lowest sparsity is above the highest.", "Swap the two.")
    if body.units is not None:
        check_units(body.units, units, "units")
        analysed = set(analysed_units(analysis, units))
        beside = [name for name in body.units if name not in analysed]
        if beside:
            raise refuse(
                "units",
                f"The analysis has no curve of the unit {quoted(beside)}.",
                suggestion(beside[0], sorted(analysed)),
            )
    bounds = to_level(lowest), to_level(highest)
    if not any(bounds[0] <= level <= bounds[1] for level in levels_of(analysis)):
        raise refuse(
            "sparsities",
            f"The analysis has no points from {lowest:g} to {highest:g}.",
            "Choose a wider range.",
        )
    if goals.base.whole:
        raise Conflict(
            f"All points of analysis {analysis.id} are measured on every sample already.",
            "They can't become sharper on this data set.",
        )
    return {
        "units": None if body.units is None else list(dict.fromkeys(body.units)),
        "sparsities": None if body.sparsities is None else [lowest, highest],
        "half_width": body.half_width,
        "exact": body.exact,
    }


def grid_of(body: AnalysisBody) -> tuple[int, ...]:
    """The levels of the grid, in millionths, each once."""
    return to_levels(DEFAULT_SPARSITIES if body.sparsities is None else body.sparsities)


def require_ready(row: Model | Dataset, title: str, field: str) -> None:
    """Raises Conflict while it is imported, InvalidInput when that has failed."""
    if row.status == Status.IMPORTING:
        raise Conflict(
            f"{title} {row.id} is still being imported.",
            "Try again in a moment: its status has to be ready.",
        )
    if row.status == Status.FAILED:
        reason = (row.error or {}).get("message", "")
        raise refuse(
            field,
            f"{title} {row.id} could not be imported. {reason}".strip(),
            "Upload a file that can be read.",
        )


def require_network(row: Model) -> None:
    """Raises InvalidInput for a model of which only the weights are known."""
    if (row.details or {}).get("kind") == "weights":
        raise refuse(
            "model_id",
            f"Model {row.id} holds weights only: without its network nothing can be measured.",
            "Upload the file again and name its architecture (for example timm:resnet18), or "
            "upload the network as a .pt2 file made with torch.export.",
        )


def check_units(asked: Iterable[str], units: Sequence[JSON], field: str) -> None:
    """Raises InvalidInput for ids that the model doesn't have, or that can't be pruned."""
    by_id = {unit["id"]: unit for unit in units}
    asked = list(asked)
    unknown = [name for name in asked if name not in by_id]
    if unknown:
        prunable = [unit["id"] for unit in units if unit["prunable"]]
        raise refuse(
            field,
            f"The model has no unit {quoted(unknown)}.",
            suggestion(unknown[0], prunable),
        )
    whole = [by_id[name] for name in asked if not by_id[name]["prunable"]]
    if whole:
        reason = (whole[0]["reason"] or "it is never pruned").rstrip(".")
        raise refuse(
            field,
            f"The unit {quoted([unit['id'] for unit in whole])} can't be pruned: {reason}.",
            "Leave it out.",
        )


def suggestion(wrong: str, known: Collection[str]) -> str:
    """The nearest ids, or the first few when none is near."""
    near = get_close_matches(wrong, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    some = ", ".join(list(known)[:NAMED])
    return f"Its units are: {some}{', …' if len(known) > NAMED else ''}."


def quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f"“{name[:200]}”" for name in names[:NAMED])
    more = len(names) - NAMED
    return f"{shown} (and {more} more)" if more > 0 else shown


def plan_choices(
    body: PlanBody, analysis: Analysis, units: Sequence[JSON]
) -> tuple[str, dict[str, float]]:
    """The plan's criterion, and its sparsities as they are stored. Raises InvalidInput."""
    if body.target is not None or body.pinned is not None:
        raise refuse(
            "target" if body.target is not None else "pinned",
            "Thresholds can't be solved for a target yet.",
            "Send sparsities: one number for each unit that is to be pruned.",
        )
    if body.sparsities is None:
        raise refuse(
            "sparsities",
            "The plan says nothing about sparsities.",
            "Send sparsities: one number from 0 to 1 for each unit that is to be pruned.",
        )
    criterion = body.criterion or analysis.criteria[0]
    if criterion not in analysis.criteria:
        raise refuse(
            "criterion",
            f"The analysis has no curves for the criterion {quoted([criterion])}.",
            f"It has them for: {', '.join(analysis.criteria)}.",
        )
    check_units(body.sparsities, units, "sparsities")
    return criterion, {
        unit: to_sparsity(to_level(sparsity)) for unit, sparsity in body.sparsities.items()
    }


def check_split(split: str) -> str:
    """The split to measure a plan on. Raises InvalidInput for all but tune."""
    if split == SplitName.TUNE:
        return split
    if split == SplitName.TEST:
        raise refuse(
            "split",
            "A plan is not measured on the test split: whoever chose by it could not trust it for "
            "the final figures any more.",
            "Measure on tune. An experiment reports its final figures on test, once.",
        )
    raise refuse("split", f"A plan can't be measured on {quoted([split])}.", "Measure on tune.")


def experiment_settings(body: ExperimentBody, splits: Mapping[str, int]) -> JSON:
    """The settings as the worker reads them. Raises InvalidInput."""
    if body.schedule != "one-shot" or body.steps not in (None, 1):
        raise refuse(
            "schedule",
            "Pruning in several steps is not available yet.",
            "Use schedule one-shot, which is also the default, and leave steps out.",
        )
    if body.distillation:
        raise refuse(
            "distillation",
            "Distillation is not available yet.",
            "Leave distillation out, or send false.",
        )
    if not splits.get(SplitName.TRAIN):
        raise InvalidInput(
            "The data set has no samples in its train split, so there is nothing to retrain on.",
            "Upload it with x_train and y_train, or with x and y alone: they are then split into "
            "train, tune and test.",
        )
    return {
        "schedule": body.schedule,
        "epochs": body.epochs,
        "batch_size": body.batch_size or DEFAULT_BATCH_SIZE,
        "learning_rate": body.learning_rate,
        "distillation": False,
        "baselines": list(dict.fromkeys(body.baselines)),
        "seed": body.seed,
    }
