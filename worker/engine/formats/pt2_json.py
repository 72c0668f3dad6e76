"""The JSON of a `.pt2` archive becomes typed values; anything unexpected is refused.

Symbolic sizes are never handed to a parser of expressions: a size is a number, or it is free and
only the number it had at export is read. Source lines and file paths of the exporting machine,
which archives carry, are dropped here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from app.domain.errors import InvalidFile, UnsafeFile
from app.domain.export_lines import export_hint
from worker.engine.formats.pt2_schema import (
    Argument,
    Dim,
    Frame,
    GraphData,
    NodeData,
    Ref,
    TensorMeta,
)

MAX_STRUCTURE = 4_000_000
MAX_DEPTH = 6
MAX_RANK = 16
MAX_STRING = 4_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,250}")
_MODULE_PATH = re.compile(r"[\w\- +/@#:]+(\.[\w\- +/@#:]+)*")
_T = TypeVar("_T")

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_STRIDED = 7


def malformed(what: str) -> InvalidFile:
    """The JSON has the wrong form; `what` says where."""
    return InvalidFile(
        f"The description of the network is malformed: {what}.",
        export_hint("Export it again with torch 2.13"),
    )


def parse_json(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises InvalidFile when it is not one, or is built to exhaust memory."""
    structure = sum(raw.count(mark) for mark in (b"{", b"[", b","))
    if structure > MAX_STRUCTURE:
        raise malformed(f"{what} has {structure:,} parts; at most {MAX_STRUCTURE:,} are accepted")
    try:
        value = json.loads(raw)
    except RecursionError as error:
        raise malformed(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise malformed(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise malformed(f"{what} is not a JSON object")
    return value


def get(record: Any, key: str, kind: type[_T]) -> _T:
    """`record[key]`, which must be of that kind (a bool is no int)."""
    if not isinstance(record, dict) or key not in record:
        raise malformed(f"{key} is missing")
    value = record[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise malformed(f"{key} is of the wrong kind")
    return value


def variant(record: Any) -> tuple[str, Any]:
    """The one entry of a tagged value."""
    if not isinstance(record, dict) or len(record) != 1:
        raise malformed("a tagged value does not have exactly one tag")
    return next(iter(record.items()))


def parse_name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise malformed(f"{str(value)[:80]!a} is not the name of a value")
    return value


def parse_key(value: Any) -> str:
    """A state_dict key or module path: it becomes attribute names, so its characters are few."""
    if not isinstance(value, str) or len(value) > 500 or not _MODULE_PATH.fullmatch(value):
        raise InvalidFile(
            f"The network has a module or parameter named {str(value)[:80]!a}; names may have "
            "letters, digits and _ - + / @ # : and spaces.",
            "Rename it and export the network again.",
        )
    return value


def parse_tensor_meta(record: Any) -> TensorMeta:
    """Raises InvalidFile for a dtype or layout that is not on the list."""
    code = get(record, "dtype", int)
    if code not in DTYPES:
        raise InvalidFile(
            f"The network has a tensor whose number type (code {code}) is not supported.",
            "Convert it to float32, float16 or bfloat16 before exporting: model.float().",
        )
    if get(record, "layout", int) != _STRIDED:
        raise InvalidFile(
            "The network has a sparse tensor.", "Make it dense with .to_dense() and export again."
        )
    sizes = tuple(_parse_dim(size) for size in get(record, "sizes", list))
    strides = tuple(_parse_dim(stride) for stride in get(record, "strides", list))
    offset = _parse_dim(get(record, "storage_offset", dict))
    if len(sizes) > MAX_RANK or len(strides) != len(sizes):
        raise malformed("a tensor has more axes than can be, or sizes and strides that differ")
    fixed = not any(dim.free for dim in strides)
    return TensorMeta(
        DTYPES[code],
        sizes,
        tuple(dim.size for dim in strides) if fixed else None,
        None if offset.free else offset.size,
        get(record, "requires_grad", bool),
    )


def _parse_dim(record: Any) -> Dim:
    tag, value = variant(record)
    if tag == "as_int" and type(value) is int and 0 <= value < 1 << 62:
        return Dim(value, False)
    if tag == "as_expr":
        hint = value.get("hint") if isinstance(value, dict) else None
        size = hint.get("as_int") if isinstance(hint, dict) else None
        return Dim(size if type(size) is int and 0 <= size < 1 << 62 else 2, True)
    raise malformed("a size is neither a number nor free")


def _plain_int(value: Any) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise malformed("a whole number is out of range")
    return value


def _float(value: Any) -> float:
    if value in ("Infinity", "-Infinity", "NaN"):
        return float({"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}[value])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise malformed("a number is of the wrong kind")
    number = float(value)
    if not math.isfinite(number) and isinstance(value, int):
        raise malformed("a number is out of range")
    return number


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise malformed("a truth value is of the wrong kind")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_STRING:
        raise malformed("a text is too long or of the wrong kind")
    return value


def _tensor(value: Any) -> Ref:
    return Ref(parse_name(get(value, "name", str)))


def _symbolic(plain: str, parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        tag, inner = variant(value)
        if tag == "as_name":
            return Ref(parse_name(inner))
        if tag == plain:
            return parse(inner)
        raise malformed("a symbolic number is of the wrong kind")

    return convert


def _optional(value: Any) -> Ref | None:
    tag, inner = variant(value)
    if tag == "as_none":
        return None
    if tag == "as_tensor":
        return _tensor(inner)
    raise malformed("an optional tensor is of the wrong kind")


def _several(parse: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise malformed("a list is of the wrong kind")
        return [parse(item) for item in value]

    return convert


def _choice(table: Mapping[int, Any], what: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not int or value not in table:
            raise malformed(f"an unknown {what}")
        return table[value]

    return convert


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda value: None,
    "as_tensor": _tensor,
    "as_tensors": _several(_tensor),
    "as_int": _plain_int,
    "as_ints": _several(_plain_int),
    "as_float": _float,
    "as_floats": _several(_float),
    "as_string": _string,
    "as_strings": _several(_string),
    "as_bool": _bool,
    "as_bools": _several(_bool),
    "as_sym_int": _symbolic("as_int", _plain_int),
    "as_sym_ints": _several(_symbolic("as_int", _plain_int)),
    "as_sym_float": _symbolic("as_float", _float),
    "as_sym_floats": _several(_symbolic("as_float", _float)),
    "as_sym_bool": _symbolic("as_bool", _bool),
    "as_scalar_type": _choice(DTYPES, "number type"),
    "as_memory_format": _choice(_MEMORY_FORMATS, "memory format"),
    "as_layout": _choice({_STRIDED: torch.strided}, "tensor layout"),
    # Whatever device the network was exported on, it runs on the one it is read on.
    "as_device": lambda value: torch.device("cpu"),
    "as_optional_tensor": _optional,
    "as_optional_tensors": _several(_optional),
    "as_int_lists": _several(_several(_plain_int)),
}


def parse_value(record: Any, depth: int = 0) -> Any:
    """An argument: plain Python values, Refs, lists of both, or a GraphData."""
    tag, value = variant(record)
    if tag == "as_graph":
        return parse_graph(get(value, "graph", dict), depth + 1)
    if tag in ("as_custom_obj", "as_operator"):
        raise UnsafeFile(
            "The network uses a custom object or operator, which would have to run code from the "
            "file.",
            "Export the network without custom C++ classes and operators.",
        )
    if tag not in _PARSERS:
        raise malformed(f"an argument of the unknown kind {tag[:40]!a}")
    return _PARSERS[tag](value)


def parse_stack(text: Any) -> tuple[Frame, ...]:
    """The modules an operator was called in, outermost first."""
    frames = []
    for item in text.split(";") if isinstance(text, str) else ():
        _, _, rest = item.partition(",")
        path, _, kind = rest.rpartition(",")
        if (path and not _MODULE_PATH.fullmatch(path)) or path.startswith("_empty_nn_module_stack"):
            continue
        frames.append(Frame(path, re.sub(r"\W", "", kind.rpartition(".")[2])[:80]))
    return tuple(frames)


def parse_graph(record: Any, depth: int = 0) -> GraphData:
    """A graph and the graphs inside its operators."""
    if depth > MAX_DEPTH:
        raise malformed("graphs are nested too deeply")
    tensors = {
        parse_name(name): parse_tensor_meta(meta)
        for name, meta in get(record, "tensor_values", dict).items()
    }
    inputs = []
    for value in get(record, "inputs", list):
        tag, inner = variant(value)
        if tag == "as_tensor":
            inputs.append(_tensor(inner).name)
        elif tag in ("as_none", "as_int", "as_float", "as_bool", "as_string"):
            inputs.append("")
        else:
            raise InvalidFile(
                "The network takes an input that is not a tensor.",
                "Give it tensors only, or fix the value with functools.partial before exporting.",
            )
    return GraphData(
        tuple(inputs),
        tuple(parse_value(value, depth) for value in get(record, "outputs", list)),
        tuple(_parse_node(node, depth) for node in get(record, "nodes", list)),
        tensors,
    )


def _parse_node(record: Any, depth: int) -> NodeData:
    metadata = get(record, "metadata", dict)
    return NodeData(
        _string(get(record, "target", str)),
        tuple(
            Argument(
                _string(get(item, "name", str)),
                parse_value(get(item, "arg", dict), depth),
                item.get("kind") == 2,
            )
            for item in get(record, "inputs", list)
        ),
        tuple(_parse_output(item) for item in get(record, "outputs", list)),
        parse_stack(metadata.get("nn_module_stack")),
    )


def _parse_output(record: Any) -> str | list[str] | None:
    value = parse_value(record)
    if isinstance(value, Ref):
        return value.name
    if isinstance(value, list) and all(isinstance(item, Ref) for item in value):
        return [item.name for item in value]
    if value is None:
        return None
    raise malformed("an operator returns something that is no tensor")
