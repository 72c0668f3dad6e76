"""torchmetrics without the libraries it looks for, one of which may not fit the installed torch."""

from __future__ import annotations

from typing import Any
from unittest import mock

from lightning_utilities.core.imports import RequirementCache

_NOT_NEEDED = ("torchvision", "transformers")


def load() -> Any:
    """The package, imported as if torchvision and transformers were not there."""
    asked = RequirementCache.__bool__

    def without(self: RequirementCache) -> bool:
        return not str(self.requirement).startswith(_NOT_NEEDED) and asked(self)

    with mock.patch.object(RequirementCache, "__bool__", without):
        import torchmetrics
    return torchmetrics
