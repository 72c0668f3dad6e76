"""Both halves of the worker speak of the same things, though neither imports the other."""

from __future__ import annotations

from dataclasses import fields

from app.domain.words import CRITERIA
from worker.engine.criteria import CRITERIA as KNOWN
from worker.engine.formats.datasets import DatasetInfo
from worker.engine.objectives.base import Evaluation
from worker.tasks.descriptions import ImportedDataset, ImportedModel
from worker.tasks.reports import Figures


def test_criteria_have_the_engines_names() -> None:
    assert set(CRITERIA) == set(KNOWN)


def test_a_data_set_is_described_in_full() -> None:
    assert {field.name for field in fields(DatasetInfo)} == set(ImportedDataset.model_fields)


def test_an_evaluation_is_told_in_full() -> None:
    assert set(Evaluation(1, 1, 0.5).as_json()) == set(Figures.model_fields)


def test_a_model_is_described_in_full() -> None:
    from worker.inside.import_model import NOTHING

    told = {"format", "details", "derived", "parameters", "state_bytes"}
    assert set(NOTHING) | told == set(ImportedModel.model_fields)
