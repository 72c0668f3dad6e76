"""How long a `.pt2` of 100 MB takes to become a network, and how much memory; printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.benchmark

_SCRIPT = """
import sys, time, pathlib, torch
import worker.engine.formats.models as models
# The peak of getrusage is the parent's, until it is passed.
pathlib.Path("/proc/self/clear_refs").write_text("5")
status = pathlib.Path("/proc/self/status")
peak = lambda: int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
before, wall, cpu = peak(), time.perf_counter(), time.process_time()
model = models.open_model(pathlib.Path(sys.argv[1])).model
print(time.perf_counter() - wall, time.process_time() - cpu, peak() - before)
"""


def transformer() -> tuple[nn.Module, torch.Tensor]:
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    return nn.TransformerEncoder(layer, 8, enable_nested_tensor=False), torch.randn(2, 32, 512)


class Block(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        sizes = ((wide, narrow, 1), (narrow, narrow, 3), (narrow, wide, 1))
        self.convolutions = nn.Sequential()
        for into, out, kernel in sizes:
            self.convolutions.append(nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False))
            self.convolutions.append(nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.convolutions(x))


def convolutions() -> tuple[nn.Module, torch.Tensor]:
    """Bottlenecks in four widths, 25 million numbers as in a ResNet-50."""
    parts: list[nn.Module] = [nn.Conv2d(3, 256, 7, 4)]
    for wide, count in ((256, 3), (512, 4), (1024, 6), (2048, 4)):
        parts += [Block(wide, wide // 4) for _ in range(count)]
        if wide < 2048:
            parts.append(nn.Conv2d(wide, 2 * wide, 1, 2, bias=False))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    return nn.Sequential(*parts, head), torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize("make", [transformer, convolutions])
def test_importing_a_hundred_megabytes(
    tmp_path: Path, make: object, capsys: pytest.CaptureFixture[str]
) -> None:
    net, example = make()  # type: ignore[operator]
    shapes = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(net.eval(), (example,), dynamic_shapes=shapes)
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    size = path.stat().st_size
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(path)],
        env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, cpu, memory = map(float, result.stdout.split())
    with capsys.disabled():
        print(
            f"\n{make.__name__}: {size / 1e6:.0f} MB read in {wall:.1f} s ({cpu:.1f} s of CPU), "  # type: ignore[attr-defined]
            f"peak {memory / size:.2f} times the file"
        )
    assert size > 90_000_000
    assert 0 < memory <= 3 * size
