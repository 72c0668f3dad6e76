"""What is derived from weights: folded, unrolled, cast; and that it follows its sources."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.engine.fast.cells import apart, dense, plain, through
from tests.unit.engine.networks import canonical
from tests.unit.engine.traced import randomise_norms
from worker.engine.fast.kernels import Convolution, Kernel, Linear
from worker.engine.flow_options import FAST, FlowOptions
from worker.engine.suffix import Flow


def kernels(flow: Flow) -> list[Any]:
    found = {id(k): k for held in flow._kernels.values() for k in held}
    return list(found.values())


def test_a_folded_layer_is_the_two_layers_in_float64() -> None:
    torch.manual_seed(0)
    for layer, norm, x in (
        (nn.Conv2d(3, 5, 3, 2, 1, bias=True), nn.BatchNorm2d(5), torch.randn(2, 3, 9, 9)),
        (nn.Conv1d(4, 6, 3, groups=2, bias=False), nn.BatchNorm1d(6), torch.randn(2, 4, 9)),
        (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3, affine=False), torch.randn(2, 2, 4, 4, 4)),
        (nn.Linear(7, 4), nn.BatchNorm1d(4), torch.randn(3, 7)),
    ):
        if norm.affine:
            randomise_norms(nn.Sequential(norm))
        both = nn.Sequential(layer, norm).eval()
        kernel: Any = Linear(layer) if isinstance(layer, nn.Linear) else Convolution(layer)
        kernel.norm = norm
        with torch.no_grad():
            kernel.build()
            found = kernel(x)
            expected = copy.deepcopy(both).double()(x.double())
        assert apart(found.double(), expected) < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_as_a_matrix(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 5, 3, padding=1, bias=bias)
    kernel = Convolution(layer)
    kernel.form, kernel.map_in = "matrix", size
    x = torch.randn(4, 6, *size)
    with torch.no_grad():
        kernel.build()
        assert apart(kernel(x), copy.deepcopy(layer).double()(x.double()).float()) < 1e-6
        original = layer.weight.detach().clone()
        layer.weight[:, 0] = 0
        kernel.refresh()
        assert torch.equal(kernel(x), layer(x)), "a changed weight is convolved with"
        layer.weight.copy_(original)
        kernel.refresh()
        assert kernel._pristine


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
def test_a_large_kernel_on_a_small_map(stride: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 5, stride, padding=2, dilation=1)
    kernel = Convolution(layer)
    kernel.form, kernel.map_in = "matrix", (3, 3)
    x = torch.randn(2, 3, 3, 3)
    with torch.no_grad():
        kernel.build()
        assert apart(kernel(x), layer(x)) < 1e-6


class Small(nn.Module):
    """Every form of a convolution: large maps, small ones, and tiny ones."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(3, 8, 1), (8, 8, 2), (8, 8, 2), (8, 8, 1), (8, 8, 2), (8, 8, 1)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, s, 1, bias=False) for a, b, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in sizes)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.relu(norm(layer(x)))
        return self.head(x.view(x.shape[0], -1))


def test_forms_follow_the_maps_and_a_view_gets_its_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = canonical(randomise_norms(Small()), (torch.randn(3, 3, 16, 16),), tmp_path)
    x = torch.randn(5, 3, 16, 16)
    flow = Flow(model.module, [x[:2]], FAST)
    assert flow.reason is None
    forms = [k.form for k in kernels(flow) if isinstance(k, Convolution)]
    assert forms == ["channels last"] * 2 + ["plain"] * 3 + ["matrix"]
    with torch.no_grad():
        assert apart(dense(flow, [x])[flow.output], plain(model, [x])) < 1e-6


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_statistics_that_change_are_followed(precision: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = canonical(randomise_norms(Small()), (torch.randn(3, 3, 16, 16),), tmp_path)
    x = torch.randn(5, 3, 16, 16)
    flow = Flow(model.module, [x[:2]], FlowOptions(precision, fuse=True))
    close = 1e-6 if precision == "float32" else 0.05
    with torch.no_grad():
        first = dense(flow, [x])[flow.output].clone()
        for name, buffer in model.module.named_buffers():
            if not name.endswith(("running_mean", "running_var")):
                continue
            original = buffer.clone()
            buffer.mul_(1.7).add_(0.2)
            flow.refresh(buffer)
            found = dense(flow, [x])[flow.output]
            assert apart(found, plain(model, [x])) < close, name
            assert not torch.equal(found, first), name
            buffer.copy_(original)
            flow.refresh(buffer)
            assert torch.equal(dense(flow, [x])[flow.output], first), name


def test_a_tensor_in_two_layers_refreshes_both(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.second.weight = self.first.weight
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norms[0](self.first(x)))
            x = torch.relu(self.norms[1](self.second(x)))
            x = torch.relu(self.norms[2](self.first(x)))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model = canonical(randomise_norms(Shared()), (torch.randn(3, 4, 9, 9),), tmp_path)
    x = torch.randn(4, 4, 9, 9)
    flow = Flow(model.module, [x[:2]], FAST)
    weight = model.state_dict()["first.weight"].detach()
    assert len(flow._kernels[weight.untyped_storage().data_ptr()]) == 3
    with torch.no_grad():
        registers = dense(flow, [x], flow.suffix(weight).boundary)
        weight[0] = 0
        flow.refresh(weight)
        assert apart(through(flow, weight, registers), plain(model, [x])) < 1e-6


def test_a_flow_is_refreshed_in_any_mode(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = canonical(randomise_norms(Small()), (torch.randn(3, 3, 16, 16),), tmp_path)
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        flow = Flow(model.module, [x], FAST)
    weight = model.state_dict()["layers.0.weight"].detach()
    flow.refresh(weight)
    with torch.inference_mode():
        flow.refresh(weight)
    assert all(isinstance(k, Kernel) for k in kernels(flow))
