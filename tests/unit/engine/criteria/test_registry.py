"""The built-in criteria, and those of an operator's own package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from app.criteria import known_criteria
from app.domain.criteria import CRITERIA as FACTS
from app.domain.criteria import Needs
from app.domain.errors import InvalidInput
from tests.unit.engine.criteria import slow
from tests.unit.engine.traced import make_split, plain_units, trace
from worker.engine.criteria import CRITERIA, Refusal, get_criterion, operators_own, removals
from worker.engine.criteria.observing import GRADIENTS, INPUTS

PACKAGE = '''
from app.domain.criteria import CriterionFacts, Needs
from worker.engine.criteria import Criterion, Removal, Statistic
from worker.engine.criteria.ranks import ranked


class Largest(Criterion):
    """The largest weights leave first."""

    facts = CriterionFacts("largest", "Largest", "Large weights leave first.", "None.")

    def removal(self, subject):
        return Removal(ranked(-subject.weight.abs()))


class Steep(Criterion):
    facts = CriterionFacts("steep", "Steep", "By slope.", "None.", Needs.GRADIENTS)
    statistics = frozenset([Statistic.MEAN_GRADIENT])

    def removal(self, subject):
        return Removal(ranked(subject.seen.mean_gradient.abs()))


class Alias(Largest):
    pass


class Magnitude(Largest):
    facts = CriterionFacts("magnitude", "Mine", "Mine.", "None.")


def nothing():
    return 3
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    metadata = tmp_path / "own_scores-1.0.dist-info"
    metadata.mkdir(parents=True)
    (tmp_path / "own_scores.py").write_text(PACKAGE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-scores\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[prunescope.criteria]\n"
        "largest = own_scores:Largest\n"
        "steep = own_scores:Steep\n"
        "alias = own_scores:Alias\n"
        "magnitude = own_scores:Magnitude\n"
        "missing = own_scores:Missing\n"
        "number = own_scores:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    operators_own.cache_clear()
    yield
    sys.modules.pop("own_scores", None)
    operators_own.cache_clear()


def test_the_catalogue_is_the_registry() -> None:
    assert list(CRITERIA) == list(FACTS)
    for name, criterion in CRITERIA.items():
        assert criterion.facts is FACTS[name]
        needs = (
            Needs.GRADIENTS
            if criterion.statistics & GRADIENTS
            else Needs.INPUTS
            if criterion.statistics & INPUTS
            else Needs.NOTHING
        )
        assert criterion.needs is needs
        assert criterion.title
        assert criterion.description.endswith(".")
        assert criterion.source.endswith(".")


def test_those_that_rewrite_say_so() -> None:
    model = trace(nn.Linear(6, 4))
    train = make_split([(6,)], 30, 4)
    found = removals(model, plain_units(model), list(CRITERIA), seed=0, train=train)
    for name, criterion in CRITERIA.items():
        if name != "bn-scale":
            assert (slow.removal(found, "weight", name).weight(5) is not None) == criterion.rewrites


def test_an_operators_own(package: None) -> None:
    model = trace(nn.Linear(6, 4))
    units = plain_units(model)
    found = removals(
        model, units, ["largest", "steep", "magnitude"], seed=0, train=make_split([(6,)], 30, 4)
    )
    weight = model.module.get_submodule("").weight.detach()
    largest = slow.removal(found, "weight", "largest")
    assert int(largest.rank.reshape(-1)[weight.abs().argmax()]) == 0
    slow.removal(found, "weight", "steep")
    # A built-in name stays what it is.
    assert slow.removal(found, "weight", "magnitude").rank.argmin() == weight.abs().argmin()
    assert get_criterion("largest").title == "Largest"


def test_broken_ones_are_reported_and_the_others_go_on(package: None) -> None:
    own, faults = operators_own()
    assert set(own) == {"largest", "steep"}
    assert "has no attribute 'Missing'" in faults["missing"]
    assert "no worker.engine.criteria.Criterion" in faults["number"]
    assert "calls itself 'largest'" in faults["alias"]
    assert "name is that of a built-in" in faults["magnitude"]
    with pytest.raises(InvalidInput, match="The criterion missing can't be used"):
        get_criterion("missing")
    with pytest.raises(InvalidInput, match="largest, steep"):
        get_criterion("luck")
    model = trace(nn.Linear(6, 4))
    found = removals(model, plain_units(model), ["missing", "largest"], seed=0)
    refusal = found["weight", "missing"]
    assert isinstance(refusal, Refusal)
    assert "can't be used" in refusal.reason
    slow.removal(found, "weight", "largest")


def test_the_server_lists_them_without_loading_them(package: None) -> None:
    known = known_criteria()
    assert list(known)[: len(FACTS)] == list(FACTS)
    assert set(known) == set(FACTS) | {"largest", "steep", "alias", "missing", "number"}
    assert known["largest"].needs is Needs.UNKNOWN
    assert known["largest"].needs.data
    assert "own-scores" in known["largest"].description
    assert known["magnitude"] is FACTS["magnitude"]
    assert "own_scores" not in sys.modules
    assert torch.get_num_threads() >= 1
