"""What can't be read is refused with the operator's name and the path of the module it is in."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.domain.errors import UnsupportedOperator
from worker.engine.formats.pt2 import load_model


class Inner(nn.Module):
    def __init__(self, run: Callable[[Inner, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class Around(nn.Module):
    """`run` is what the module at blocks.1 does."""

    def __init__(self, run: Callable[[Inner, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(nn.Linear(4, 4), Inner(run), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


def sampled(net: Inner, x: Tensor) -> Tensor:
    return x + torch.randn_like(x)


def drawn(net: Inner, x: Tensor) -> Tensor:
    return net.linear(x) * torch.bernoulli(torch.sigmoid(x))


def picked(net: Inner, x: Tensor) -> Tensor:
    return x + net.linear(x[x[:, 0] > 0]).sum(0)


def branched(net: Inner, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 2, (x,))


def looped(net: Inner, x: Tensor) -> Tensor:
    from torch._higher_order_ops.while_loop import while_loop

    def more(at: Tensor, x: Tensor) -> Tensor:
        return at < 3

    def step(at: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return at + 1, x * 2

    return while_loop(more, step, (torch.zeros((), dtype=torch.int64), x))[1]


def cast(net: Inner, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return net.linear(x).float()


def counted(net: Inner, x: Tensor) -> Tensor:
    net.seen.add_(x.mean(0))
    return x + net.seen


def uninitialised(net: Inner, x: Tensor) -> Tensor:
    return x + torch.empty_like(x).mul(0)


def packed(net: Inner, x: Tensor) -> Tensor:
    lengths = torch.ones(x.shape[0], dtype=torch.int64)
    rows = nn.utils.rnn.pack_padded_sequence(x.unsqueeze(1), lengths, batch_first=True)
    return net.linear(rows.data)


def foreign(net: Inner, x: Tensor) -> Tensor:
    return torch.ops.matrix_test.twice(x)


CASES = {
    "random numbers": (sampled, "randn_like"),
    "random choices": (drawn, "bernoulli"),
    "rows that depend on the data": (picked, "index|nonzero"),
    "a branch": (branched, "cond"),
    "a loop": (looped, "while_loop"),
    "autocast that is on": (cast, "wrap_with_autocast"),
    "a buffer that is written to": (counted, "add_|copy_"),
    "memory without content": (uninitialised, "empty_like"),
    "packed sequences": (packed, "_pack_padded_sequence"),
    "an operator of one's own": (foreign, "matrix_test.twice"),
}


@pytest.fixture(scope="module", autouse=True)
def operator():
    library = torch.library.Library("matrix_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    library.impl("twice", lambda x: torch.empty_like(x), "Meta")
    yield
    library._destroy()


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_by_name_and_path(case: str, tmp_path: Path) -> None:
    run, operator_name = CASES[case]
    path = tmp_path / "m.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Around(run).eval(), (torch.randn(3, 4),))
        torch.export.save(program, path)
    with pytest.raises(UnsupportedOperator, match=operator_name) as caught:
        load_model(path, "pt2")
    assert "the layer blocks.1" in caught.value.message
    assert caught.value.hint


def test_the_same_network_without_any_of_this_is_read(tmp_path: Path) -> None:
    def run(net: Inner, x: Tensor) -> Tensor:
        return net.linear(x) + net.seen

    path, net, x = tmp_path / "m.pt2", Around(run).eval(), torch.randn(3, 4)
    torch.export.save(torch.export.export(net, (x,)), path)
    with torch.no_grad():
        assert torch.equal(load_model(path, "pt2").module(x), net(x))
