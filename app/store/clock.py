"""The one clock of the store: leases and dates come from it, and tests can move it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

from sqlalchemy.orm import Session

CLOCK = "clock"

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def now(session: Session) -> datetime:
    """The time by the clock of the store that `session` belongs to (aware, UTC)."""
    return cast(Clock, session.info[CLOCK])().astimezone(UTC)
