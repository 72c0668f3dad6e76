"""Models and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.store.tables import Dataset, Model
from app.web.views.common import JSON, error_view, instant

SPLITS = ("train", "tune", "test")


def model_summary(row: Model) -> JSON:
    return {
        "id": row.id,
        "name": row.name,
        "format": row.format,
        "sha256": row.sha256,
        "bytes": row.bytes,
        "architecture": row.architecture,
        "kind": (row.details or {}).get("kind", "network"),
        "status": str(row.status),
        "error": error_view(row.error),
        "parameters": row.parameters,
        "macs": row.macs,
        "job_id": row.job_id,
        "created_at": instant(row.created_at),
    }


def model_view(row: Model) -> JSON:
    """GET /api/models/{id}."""
    units = row.units or {}
    return model_summary(row) | {
        "layers": row.layers or [],
        "units": {
            "weight": [unit_view(unit) for unit in units.get("weight", ())],
            "channel": [unit_view(unit) for unit in units.get("channel", ())],
        },
        "inputs": row.inputs or [],
        "fixed_batch": row.fixed_batch,
        "architecture_args": row.architecture_args,
        "details": details_view(row.details),
    }


def details_view(details: JSON | None) -> JSON:
    """What the import found out beside the network; `weights` only where there is no network."""
    found = details or {}
    return {
        "kind": found.get("kind", "network"),
        "notes": found.get("notes") or [],
        "key_prefix": found.get("key_prefix") or "",
        "nested_under": found.get("nested_under") or "",
        "architecture_args": found.get("architecture_args") or {},
        "weights": _tensors(found.get("weights")),
    }


def _tensors(look: Any) -> list[JSON]:
    """A look at weights comes as its tensors, or as an object that has them beside their totals."""
    tensors = look.get("tensors") if isinstance(look, dict) else look
    return tensors if isinstance(tensors, list) else []


def unit_view(unit: JSON) -> JSON:
    shape = unit.get("shape") or []
    return {
        "id": unit["id"],
        "size": unit["size"],
        "shape": shape,
        "members": unit.get("members") or [unit["id"]],
        "layer": unit.get("layer", unit["id"].rpartition(".")[0]),
        "macs": unit.get("macs", 0),
        "itemsize": unit.get("itemsize", 4),
        "prunable": unit["prunable"],
        "reason": unit.get("reason"),
    }


def weight_units(row: Model) -> list[JSON]:
    """The units of granularity `weight`, in network order."""
    return [unit_view(unit) for unit in (row.units or {}).get("weight", ())]


def model_facts(row: Model, units: Sequence[JSON]) -> JSON:
    """What the costs of a plan are computed from, here and in the page."""
    return {
        "total_parameters": row.parameters or 0,
        "total_macs": row.macs or 0,
        "total_bytes": row.state_bytes or 0,
        "file_bytes": row.bytes,
        "units": [
            {
                "id": unit["id"],
                "size": unit["size"],
                "rows": (unit["shape"] or [1])[0],
                "itemsize": unit["itemsize"],
                "macs": unit["macs"],
            }
            for unit in units
            if unit["prunable"]
        ],
    }


def dataset_view(row: Dataset) -> JSON:
    """GET /api/datasets/{id}. All three splits are named; 0 means that there is none."""
    splits: dict[str, Any] = row.splits or {}
    return {
        "id": row.id,
        "name": row.name,
        "format": row.format,
        "sha256": row.sha256,
        "bytes": row.bytes,
        "status": str(row.status),
        "error": error_view(row.error),
        "task": row.task,
        "splits": {name: splits.get(name, 0) for name in SPLITS},
        "input_shape": row.input_shape,
        "classes": row.classes,
        "options": row.options or {},
        "details": row.details or {},
        "job_id": row.job_id,
        "created_at": instant(row.created_at),
    }
