"""Parameters that many routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

ItemId = Annotated[int, Path(alias="id", ge=1, le=2**63 - 1)]

Cascade = Annotated[
    bool, Query(description="Also delete what depends on it; without it that is a 409.")
]

OptionalId = Annotated[int | None, Query(ge=1, le=2**63 - 1)]

Format = Annotated[
    str, Query(alias="format", description="`safetensors`, `pth`, `masks` or `recipe`.")
]
