"""Uploaded weights and a named architecture become a `.pt2`, which is then read like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.domain.errors import InvalidFile, UnsupportedOperator
from app.domain.export_lines import export_hint
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.state_dict import StateDict
from worker.engine.formats.zoo.architecture import Architecture, candidates
from worker.engine.formats.zoo.build import outline, real
from worker.engine.formats.zoo.fit import Fit, Shape, compare, misfit, tie_groups
from worker.engine.graph import CanonicalModel

_MAX_PREFIX_PARTS = 3


@dataclass(frozen=True)
class Derived:
    """`key_prefix`: what all uploaded keys have before the network's own. `renamed`: keys of the
    upload, without the prefix, to the network's own, where a library has renamed them since.
    `arguments`: as used, with what was read off the file."""

    model: CanonicalModel
    path: Path
    arguments: dict[str, Any]
    key_prefix: str
    renamed: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class _Match:
    """`names`: keys of the upload, without the prefix, to the network's; `shapes` are by these."""

    architecture: Architecture
    outline: nn.Module
    fit: Fit
    prefix: str
    names: Mapping[str, str]
    shapes: Mapping[str, Shape]
    notes: tuple[str, ...] = ()


def derive(state: StateDict, name: str, arguments: Mapping[str, Any], path: Path) -> Derived:
    """Build the architecture, give it the weights, export it to `path` and read that.

    Raises InvalidInput for the architecture, InvalidFile for the weights.
    """
    matches = [_match(state, found) for found in candidates(name, arguments)]
    match = min(matches, key=lambda found: found.fit.faults)
    if match.fit.faults:
        raise misfit(
            match.fit,
            match.outline,
            match.shapes,
            match.architecture.name,
            _hint(match),
        )
    module = _filled(state, match)
    notes = _notes(state, match)
    sizes = match.architecture.input_note(match.architecture.example(module))
    notes += [sizes] if sizes else []
    model = _exported(match.architecture, module, path)
    renamed = {theirs: ours for theirs, ours in match.names.items() if theirs != ours}
    return Derived(model, path, match.architecture.arguments, match.prefix, renamed, notes)


def _match(state: StateDict, architecture: Architecture) -> _Match:
    """The fit of one network, after reading off the file what can be read off it."""
    found = _fitted(state, architecture)
    inferred = architecture.infer(found.outline, found.shapes) if found.fit.misshaped else {}
    if not inferred:
        return found
    again = candidates(architecture.name, {**architecture.arguments, **inferred})[0]
    better = _fitted(state, replace(again, notes=architecture.notes))
    if better.fit.faults >= found.fit.faults:
        return found
    said = tuple(
        f"{key} is {value}, as the shapes in the file say." for key, value in inferred.items()
    )
    return replace(better, notes=said)


def _fitted(state: StateDict, architecture: Architecture) -> _Match:
    module = outline(architecture, state)
    shapes = {state.key_prefix + key: tensor.shape for key, tensor in state.tensors.items()}
    best: _Match | None = None
    for prefix in dict.fromkeys((state.key_prefix, "", *_common_prefixes(shapes))):
        if not all(key.startswith(prefix) for key in shapes):
            continue
        cut = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
        for names in ({key: key for key in cut}, architecture.rename(module, list(cut))):
            if len(set(names.values())) != len(cut):
                continue
            own = {names[key]: shape for key, shape in cut.items()}
            fit = compare(module, own, architecture.ignored)
            if best is None or fit.faults < best.fit.faults:
                best = _Match(architecture, module, fit, prefix, names, own)
    assert best is not None
    return best


def _common_prefixes(keys: Mapping[str, Any]) -> list[str]:
    """The first parts that all keys share: "model.", "model.net."."""
    prefixes, prefix = [], ""
    first = next(iter(keys), "")
    for part in first.split(".")[:-1][:_MAX_PREFIX_PARTS]:
        prefix += part + "."
        if not all(key.startswith(prefix) for key in keys):
            break
        prefixes.append(prefix)
    return prefixes


def _hint(match: _Match) -> str:
    fixed = match.architecture.infer(match.outline, match.shapes)
    if not fixed:
        return ""
    said = ", ".join(f'"{key}": {value}' for key, value in fixed.items())
    return f"The shapes in the file suggest these architecture_args: {{{said}}}."


def _notes(state: StateDict, match: _Match) -> list[str]:
    notes = [*state.notes, *match.architecture.notes, *match.notes]
    if match.prefix != state.key_prefix:
        notes = [note for note in notes if not note.startswith("All keys begin with")]
        if match.prefix:
            notes.append(
                f"All keys begin with {match.prefix!r}; the network's own keys come after it."
            )
    if any(theirs != ours for theirs, ours in match.names.items()):
        notes.append(
            "Some keys are named as older versions of the library did; downloads keep these names."
        )
    if match.fit.tied:
        pairs = ", ".join(f"{key} (as {other})" for key, other in list(match.fit.tied.items())[:5])
        notes.append(f"Not in the file, as they are tied to others in it: {pairs}.")
    if match.fit.counters:
        notes.append("Counters of batches (num_batches_tracked) are not in the file; they are 0.")
    if match.fit.passed_over:
        listed = ", ".join(match.fit.passed_over[:5])
        notes.append(f"The network has no use for {listed}; downloads keep them as they are.")
    return notes


def _filled(state: StateDict, match: _Match) -> nn.Module:
    """The network with the uploaded weights, in the uploaded number types, tied as it ties them."""
    loaded = {
        match.names[(state.key_prefix + key)[len(match.prefix) :]]: tensor
        for key, tensor in state.load().items()
    }
    floats = {t.dtype for t in loaded.values() if t.dtype.is_floating_point}
    dtype = floats.pop() if len(floats) == 1 else torch.float32
    module = real(match.architecture, state, dtype)
    own = module.state_dict()
    for group in tie_groups(module):
        present = [key for key in group if key in loaded]
        first = loaded[present[0]]
        for key in present[1:]:
            if not _equal(loaded[key], first):
                raise InvalidFile(
                    f"{match.architecture.name} ties {key} to {present[0]}; in the file they "
                    "differ.",
                    'Set "tie_word_embeddings": false in architecture_args if it was trained so.',
                )
        loaded |= dict.fromkeys(group, first)
    parameters: dict[int, nn.Parameter] = {}
    trainable = dict(module.named_parameters(remove_duplicate=False))
    values: dict[str, Tensor] = {}
    for key, tensor in own.items():
        value = loaded.get(key)
        if value is None:
            value = torch.zeros_like(tensor)
        if key in trainable and (value.dtype.is_floating_point or value.dtype.is_complex):
            grad = trainable[key].requires_grad
            value = parameters.setdefault(
                id(value), nn.Parameter(value.detach(), requires_grad=grad)
            )
        values[key] = value
    module.load_state_dict(values, strict=True, assign=True)
    return module


def _equal(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    same = a.shape == b.shape and a.dtype == b.dtype
    return same and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _exported(architecture: Architecture, module: nn.Module, path: Path) -> CanonicalModel:
    """With any batch size where that works, else with that of the example."""
    args, kwargs = architecture.example(module)
    reason: Exception | None = None
    for shapes in (_free(args, kwargs), None):
        try:
            program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
            # The same upload makes the same file, whatever the example's numbers were.
            program.example_inputs = None
            torch.export.save(program, str(path))
            return load_model(path, "pt2")
        except UnsupportedOperator:
            raise
        except Exception as error:
            # Whatever torch finds wrong with a network, in many classes of errors.
            reason = reason or error
    if isinstance(reason, InvalidFile):
        raise reason
    raise InvalidFile(
        f"The network {architecture.name} can't be exported: {str(reason).strip()[:300]}",
        export_hint("Try it in your own environment"),
    ) from reason


def _free(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first axis of every tensor may have any size."""
    shapes = torch.export.ShapesCollection()
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim():
            shapes[value] = {0: torch.export.Dim.AUTO}
    return shapes
