"""Criteria: the ways of choosing weights."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from app.criteria import known_criteria
from app.web.answers import CriterionList, answers

router = APIRouter(prefix="/criteria", tags=["criteria"])


@router.get("", responses=answers(CriterionList))
def list_criteria() -> JSONResponse:
    """What an analysis can rank weights by, with what each needs and where it comes from."""
    items = [
        {
            "name": each.name,
            "title": each.title,
            "description": each.description,
            "source": each.source,
            "needs": each.needs.value,
            "rewrites": each.rewrites,
        }
        for each in known_criteria().values()
    ]
    return JSONResponse({"items": items})
