"""What a route answers, for its description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

PROBLEM_REFERENCE = "#/components/schemas/Problem"


def answers(
    model: type[BaseModel] | None, status: int = 200, *problems: int
) -> dict[int | str, Any]:
    """`responses=` of a route: what it answers, and the problems it may answer instead."""
    described: dict[int | str, Any] = {status: {"model": model} if model else {}}
    for code in (401, *problems):
        described[code] = {
            "description": "Problem",
            "content": {"application/problem+json": {"schema": {"$ref": PROBLEM_REFERENCE}}},
        }
    return described
