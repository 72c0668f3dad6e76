"""All networks of the matrix."""

from __future__ import annotations

from tests.matrix.own_networks import OWN
from tests.matrix.registry import Entry
from tests.matrix.timm_networks import TIMM
from tests.matrix.transformers_networks import TRANSFORMERS

ENTRIES: tuple[Entry, ...] = (*OWN.entries, *TIMM.entries, *TRANSFORMERS.entries)


def label(entry: Entry) -> str:
    return f"{entry.library}: {entry.name}"


BY_LABEL = {label(entry): entry for entry in ENTRIES}
