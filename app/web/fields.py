"""Text fields of upload forms that say how a file is to be read. Their content is checked here as
far as it can be without the file; the import checks the rest."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from app.domain.metrics import Task
from app.web.multipart import display_name
from app.web.validation import refuse

MAX_JSON_BYTES = 16 * 1024
_ARCHITECTURE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}:[A-Za-z0-9][A-Za-z0-9_./-]{0,199}")
_STATE_DICTS = ("safetensors", "pth", "pt")
_EXAMPLES = "for example timm:resnet18, transformers:bert, or a name that an installed package adds"


def check_architecture(fields: Mapping[str, str], file_name: str) -> None:
    """Raises InvalidInput for an architecture that can't be meant, or that the file has no use for.

    Which architectures there are, the import knows.
    """
    text = fields.get("architecture", "").strip()
    args = parse_object(fields, "architecture_args")
    if not text:
        if args:
            raise refuse(
                "architecture_args",
                "There are arguments, but no architecture that could take them.",
                f"Name it in architecture, {_EXAMPLES}.",
            )
        return
    if not _ARCHITECTURE.fullmatch(text):
        raise refuse(
            "architecture",
            f"“{display_name(text, 80)}” is no name of an architecture.",
            f"Write where it comes from, a colon, and its name: {_EXAMPLES}.",
        )
    ending = file_name.lower().rpartition(".")[2]
    if ending == "pt2":
        raise refuse(
            "architecture",
            "A .pt2 file brings its own architecture.",
            "Leave architecture out, or upload the weights alone (.safetensors or .pth).",
        )
    if ending not in _STATE_DICTS:
        raise refuse(
            "architecture",
            "An architecture can only be given for a file of weights.",
            "Upload a .safetensors, .pth or .pt file with it, or leave architecture out.",
        )


def architecture_of(fields: Mapping[str, str]) -> str | None:
    return fields.get("architecture", "").strip() or None


def task_of(fields: Mapping[str, str]) -> str:
    """The task, classification when it is left out. Raises InvalidInput for another word."""
    task = fields.get("task", "").strip() or Task.CLASSIFICATION.value
    known = [each.value for each in Task]
    if task not in known:
        raise refuse(
            "task",
            f"There is no task “{display_name(task, 60)}”.",
            f"Known are {', '.join(known)}.",
        )
    return task


def parse_object(fields: Mapping[str, str], name: str) -> dict[str, Any] | None:
    """The JSON object in a field; None when it is left out or empty. Raises InvalidInput."""
    text = fields.get(name, "").strip()
    if not text:
        return None
    if len(text.encode()) > MAX_JSON_BYTES:
        raise refuse(name, f"{name} may have at most {MAX_JSON_BYTES // 1024} KiB.")
    example = 'Send an object such as {"num_classes": 10}.'
    if name == "options":
        example = 'Send an object such as {"preset": "imagenet", "size": 224}.'
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it can't be read"
        raise refuse(name, f"{name} is not valid JSON ({reason}).", example) from None
    if not isinstance(value, dict):
        raise refuse(name, f"{name} has to be a JSON object of names and values.", example)
    return value or None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def check_data(fields: Mapping[str, str]) -> None:
    """Raises InvalidInput for a task or options that can't be meant."""
    task_of(fields)
    parse_object(fields, "options")
