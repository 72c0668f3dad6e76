"""Whole filters: what is one, and which leave first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.unit.engine.criteria import slow
from tests.unit.engine.traced import plain_units, randomise_norms, trace
from worker.engine.criteria import Refusal, removals

FILTERS = ["filter-l1", "filter-l2", "fpgm", "bn-scale"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 8, 3, groups=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.up_norm = nn.BatchNorm2d(6)
        self.shared = nn.Conv2d(6, 6, 1)
        self.first_norm, self.second_norm = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.bare: nn.Module = nn.Identity()
        self.before_bare = nn.Conv2d(6, 6, 1)
        self.embed = nn.Embedding(5, 6)
        self.table = nn.Parameter(torch.randn(6, 7))

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        x = self.norm(self.plain(x)).relu()
        x = self.up_norm(self.up(self.grouped(x)))
        x = self.first_norm(self.shared(x)) + self.second_norm(self.shared(x))
        x = self.bare(self.before_bare(x)).mean((2, 3)) + self.embed(token)
        return torch.matmul(x, self.table)


def scored() -> tuple[Net, dict]:
    torch.manual_seed(0)
    net = Net()
    randomise_norms(net)
    net.bare = nn.BatchNorm2d(6, affine=False)
    model = trace(net, torch.float32, torch.int64)
    return net, removals(model, plain_units(model), FILTERS, seed=0)


def leaving(found: dict, unit: str, name: str, owner: Tensor) -> list[int]:
    """Filters in the order in which they leave; all of one leaves before the next begins."""
    rank = slow.removal(found, unit, name).rank
    order = owner.reshape(-1)[rank.reshape(-1).argsort()]
    size = order.numel() // int(owner.max() + 1)
    filters = order[::size].tolist()
    assert order.tolist() == [at for at in filters for _ in range(size)]
    return filters


def sorted_by(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda at: (scores[at], at))


def test_norms_and_distances_of_output_channels() -> None:
    net, found = scored()
    up = net.up.weight.detach()
    filters = {
        "plain.weight": list(net.plain.weight.detach()),
        "grouped.weight": list(net.grouped.weight.detach()),
        # Each group of inputs has its own three outputs.
        "up.weight": [up[4 * (at // 3) : 4 * (at // 3) + 4, at % 3] for at in range(6)],
        "table": list(net.table.detach().t()),
    }
    owners = {
        "plain.weight": torch.arange(6)[:, None, None, None].expand(6, 3, 3, 3),
        "grouped.weight": torch.arange(8)[:, None, None, None].expand(8, 3, 3, 3),
        "up.weight": (torch.arange(8)[:, None] // 4 * 3 + torch.arange(3))[..., None, None].expand(
            8, 3, 2, 2
        ),
        "table": torch.arange(7).expand(6, 7),
    }
    for unit, slices in filters.items():
        rows = torch.stack([each.reshape(-1) for each in slices])
        for name, scores in (
            ("filter-l1", [float(row.double().abs().sum()) for row in rows]),
            ("filter-l2", [float(row.double().norm()) for row in rows]),
            ("fpgm", slow.distances(rows)),
        ):
            assert leaving(found, unit, name, owners[unit]) == sorted_by(scores)


def test_the_scale_of_the_norm_that_follows() -> None:
    net, found = scored()
    owner = torch.arange(6)[:, None, None, None].expand(6, 3, 3, 3)
    scales = net.norm.weight.detach().abs().tolist()
    assert leaving(found, "plain.weight", "bn-scale", owner) == sorted_by(scales)
    owner = (torch.arange(8)[:, None] // 4 * 3 + torch.arange(3))[..., None, None]
    scales = net.up_norm.weight.detach().abs().tolist()
    assert leaving(found, "up.weight", "bn-scale", owner.expand(8, 3, 2, 2)) == sorted_by(scales)


def test_no_filters_no_norm_no_scale() -> None:
    _, found = scored()
    for unit, name, said in (
        ("embed.weight", "filter-l1", "no filters"),
        ("embed.weight", "fpgm", "no filters"),
        ("grouped.weight", "bn-scale", "No batch norm follows"),
        ("table", "bn-scale", "No batch norm follows"),
        ("shared.weight", "bn-scale", "Several batch norms"),
        ("before_bare.weight", "bn-scale", "has no scale"),
        ("norm.weight", "filter-l1", "one dimension"),
    ):
        refusal = found[unit, name]
        assert isinstance(refusal, Refusal)
        assert said in refusal.reason


def test_equal_filters_are_remarked_on() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    model = trace(net)
    removal = slow.removal(
        removals(model, plain_units(model), ["bn-scale"], seed=0), "0.weight", "bn-scale"
    )
    assert removal.remark is not None
    assert "by their place alone" in removal.remark
    assert removal.rank.reshape(-1).tolist() == list(range(36))
