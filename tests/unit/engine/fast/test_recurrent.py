"""Recurrent modules split by layer and direction: the module's own bits, smaller suffixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.engine.fast.cells import apart, dense, plain, pruned
from tests.unit.engine.networks import canonical
from worker.engine.fast.kernels import Recurrent
from worker.engine.flow_options import FAST, FlowOptions
from worker.engine.suffix import Flow


class Ends(nn.Module):
    """Uses everything that a recurrent module returns; with first states of its own if asked."""

    def __init__(self, kind: Any, given: bool = False, **settings: Any) -> None:
        super().__init__()
        self.rnn = kind(5, 6, **settings)
        size = settings.get("proj_size", 0) or 6
        self.directions = 2 if settings.get("bidirectional") else 1
        count = self.directions * settings.get("num_layers", 1)
        self.state = nn.Parameter(torch.randn(count, 1, size)) if given else None
        self.cell = nn.Parameter(torch.randn(count, 1, 6)) if given and kind is nn.LSTM else None
        self.head = nn.Linear(self.directions * size + count * size, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = None
        if self.state is not None:
            start = self.state.repeat(1, x.shape[0], 1)
            if self.cell is not None:
                start = (start, self.cell.repeat(1, x.shape[0], 1))
        out, ends = self.rnn(x, start)
        hidden = ends[0] if isinstance(ends, tuple) else ends
        return self.head(torch.cat([out.mean(1), hidden.transpose(0, 1).flatten(1)], dim=1))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (nn.LSTM, {"num_layers": 2}),
        (nn.LSTM, {"num_layers": 3, "bidirectional": True}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 4, "bias": False}),
        (nn.GRU, {"num_layers": 2, "bidirectional": True}),
        (nn.RNN, {"num_layers": 2, "nonlinearity": "relu", "bias": False}),
        (nn.RNN, {"bidirectional": True}),
    ],
    ids=str,
)
def test_layers_one_by_one_are_the_module(
    kind: Any, settings: dict[str, Any], given: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = Ends(kind, given, batch_first=True, **settings)
    model = canonical(network, (torch.randn(3, 7, 5),), tmp_path)
    x = torch.randn(4, 7, 5)
    flow = Flow(model.module, [x[:2]], FAST)
    assert flow.reason is None
    split = {id(k) for held in flow._kernels.values() for k in held if isinstance(k, Recurrent)}
    assert len(split) == settings.get("num_layers", 1) * (2 if "bidirectional" in settings else 1)
    for key, found, expected in pruned(model, flow, [x], 40):
        assert apart(found, expected) < 1e-6, key
    half = Flow(model.module, [x[:2]], FlowOptions("bfloat16"))
    with torch.no_grad():
        assert apart(dense(half, [x])[half.output], plain(model, [x])) < 0.03


def test_a_later_layer_leaves_the_earlier_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.LSTM(5, 6, num_layers=3, batch_first=True, bidirectional=True)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = network
            self.head = nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    model = canonical(Last(), (torch.randn(3, 7, 5),), tmp_path)
    flow = Flow(model.module, [torch.randn(2, 7, 5)], FAST)
    weights = model.state_dict()

    def layers(key: str) -> int:
        """How many of the six run again."""
        suffix = flow.suffix(weights[key].detach())
        kernels = {id(k) for held in flow._kernels.values() for k in held}
        owners = [getattr(flow.step(at), "__closure__", None) or () for at in suffix.nodes]
        methods = [getattr(c.cell_contents, "__self__", None) for o in owners for c in o]
        return sum(isinstance(m, Recurrent) and id(m) in kernels for m in methods)

    assert layers("rnn.weight_hh_l2_reverse") == 1
    assert layers("rnn.weight_ih_l1") == 3
    assert layers("rnn.weight_ih_l0_reverse") == 5
    assert layers("head.weight") == 0
