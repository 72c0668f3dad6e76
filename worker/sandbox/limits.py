"""What a job may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """None means: no limit of ours (for memory: nine tenths of the machine's)."""

    memory_bytes: int | None = None
    seconds: float | None = None
    disk_bytes: int | None = None
    message_bytes: int = 64 << 20
    total_message_bytes: int = 4 << 30
    output_bytes: int = 8 << 20
