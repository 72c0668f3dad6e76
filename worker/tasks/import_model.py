"""An uploaded model becomes its canonical form, once, to learn what is in it."""

from __future__ import annotations

from typing import Any

from app.domain.words import Status
from app.store.tables import Model
from worker.context import JobContext
from worker.engine.formats.pt2 import load_model
from worker.engine.formats.sniff import sniff_model_format
from worker.engine.graph import CanonicalModel
from worker.engine.units import weight_units


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
    macs = {layer.path: layer.macs for layer in model.layers}
    state = model.state_dict()
    described = []
    for unit in weight_units(model):
        layer = unit.id.rpartition(".")[0]
        described.append(
            {
                "id": unit.id,
                "size": unit.size,
                "shape": list(unit.shape),
                "members": list(unit.members),
                "layer": layer,
                "macs": macs.get(layer, 0) if unit.prunable else 0,
                "itemsize": state[unit.id].element_size(),
                "prunable": unit.prunable,
                "reason": unit.reason,
            }
        )
    return described
