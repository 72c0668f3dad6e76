"""pydantic's findings as sentences about the fields that the user wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FIXED = {
    "missing": "This field is required.",
    "extra_forbidden": "There is no such field here.",
    "float_type": "This has to be a number.",
    "float_parsing": "This has to be a number.",
    "finite_number": "This has to be a finite number.",
    "int_type": "This has to be a whole number.",
    "int_parsing": "This has to be a whole number.",
    "int_from_float": "This has to be a whole number.",
    "int_parsing_size": "This number is too large.",
    "bool_type": "This has to be true or false.",
    "bool_parsing": "This has to be true or false.",
    "string_type": "This has to be a text.",
    "list_type": "This has to be a list.",
    "dict_type": "This has to be an object of names and values.",
    "model_attributes_type": (
        "The body has to be a JSON object, sent with Content-Type: application/json."
    ),
    "model_type": "This has to be a JSON object.",
    "none_required": "This has to be null.",
}

_WITH_BOUND = {
    "greater_than_equal": "This has to be at least {ge}.",
    "greater_than": "This has to be more than {gt}.",
    "less_than_equal": "This has to be at most {le}.",
    "less_than": "This has to be less than {lt}.",
    "too_short": "This needs at least {min_length} entries.",
    "too_long": "This may have at most {max_length} entries.",
    "string_too_short": "This needs at least {min_length} characters.",
    "string_too_long": "This may have at most {max_length} characters.",
    "literal_error": "This has to be {expected}.",
    "enum": "This has to be {expected}.",
    "json_invalid": "The body is not valid JSON ({error}).",
}


def as_sentence(fault: Mapping[str, Any]) -> str:
    """One of pydantic's errors in plain words."""
    kind = fault["type"]
    if kind == "missing" and tuple(fault["loc"]) == ("body",):
        return "The request needs a JSON body."
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _WITH_BOUND:
        return _WITH_BOUND[kind].format(**fault.get("ctx", {}))
    text = str(fault["msg"]).removeprefix("Value error, ")
    return text if text.endswith(".") else text + "."


def field_name(location: Sequence[str | int]) -> str:
    """`("body", "sparsities", 3)` as `sparsities.3`; empty when it is the body as a whole."""
    parts = [str(part) for part in location[1:]]
    if location[:1] == ("body",) and len(parts) == 1 and parts[0].isdigit():
        return ""  # the position of a JSON syntax error
    return ".".join(parts)


def pointer(parts: Sequence[str | int]) -> str:
    """JSON pointer (RFC 6901) as a URI fragment."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return "#" + "".join(f"/{part}" for part in escaped)
