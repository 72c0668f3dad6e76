"""From scores to the order in which entries leave."""

from __future__ import annotations

import torch
from torch import Tensor


def removal_order(scores: Tensor) -> Tensor:
    """Flat indices (int64, length n) in the order in which entries leave, lowest score first.

    The sort is stable: equal scores leave by ascending flat index. NaN scores leave last.
    """
    return torch.sort(scores.detach().reshape(-1), stable=True).indices


def removal_rank(order: Tensor) -> Tensor:
    """The inverse of a removal order: entry i leaves as number `rank[i]`, counted from 0.

    int32 where that is wide enough, because ranks are kept for a whole analysis.
    """
    dtype = torch.int32 if order.numel() < 2**31 else torch.int64
    rank = torch.empty(order.numel(), dtype=dtype)
    rank[order] = torch.arange(order.numel(), dtype=dtype)
    return rank


def ranked(scores: Tensor) -> Tensor:
    """The rank of each entry, in the shape of `scores`: it leaves as number `rank`."""
    return removal_rank(removal_order(scores)).reshape(scores.shape)


def ranked_in_rows(scores: Tensor) -> Tensor:
    """Ranks [rows, columns] by which, for any count, the entries leave evenly over the rows.

    The lowest of every row leave first, among them the lowest score first, then the second lowest
    of every row, and so on: two rows never differ by more than one. Equal scores leave by flat
    index.
    """
    rows, columns = scores.shape
    inside = torch.sort(scores, dim=1, stable=True)
    # Turn k of every row is one row here, and is sorted among itself.
    among = torch.sort(inside.values.t(), dim=1, stable=True).indices
    turns = torch.arange(columns)[:, None]
    order = among * columns + inside.indices[among, turns]
    return removal_rank(order.reshape(-1)).reshape(rows, columns)


def ranked_filters(scores: Tensor, owner: Tensor) -> Tensor:
    """Ranks by which whole filters leave, one after another.

    `scores` [filters]; `owner` (int64, in the weight's shape): the filter that each entry belongs
    to. Equal filters leave by index, the entries of one by flat index.
    """
    turn = removal_rank(removal_order(scores))
    return ranked(turn[owner])
