"""Only the rows that reach the output: the same logits from fewer numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from tests.unit.engine.fast.cells import apart
from tests.unit.engine.networks import canonical
from worker.engine.fast.narrow import narrow
from worker.engine.fast.work import Work, seen


class Attends(nn.Module):
    """Two blocks of attention over eight rows of six numbers; `pick` says what is read of them."""

    def __init__(self, pick: Any, causal: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.ModuleList(nn.Linear(6, 6) for _ in range(5)) for _ in "ab")
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in "ab")
        self.places = nn.Parameter(torch.randn(8, 6))
        self.mask = nn.Parameter(torch.randn(8, 8)) if masked else None
        self.head = nn.LazyLinear(3)
        self.pick, self.causal = pick, causal

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places
        for (query, key, value, out, more), norm in zip(self.parts, self.norms, strict=True):
            q, k, v = (part(x).view(-1, 8, 2, 3).transpose(1, 2) for part in (query, key, value))
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask, is_causal=self.causal
            )
            x = norm(x + out(mixed.transpose(1, 2).reshape(-1, 8, 6)))
            x = x + functional.gelu(more(x)) * self.places
        return self.head(self.pick(x).flatten(1))


PICKS: dict[str, Any] = {
    "first": lambda x: x[:, 0],
    "last": lambda x: x[:, -1],
    "one of the middle": lambda x: x[:, 3:4],
    "some": lambda x: x[:, 2:6],
    "all but the first": lambda x: x[:, 1:],
}


def widest(work: Work, after: str) -> int:
    """Rows of the last node whose name starts so."""
    shapes = [seen(n) for n in work.nodes if n.name.startswith(after)]
    return shapes[-1].shape[1]  # type: ignore[union-attr]


def narrowed(network: nn.Module, folder: Path) -> tuple[Work, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, 8, 6)
    network(x)
    model = canonical(network, (x,), folder)
    work = Work(model.module)
    expected = work.watch([x])
    narrow(work)
    return work, work.watch([x]), expected


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pick", PICKS)
def test_the_rows_that_are_read_are_the_ones_that_are_made(
    pick: str, masked: bool, tmp_path: Path
) -> None:
    work, found, expected = narrowed(Attends(PICKS[pick], masked=masked), tmp_path)
    assert apart(found, expected) < 1e-6
    rows = {"some": 4, "all but the first": 7}.get(pick, 1)
    shapes = {n.name: seen(n) for n in work.nodes}
    assert shapes["parts_1_4"].shape[1] == rows  # type: ignore[union-attr]
    assert shapes["parts_1_0"].shape[1] == rows, "the queries"  # type: ignore[union-attr]
    assert shapes["parts_1_1"].shape[1] == 8, "the keys"  # type: ignore[union-attr]
    assert shapes["parts_0_4"].shape[1] == 8, "the block before"  # type: ignore[union-attr]


def test_a_causal_mask_hides_nothing_from_the_last_row(tmp_path: Path) -> None:
    for pick, rows in (("last", 1), ("first", 8)):
        folder = tmp_path / pick
        folder.mkdir()
        work, found, expected = narrowed(Attends(PICKS[pick], causal=True), folder)
        assert apart(found, expected) < 1e-6
        shapes = {n.name: seen(n) for n in work.nodes}
        assert shapes["parts_1_0"].shape[1] == rows  # type: ignore[union-attr]


def test_rows_that_two_readers_want_differently_are_all_made(tmp_path: Path) -> None:
    work, found, expected = narrowed(
        Attends(lambda x: torch.cat([x[:, 0], x[:, 1]], dim=1)), tmp_path
    )
    assert apart(found, expected) < 1e-6
    shapes = {n.name: seen(n) for n in work.nodes}
    assert shapes["parts_1_4"].shape[1] == 8  # type: ignore[union-attr]


def test_what_mixes_rows_is_left_whole(tmp_path: Path) -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cumsum(self.first(x), dim=1)
            x = torch.softmax(x, dim=1) + x.flip(1) + x.mean(1, keepdim=True)
            return self.head(x[:, 2])

    work, found, expected = narrowed(Mixes(), tmp_path)
    assert apart(found, expected) < 1e-6
    assert {seen(n).shape[1] for n in work.nodes if n.name.startswith("first")} == {8}  # type: ignore[union-attr]


def test_a_graph_that_reads_everything_stays_the_same() -> None:
    network = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3))
    work = Work(fx.symbolic_trace(network.eval()))
    work.watch([torch.randn(2, 8, 6)])
    before = [(n.name, n.args) for n in work.nodes]
    narrow(work)
    assert [(n.name, n.args) for n in work.nodes] == before
