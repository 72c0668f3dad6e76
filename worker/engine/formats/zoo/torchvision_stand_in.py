"""What timm's models want of torchvision, for machines where torchvision doesn't import.

The torchvision of the package index is compiled against torch for GPUs; beside the CPU build of
torch its import fails for want of compiled operators. timm's models need one class of it; timm's
data pipeline, which `import timm` pulls in and which is never used here, names some more. The
stand-in gives timm these names for as long as timm is imported, and is gone afterwards, so that
nobody else takes it for torchvision.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_NAME = "torchvision"


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation over `[batch, channels, height, width]` whose statistics and weights are
    fixed buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            self.register_buffer(name, torch.full((num_features,), value))
        for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((num_features,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class InterpolationMode(enum.Enum):
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Unused:
    """Stands where timm's data pipeline names something; using it is a mistake."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("torchvision is not installed in a form that works with this torch")


class _Module(ModuleType):
    """A module in which every class name stands for something that is never used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not name[0].isupper():
            raise AttributeError(name)
        return _Unused


def _modules() -> dict[str, ModuleType]:
    names = (
        "",
        ".datasets",
        ".ops",
        ".ops.misc",
        ".transforms",
        ".transforms.functional",
    )
    made: dict[str, ModuleType] = {}
    for name in names:
        module = _Module(_NAME + name)
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=True)
        module.__path__ = []
        made[module.__name__] = module
        parent, _, last = module.__name__.rpartition(".")
        if parent:
            setattr(made[parent], last, module)
    made[f"{_NAME}.ops.misc"].FrozenBatchNorm2d = FrozenBatchNorm2d  # type: ignore[attr-defined]
    for name in (".transforms", ".transforms.functional"):
        made[_NAME + name].InterpolationMode = InterpolationMode  # type: ignore[attr-defined]
    return made


def _forget() -> None:
    for name in [n for n in sys.modules if n == _NAME or n.startswith(_NAME + ".")]:
        del sys.modules[name]


@functools.cache
def torchvision_imports() -> bool:
    """Whether the real torchvision is there and works beside this torch."""
    if _NAME in sys.modules:
        return True
    try:
        importlib.import_module(_NAME)
    except Exception:
        # Not only ImportError: the wheel for GPUs fails with a RuntimeError.
        _forget()
        return False
    return True


@contextlib.contextmanager
def torchvision_or_stand_in() -> Iterator[None]:
    """Inside, `import torchvision` works: the real one where it does, else the stand-in."""
    if torchvision_imports():
        yield
        return
    sys.modules.update(_modules())
    try:
        yield
    finally:
        _forget()


@contextlib.contextmanager
def torchvision_or_none() -> Iterator[None]:
    """Inside, a torchvision that doesn't work looks as if it were not installed."""
    if torchvision_imports():
        yield
        return
    sys.modules[_NAME] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        _forget()
