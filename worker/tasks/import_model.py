"""An uploaded model becomes its canonical form, once, to learn what is in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.domain.words import Status
from app.store.tables import Model
from worker.context import JobContext
from worker.engine.cost import Layer
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.sniff import sniff_model_format
from worker.engine.graph import CanonicalModel
from worker.engine.units import Unit, weight_units


def import_model(context: JobContext) -> None:
    """Payload `{model_id}`. Raises InvalidFile when the upload is no model that can be read."""
    model_id = context.payload["model_id"]
    with context.store.read() as session:
        row = session.get_one(Model, model_id)
    path = context.blobs.local_path(row.sha256)
    file_format = sniff_model_format(path)
    model = load_model(path, file_format)
    context.check()
    layers, units = describe_layers(model), describe_units(model)
    with context.write() as session:
        row = session.get_one(Model, model_id)
        row.format = file_format
        row.parameters = sum(unit["size"] for unit in units)
        row.state_bytes = state_bytes(model)
        row.macs = sum(layer["macs"] for layer in layers)
        row.layers = layers
        row.units = {"weight": units, "channel": []}
        row.inputs = [
            {"name": spec.name, "shape": list(spec.shape), "dtype": dtype_name(spec.dtype)}
            for spec in model.inputs
        ]
        row.fixed_batch = model.fixed_batch
        row.status = Status.READY
        row.error = None


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
    described = []
    for unit in units:
        described.append(
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
        )
    return described


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
