"""Raises the errors that a recipe may raise."""

from __future__ import annotations

from app.domain import errors
from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    said = job.arguments
    kind = getattr(errors, said["class"])
    raise kind(said["message"], said["hint"], fields=said.get("fields"))
