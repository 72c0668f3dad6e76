"""Reading `.pt2` archives (torch.export) as data: no pickle, no `torch.export.load`, no code.

`torch.export.load` runs code from the file in several ways (pickled weights and constants, sample
inputs, sympified shapes, compiled libraries, guards). This reader takes the JSON graph and the raw
bytes of the tensors, and refuses the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.domain.errors import InvalidFile, UnsafeFile
from app.domain.export_lines import export_hint
from worker.engine.formats.archive import OLD_PROGRAM, Archive, damaged, open_archive
from worker.engine.formats.pt2_json import (
    get,
    malformed,
    parse_graph,
    parse_json,
    parse_key,
    parse_name,
    parse_tensor_meta,
    variant,
)
from worker.engine.formats.pt2_legacy import check_schema, is_old, pickled_entry, read_pickled
from worker.engine.formats.pt2_schema import (
    ExportedProgramData,
    GraphInput,
    Kind,
    Ref,
    TensorMeta,
)
from worker.engine.formats.stored import span
from worker.engine.graph import CanonicalModel, build_canonical

MAX_GRAPH_BYTES = 64 << 20
MAX_CONFIG_BYTES = 16 << 20
_ANSWER_KEYS = ("logits", "output", "out", "pred", "predictions")


def load_model(path: Path, format: str) -> CanonicalModel:
    """The canonical form of an uploaded model. `format`: what `sniff_model_format` said.

    Raises InvalidFile (UnsafeFile, UnsupportedOperator) with a sentence for whatever is wrong.
    """
    if format in ("safetensors", "pth"):
        raise InvalidFile(
            "The file holds weights, but not the network they belong to.",
            export_hint("Upload it together with the architecture, or export the network with"),
        )
    if format != "pt2":
        raise InvalidFile(f"Models of the format {format!a} can't be read.", export_hint())
    return build_canonical(read_pt2(path))


def read_pt2(path: Path) -> ExportedProgramData:
    """The archive at `path` as typed values; its tensors may be changed, the file is not.

    Large tensors are mapped, others read once. Raises InvalidFile.
    """
    with open_archive(path) as archive:
        name = _model_name(archive)
        old = is_old(archive)
        entry = OLD_PROGRAM if old else f"models/{name}.json"
        program = parse_json(archive.read(entry, MAX_GRAPH_BYTES), "the graph")
        check_schema(get(get(program, "schema_version", dict), "major", int), old=old)
        module = get(program, "graph_module", dict)
        signature = get(module, "signature", dict)
        graph = parse_graph(get(module, "graph", dict))
        inputs = _inputs(signature, graph.inputs)
        modules = _modules(module)
        signed = {item.key for item in inputs if item.kind is Kind.PARAMETER}
        weights = _tensors(path, archive, "weights", name, signed)
        constants = _tensors(path, archive, "constants", name, set())
    for item in inputs:
        if item.kind is Kind.USER:
            continue
        in_state = item.kind is Kind.PARAMETER or (item.kind is Kind.BUFFER and item.persistent)
        if item.key not in (weights.tensors if in_state else constants.tensors):
            raise damaged(f"the values of {item.key} are missing")
        tensor = (weights if in_state else constants).tensors[item.key]
        declared = graph.tensors.get(item.name)
        if declared and (declared.sizes, declared.dtype) != (tuple(tensor.shape), tensor.dtype):
            raise damaged(f"{item.key} has two different shapes or number types")
    order = _state_order(weights, inputs, modules)
    return ExportedProgramData(
        graph=graph,
        inputs=inputs,
        state={key: weights.tensors[key] for key in order},
        parameters=weights.parameters,
        constants=constants.tensors,
        modules=modules,
        output=_output_index(signature, module, graph.outputs, graph.tensors),
    )


def _model_name(archive: Archive) -> str:
    names = archive.entries
    if any(n.startswith("data/aotinductor/") for n in names):
        raise UnsafeFile(
            "The archive holds compiled code (AOTInductor), which would run when it is loaded.",
            export_hint("Save the exported program itself"),
        )
    if is_old(archive):
        return ""
    if "archive_format" not in names or archive.read("archive_format", 64) != b"pt2":
        raise InvalidFile("This archive is not a .pt2 file.", export_hint())
    if "byteorder" in names and archive.read("byteorder", 64) != b"little":
        raise InvalidFile(
            "The file was written on a big-endian machine.", "Export it on an x86 or ARM machine."
        )
    models = [n for n in names if n.startswith("models/") and n.endswith(".json")]
    if len(models) != 1:
        raise InvalidFile(
            f"The archive holds {len(models)} networks; exactly one is needed.", export_hint()
        )
    return models[0].removeprefix("models/").removesuffix(".json")


@dataclass(frozen=True)
class _Tensors:
    """Tensors by key, in the order of the archive; tied ones are the same object."""

    tensors: dict[str, Tensor]
    parameters: frozenset[str]


def _tensors(
    path: Path, archive: Archive, folder: str, model: str, signed: AbstractSet[str]
) -> _Tensors:
    """The weights or constants; `signed`: what the graph calls parameters."""
    pickled = pickled_entry(archive, folder, model)
    if pickled:
        return _Tensors(*read_pickled(path, archive, pickled, signed))
    if is_old(archive):
        if folder == "weights":
            raise damaged("its weights are missing")
        return _Tensors({}, frozenset())
    return _read_tensors(archive, folder, model)


def _read_tensors(archive: Archive, folder: str, model: str) -> _Tensors:
    config_name = f"data/{folder}/{model}_{folder}_config.json"
    config = get(
        parse_json(archive.read(config_name, MAX_CONFIG_BYTES), f"the list of {folder}"),
        "config",
        dict,
    )
    files: dict[str, list[tuple[str, TensorMeta, bool]]] = {}
    for raw_key, record in config.items():
        key = parse_key(raw_key)
        if get(record, "use_pickle", bool) or record.get("tensor_meta") is None:
            raise UnsafeFile(
                f"{key} is stored as a pickle, which can run code when it is opened.",
                "Export the network with plain tensors as parameters and buffers: no tensor "
                "subclasses and no custom objects.",
            )
        path_name = get(record, "path_name", str)
        meta = parse_tensor_meta(get(record, "tensor_meta", dict))
        files.setdefault(path_name, []).append((key, meta, get(record, "is_param", bool)))
    tensors: dict[str, Tensor] = {}
    for path_name, wanted in files.items():
        tensors.update(_read_storage(archive, f"data/{folder}/{path_name}", wanted))
    parameters = frozenset(k for group in files.values() for k, _, is_param in group if is_param)
    return _Tensors({key: tensors[key] for key in config}, parameters)


def _read_storage(
    archive: Archive, name: str, wanted: list[tuple[str, TensorMeta, bool]]
) -> dict[str, Tensor]:
    """The tensors that lie in one entry."""
    entry = archive.entry(name)
    dtype = wanted[0][1].dtype
    itemsize = torch.empty(0, dtype=dtype).element_size()
    spans: dict[tuple[Any, ...], tuple[int, int]] = {}
    for key, meta, _ in wanted:
        if meta.dtype != dtype:
            raise damaged(f"{key} shares its bytes with a tensor of another number type")
        start, end = _span(key, meta)
        if end * itemsize > entry.size:
            raise damaged(
                f"{key} claims {end:,} numbers, its bytes hold {entry.size // itemsize:,}"
            )
        spans[_place(meta)] = (start, end)
    ordered = sorted(span for span in spans.values() if span[0] < span[1])
    if any(later[0] < earlier[1] for earlier, later in pairwise(ordered)):
        keys = ", ".join(key for key, _, _ in wanted[:4])
        raise InvalidFile(
            f"The tensors {keys} overlap in memory without being the same tensor.",
            "Give each its own memory with .clone() and export again.",
        )
    if entry.size % itemsize:
        raise damaged(f"{name} does not hold a whole number of values")
    flat = archive.tensor(entry).view(dtype)
    whole = len(spans) == 1 and next(iter(spans.values())) == (0, flat.numel())
    if dtype is torch.bool and bool((flat.view(torch.uint8) > 1).any()):
        raise damaged(f"{name} holds values that are neither true nor false")
    made: dict[tuple[Any, ...], Tensor] = {}
    result: dict[str, Tensor] = {}
    for key, meta, is_param in wanted:
        place = (*_place(meta), is_param)
        if place not in made:
            tensor = flat.as_strided(meta.sizes, meta.strides or (), meta.offset or 0)
            if not whole:
                tensor = tensor.clone(memory_format=torch.preserve_format)
            if is_param:
                trainable = meta.requires_grad and (dtype.is_floating_point or dtype.is_complex)
                tensor = nn.Parameter(tensor, requires_grad=trainable)
            made[place] = tensor
        result[key] = made[place]
    return result


def _place(meta: TensorMeta) -> tuple[Any, ...]:
    return (meta.offset, meta.sizes, meta.strides)


def _span(key: str, meta: TensorMeta) -> tuple[int, int]:
    """First and one past the last place in memory. Refuses places that are used twice."""
    if any(dim.free for dim in meta.shape) or meta.strides is None or meta.offset is None:
        raise damaged(f"{key} has a free size")
    return span(
        key,
        meta.sizes,
        meta.strides,
        meta.offset,
        "Call .contiguous() (or .clone()) on it and export again.",
    )


def _inputs(signature: dict[str, Any], names: tuple[str, ...]) -> tuple[GraphInput, ...]:
    specs = get(signature, "input_specs", list)
    if len(specs) != len(names):
        raise malformed("the graph and its signature disagree about the inputs")
    inputs = []
    for record, name in zip(specs, names, strict=True):
        tag, value = variant(record)
        if tag in ("constant_input", "user_input") and name == "":
            continue
        if tag == "user_input":
            inputs.append(GraphInput(name, Kind.USER, name, False))
            continue
        if tag in ("custom_obj", "token"):
            raise UnsafeFile(
                "The network uses a custom object, which would have to run code from the file.",
                "Export the network without custom C++ classes and operators.",
            )
        fields = {
            "parameter": (Kind.PARAMETER, "parameter_name"),
            "buffer": (Kind.BUFFER, "buffer_name"),
            "tensor_constant": (Kind.CONSTANT, "tensor_constant_name"),
        }
        if tag not in fields:
            raise malformed(f"an input of the unknown kind {tag[:40]!a}")
        if parse_name(get(get(value, "arg", dict), "name", str)) != name:
            raise malformed("the graph and its signature disagree about the inputs")
        kind, field = fields[tag]
        persistent = kind is Kind.PARAMETER or (
            kind is Kind.BUFFER and get(value, "persistent", bool)
        )
        inputs.append(GraphInput(name, kind, parse_key(get(value, field, str)), persistent))
    if len({i.name for i in inputs}) != len(inputs):
        raise malformed("two inputs have the same name")
    return tuple(inputs)


def _modules(module: dict[str, Any]) -> tuple[str, ...]:
    paths = [get(entry, "fqn", str) for entry in get(module, "module_call_graph", list)]
    return tuple(parse_key(path) for path in paths if path)


def _state_order(
    weights: _Tensors, inputs: tuple[GraphInput, ...], modules: tuple[str, ...]
) -> list[str]:
    """The keys as the network itself orders them.

    Archives list tied tensors beside each other and buffers sometimes last. A module's own
    parameters come first, then its buffers, then its children's, in the order of the modules.
    Within a module the archive keeps the order, unless tying moved one of its tensors: then the
    signature is asked, which mostly keeps it too.
    """
    listed = {key: at for at, key in enumerate(weights.tensors)}
    module_at = {path: at + 1 for at, path in enumerate(modules)} | {"": 0}
    if any(key.rpartition(".")[0] not in module_at for key in listed):
        return list(listed)
    signed = {item.key: at for at, item in enumerate(inputs) if item.kind is not Kind.USER}
    first: dict[int, str] = {}
    for key, tensor in weights.tensors.items():
        first.setdefault(id(tensor), key)
    moved = {key for key, tensor in weights.tensors.items() if first[id(tensor)] != key}
    groups: dict[tuple[int, bool], list[str]] = {}
    for key in listed:
        group = (module_at[key.rpartition(".")[0]], key not in weights.parameters)
        groups.setdefault(group, []).append(key)
    order: list[str] = []
    for group in sorted(groups):
        keys = groups[group]
        is_moved = any(key in moved for key in keys) and all(key in signed for key in keys)
        known = signed if is_moved else listed
        order += sorted(keys, key=lambda key: known[key])
    return order


def _output_index(
    signature: dict[str, Any],
    module: dict[str, Any],
    outputs: tuple[Any, ...],
    tensors: Mapping[str, TensorMeta],
) -> int:
    """Which output is the network's answer: the one named logits, else the first float tensor."""
    specs = get(signature, "output_specs", list)
    if len(specs) != len(outputs):
        raise malformed("the graph and its signature disagree about the outputs")
    mutated = [variant(spec)[0] for spec in specs]
    user = [at for at, tag in enumerate(mutated) if tag == "user_output"]
    keys = _output_keys(module)
    if len(keys) == len(user):
        for wanted in _ANSWER_KEYS:
            if wanted in keys:
                return user[keys.index(wanted)]
    for at in user:
        value = outputs[at]
        meta = tensors.get(value.name) if isinstance(value, Ref) else None
        if meta is not None and meta.dtype.is_floating_point:
            return at
    raise InvalidFile(
        "The network's output is not a tensor of numbers.",
        "Export a network that returns its scores, one row per sample.",
    )


def _output_keys(module: dict[str, Any]) -> list[str]:
    """The names of the outputs if the network returns a flat dictionary, else nothing."""
    for entry in get(module, "module_call_graph", list):
        signed = entry.get("signature") if isinstance(entry, dict) else None
        if entry.get("fqn") == "" and isinstance(signed, dict):
            try:
                spec = json.loads(get(signed, "out_spec", str))[1]
                keys = json.loads(spec["context"]) if spec["type"] == "builtins.dict" else []
                flat = all(child["type"] is None for child in spec["children_spec"])
            except (ValueError, KeyError, IndexError, TypeError, RecursionError):
                return []
            return [str(key) for key in keys] if flat and isinstance(keys, list) else []
    return []
