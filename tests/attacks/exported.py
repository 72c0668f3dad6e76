"""Sound `.pt2` archives to be made hostile, and what torch itself makes of the result."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.unit.engine.archives import MODEL, entries_of, graph_of, pack
from tests.unit.engine.exports import export

LOAD = "import torch\ntorch.export.load(path)"
LOAD_AND_USE = "import torch\ntorch.export.load(path).module()"


class Entries(dict[str, bytes]):
    """The entries of an archive by their full names."""

    def __or__(self, other: Any) -> Entries:
        return Entries({**self, **other})

    def json(self, where: str, change: Callable[[dict[str, Any]], Any]) -> bytes:
        """One JSON entry after `change` was made to it in place."""
        record = json.loads(self[where])
        change(record)
        return json.dumps(record).encode()

    def changed(self, change: Callable[[dict[str, Any]], Any], where: str = MODEL) -> Entries:
        return self | {where: self.json(where, change)}


@functools.cache
def _made(dynamic: bool) -> dict[str, bytes]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with tempfile.TemporaryDirectory() as folder:
        way = "dynamic" if dynamic else "static"
        return entries_of(export(net, (torch.randn(2, 3),), Path(folder) / "m.pt2", way))


def sound(*, dynamic: bool = True) -> Entries:
    """A network of two linear layers: 0.weight `[4, 3]`, relu, 2.weight `[2, 4]`."""
    return Entries(_made(dynamic))


def written(folder: Path, entries: dict[str, bytes], name: str = "evil.pt2") -> Path:
    return pack(folder / name, entries)


def answering(record: dict[str, Any], node: dict[str, Any]) -> None:
    """Add a call to the end of the graph, whose result (named "evil") becomes the answer."""
    graph = graph_of(record)
    graph["nodes"].append(node)
    graph["outputs"] = [{"as_tensor": {"name": "evil"}}]
    record["graph_module"]["signature"]["output_specs"] = [
        {"user_output": {"arg": {"as_tensor": {"name": "evil"}}}}
    ]
    graph["tensor_values"]["evil"] = graph["tensor_values"]["linear_1"]


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}
