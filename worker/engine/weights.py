"""Finding a parameter by its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from app.domain.errors import InvalidInput

if TYPE_CHECKING:
    from worker.engine.graph import CanonicalModel


def find_weight(model: CanonicalModel, key: str) -> Tensor:
    """The tensor of this state_dict key, sharing the model's storage, without autograd history.

    Raises InvalidInput when the model has no such key.
    """
    holder: object = model.module
    for part in key.split("."):
        holder = getattr(holder, part, None)
    if not isinstance(holder, Tensor):
        holder = model.state_dict().get(key)
    if not isinstance(holder, Tensor):
        raise InvalidInput(
            f"The model has no parameter called {key!r}.",
            "Use one of the keys of the model's state_dict.",
        )
    return holder.detach()
