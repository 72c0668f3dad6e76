"""One thread or two: by measurement, and torch's setting comes back."""

from __future__ import annotations

import time

import pytest
import torch
from torch import fx, nn

from worker.engine.calibration import Calibration, calibrate
from worker.engine.suffix import Flow


def test_two_threads_must_be_worth_a_process() -> None:
    assert Calibration(1.0, 0.55).threads == 2
    assert Calibration(1.0, 0.6).threads == 1
    assert Calibration(1.0, 3.0).threads == 1
    assert Calibration(1.0, 0.5).speedup == 2.0
    assert Calibration(1.0, 0.0).threads == 1


@pytest.mark.parametrize(("two", "threads"), [(0.004, 2), (0.03, 1)])
def test_what_is_timed_is_the_network_with_these_threads(two: float, threads: int) -> None:
    class Pause(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02 if torch.get_num_threads() == 1 else two)
            return x + 1

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pause, self.head = Pause(), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.pause(x))

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return True

    network = Net().eval()
    graph = fx.GraphModule(network, Tracer().trace(network))
    before = torch.get_num_threads()
    x = torch.zeros(4, 3)
    found = calibrate(Flow(graph, [x[:2]]), [x])
    assert torch.get_num_threads() == before
    assert found.one >= 0.02
    assert found.threads == threads
