"""A network in words and numbers: its layers, and its parameters as units with their costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from worker.engine.cost import Layer
from worker.engine.graph import CanonicalModel
from worker.engine.units import Unit, weight_units


def describe_network(model: CanonicalModel) -> dict[str, Any]:
    """`{layers, units, inputs, parameters, macs, state_bytes, fixed_batch}`; macs for a sample."""
    layers, units = describe_layers(model), describe_units(model)
    return {
        "layers": layers,
        "units": units,
        "inputs": [
            {"name": spec.name, "shape": list(spec.shape), "dtype": dtype_name(spec.dtype)}
            for spec in model.inputs
        ],
        "parameters": sum(unit["size"] for unit in units),
        "macs": sum(layer["macs"] for layer in layers),
        "state_bytes": state_bytes(model),
        "fixed_batch": model.fixed_batch,
    }


def state_bytes(model: CanonicalModel) -> int:
    """Bytes of everything in the state_dict; names that share a tensor count once."""
    distinct = {
        (value.data_ptr(), value.shape): value.numel() * value.element_size()
        for value in model.state_dict().values()
    }
    return sum(distinct.values())


def dtype_name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def describe_layers(model: CanonicalModel) -> list[dict[str, Any]]:
    """`[{path, type, parameters, macs, output_shape}]`; macs for one sample."""
    return [
        {
            "path": layer.path,
            "type": layer.type,
            "parameters": layer.parameters,
            "macs": layer.macs,
            "output_shape": list(layer.output_shape),
        }
        for layer in model.layers
    ]


def describe_units(model: CanonicalModel) -> list[dict[str, Any]]:
    """Every parameter tensor as a unit, with the facts that costs are computed from."""
    state = model.state_dict()
    units = weight_units(model)
    macs = unit_macs(model.layers, units)
    return [
        {
            "id": unit.id,
            "size": unit.size,
            "shape": list(unit.shape),
            "members": list(unit.members),
            "layer": owner(unit.id),
            "macs": macs.get(unit.id, 0),
            "itemsize": state[unit.id].element_size(),
            "prunable": unit.prunable,
            "reason": unit.reason,
        }
        for unit in units
    ]


def unit_macs(layers: Iterable[Layer], units: Iterable[Unit]) -> dict[str, int]:
    """Multiply-accumulates for one sample with the weights of each prunable unit.

    A layer's are shared out by size among the weights that it holds, tied ones in every layer that
    holds them, so that a plan never saves more than the network spends.
    """
    prunable = [unit for unit in units if unit.prunable]
    held: dict[str, dict[str, int]] = {}
    for unit in prunable:
        for path in {owner(key) for key in unit.members}:
            held.setdefault(path, {})[unit.id] = unit.size
    macs = dict.fromkeys((unit.id for unit in prunable), 0.0)
    for layer in layers:
        sizes = held.get(layer.path, {})
        for unit_id, size in sizes.items():
            macs[unit_id] += layer.macs * size / sum(sizes.values())
    return {unit_id: round(share) for unit_id, share in macs.items()}


def owner(key: str) -> str:
    """The path of the module that holds a parameter."""
    return key.rpartition(".")[0]
