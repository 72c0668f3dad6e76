"""`.pt2` archives taken apart, changed and put together again: what an attacker would send."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.domain.errors import InvalidFile
from tests.unit.engine.exports import export
from worker.engine.formats.pt2 import load_model

Entries = dict[str, bytes]
MODEL = "m/models/model.json"
WEIGHTS = "m/data/weights/model_weights_config.json"
CONSTANTS = "m/data/constants/model_constants_config.json"


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def small(folder: Path) -> Path:
    """A sound archive of a small network: fc1 `[4, 3]`, relu, fc2 `[2, 4]`."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    return export(net.eval(), (torch.randn(2, 3),), folder / "m.pt2")


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def pack(path: Path, entries: Entries, *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def changed(folder: Path, change: Callable[[dict[str, Any]], None], where: str = MODEL) -> Path:
    """A small archive in which one of its JSON entries was changed in place by `change`."""
    entries = entries_of(small(folder))
    record = json.loads(entries[where])
    change(record)
    entries[where] = json.dumps(record).encode()
    return pack(folder / "changed.pt2", entries)


def graph_of(record: dict[str, Any]) -> dict[str, Any]:
    return record["graph_module"]["graph"]


def call(target: str, name: str, *arguments: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A node of the graph, as JSON."""
    return {
        "target": target,
        "inputs": [{"name": n, "arg": value, "kind": 1} for n, value in arguments],
        "outputs": [{"as_tensor": {"name": name}}],
        "metadata": {"nn_module_stack": "L__self__,,Net;L__self__head,head,torch.nn.Linear"},
        "is_hop_single_tensor_return": None,
        "name": name,
    }


def refusal(path: Path, kind: type[InvalidFile] = InvalidFile) -> str:
    """What the reader says about an archive that it must refuse."""
    with pytest.raises(InvalidFile) as caught:
        load_model(path, "pt2")
    assert type(caught.value) is kind
    assert caught.value.message.endswith(".")
    assert caught.value.hint
    return caught.value.message
