from __future__ import annotations

from tests.support.walled import shared_walls, walled

__all__ = ["shared_walls", "walled"]
