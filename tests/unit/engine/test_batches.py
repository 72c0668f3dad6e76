"""The batch size rule where weights are heavy."""

from __future__ import annotations

from torch import fx, nn

from tests.benchmarks import analysis_networks
from tests.unit.engine.traced import TracedModel, make_split
from worker.engine.batches import default_batch_size


def size_of(network: nn.Module, shape: tuple[int, ...], samples: int = 1024) -> int:
    model = TracedModel(fx.symbolic_trace(network.eval()))
    return default_batch_size(model, make_split([shape], samples, 2))  # type: ignore[arg-type]


def test_a_heavy_weight_that_meets_few_rows_asks_for_large_batches() -> None:
    heavy = nn.Conv2d(512, 512, 3, padding=1, bias=False)
    light = nn.Conv2d(512, 64, 3, padding=1, bias=False)
    assert size_of(nn.Sequential(heavy, nn.Upsample(scale_factor=8)), (512, 2, 2), 256) == 128
    assert size_of(nn.Sequential(light, nn.Upsample(scale_factor=24)), (512, 2, 2), 256) == 32


def test_what_is_alive_at_once_still_bounds_it() -> None:
    network = nn.Sequential(nn.Conv2d(512, 512, 3, padding=1), nn.Upsample(scale_factor=64))
    assert size_of(network, (512, 2, 2), 64) <= 8


def test_the_networks_that_are_timed() -> None:
    model, split = analysis_networks.resnet18(128)
    assert default_batch_size(model, split) == 128
    model, split = analysis_networks.vit6(64)
    assert default_batch_size(model, split) == 32
