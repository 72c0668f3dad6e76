"""What computes. Of use in a notebook: `from worker.engine import Sensitivity`.

Names come when they are asked for, so that importing the package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.engine.notebook import Point, Sensitivity

__all__ = ["Point", "Sensitivity"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from worker.engine import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
