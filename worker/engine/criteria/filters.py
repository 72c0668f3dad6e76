"""Scores of whole filters: all entries of an output channel leave together."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, fx, nn

from app.domain.criteria import CRITERIA
from worker.engine.criteria.base import CannotRank, Criterion, Removal, Subject, remark_on
from worker.engine.criteria.ranks import ranked_filters
from worker.engine.criteria.readers import filter_owner, readers_of
from worker.engine.graph import CanonicalModel
from worker.engine.units import Unit

NO_FILTERS = "It isn't the weight of a convolution or a dense layer, so it has no filters."
_CHUNK = 2**22
"""Numbers that the distances of a few filters from all the others may take at once."""


class FilterCriterion(Criterion):
    """A score for each filter; the entries of a filter share it."""

    def removal(self, subject: Subject) -> Removal:
        owner = filter_owner(subject.model, subject.unit)
        if owner is None:
            raise CannotRank(NO_FILTERS)
        scores = self.scores(subject, owner)
        return Removal(ranked_filters(scores, owner), remark_on(scores))

    @abstractmethod
    def scores(self, subject: Subject, owner: Tensor) -> Tensor:
        """One score a filter [filters]. `owner`: the filter of each entry, in the weight's shape.

        Raises CannotRank.
        """


class FilterL1(FilterCriterion):
    """The sum of `|w|` of a filter (Li et al., 2017, section 3.1)."""

    facts = CRITERIA["filter-l1"]

    def scores(self, subject: Subject, owner: Tensor) -> Tensor:
        return filter_rows(subject.weight, owner).abs().sum(dim=1)


class FilterL2(FilterCriterion):
    """The Euclidean norm of a filter (He et al., 2018, equation 2 with p = 2)."""

    facts = CRITERIA["filter-l2"]

    def scores(self, subject: Subject, owner: Tensor) -> Tensor:
        return filter_rows(subject.weight, owner).square().sum(dim=1).sqrt()


class Fpgm(FilterCriterion):
    """The sum of a filter's Euclidean distances to all others (He et al., 2019, equation 6)."""

    facts = CRITERIA["fpgm"]

    def scores(self, subject: Subject, owner: Tensor) -> Tensor:
        return distance_sums(filter_rows(subject.weight, owner))


class BatchNormScale(FilterCriterion):
    """`|gamma|` of the batch norm that follows directly (Liu et al., 2017, section 3)."""

    facts = CRITERIA["bn-scale"]

    def scores(self, subject: Subject, owner: Tensor) -> Tensor:
        norm = following_norm(subject.model, subject.unit)
        if norm.weight is None:
            raise CannotRank("The batch norm that follows it has no scale.")
        if norm.weight.numel() != int(owner.max()) + 1:
            raise CannotRank("The batch norm that follows it has a scale for other channels.")
        return norm.weight.detach().double().abs()


def filter_rows(weight: Tensor, owner: Tensor) -> Tensor:
    """The entries of each filter as a row, float64 [filters, entries of one]."""
    order = torch.sort(owner.reshape(-1), stable=True).indices
    return weight.double().reshape(-1)[order].reshape(int(owner.max()) + 1, -1)


def distance_sums(rows: Tensor) -> Tensor:
    """For each row [filters, entries] the sum of its distances to the others, float64 [filters].

    The differences themselves are squared: products of norms lose what near filters differ in.
    """
    sums = torch.empty(len(rows), dtype=torch.float64)
    step = max(1, _CHUNK // max(1, rows.numel()))
    for start in range(0, len(rows), step):
        apart = rows[start : start + step, None] - rows[None]
        sums[start : start + step] = apart.square().sum(dim=2).sqrt().sum(dim=1)
    return sums


def following_norm(model: CanonicalModel, unit: Unit) -> nn.modules.batchnorm._BatchNorm:
    """The one batch norm that everything computed with the weight goes into and nothing else does.

    Raises CannotRank where there is none.
    """
    norms: list[nn.Module] = []
    for reader, _ in readers_of(model, unit):
        norm = _only_norm(model, reader.node)
        if norm is None:
            raise CannotRank("No batch norm follows it directly, so no scale says what it is for.")
        norms.append(norm)
    if not norms or any(norm is not norms[0] for norm in norms):
        raise CannotRank("Several batch norms follow it, so no one scale says what it is for.")
    assert isinstance(norms[0], nn.modules.batchnorm._BatchNorm)
    return norms[0]


def _only_norm(model: CanonicalModel, node: fx.Node) -> nn.Module | None:
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    module = model.module.get_submodule(str(users[0].target))
    return module if isinstance(module, nn.modules.batchnorm._BatchNorm) else None
