"""Makes the golden archives: `python -m tests.golden.make`. Nothing but torch is needed.

They are `.pt2` files in the layouts of older torch. They were NOT written by those versions, which
need gigabytes to install: this torch exports the networks and serialises them, and the script then
puts the parts together as the older ones did, after their sources:

- `torch_2_7.pt2`: entries side by side, weights in pickles (torch 2.1 to 2.7; here with the graph
  in version 8.7 of the schema, as torch 2.7 wrote it);
- `torch_2_4.pt2`: the same with a decomposed graph in version 5.3 (torch 2.4): no kinds of
  arguments, `as_none` an empty list, a `dialect`;
- `torch_2_8.pt2`: today's layout, weights in pickles;
- `torch_2_2.pt2`: version 4 of the schema, which is refused.

`answers.json` keeps what the network answered when they were made.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._export.serde.serialize import serialize

FOLDER = Path(__file__).parent
Json = Any


class Golden(nn.Module):
    """A convolution, batch statistics, a tied pair of layers and a constant that is no state."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 3, bias=False)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 0.5]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3))
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x))))) * self.scale


def network() -> Golden:
    """The golden network, always the same."""
    torch.manual_seed(20)
    net = Golden()
    net.norm.running_mean = torch.linspace(-0.1, 0.1, 4)
    net.norm.running_var = torch.linspace(0.5, 2.0, 4)
    return net.eval()


def samples() -> Tensor:
    """Three samples `[3, 1, 4, 4]`."""
    return torch.arange(48, dtype=torch.float32).reshape(3, 1, 4, 4) / 24 - 1


def parts(net: nn.Module, *, decomposed: bool = False) -> tuple[Json, bytes, bytes]:
    """The graph's JSON, the pickled weights and the pickled constants."""
    shapes = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(net, (samples(),), dynamic_shapes=shapes)
    if decomposed:
        program = program.run_decompositions({})
    artifact = serialize(program)
    return json.loads(artifact.exported_program), artifact.state_dict, artifact.constants


def without_paths(graph: Json) -> Json:
    """The graph without the source lines of the machine that this script runs on."""
    for node in graph["graph_module"]["graph"]["nodes"]:
        for name in ("stack_trace", "source_fn_stack", "torch_fn", "from_node"):
            node["metadata"].pop(name, None)
    graph.pop("guards_code", None)
    return graph


def as_version_8_7(graph: Json) -> Json:
    graph = without_paths(graph)
    graph["schema_version"] = {"major": 8, "minor": 7}
    graph["torch_version"] = "2.7.0"
    for node in graph["graph_module"]["graph"]["nodes"]:
        node.pop("name", None)
    return graph


def as_version_5_3(graph: Json) -> Json:
    graph = as_version_8_7(graph)
    graph["schema_version"] = {"major": 5, "minor": 3}
    graph["dialect"] = "TRAINING"
    for name in ("verifiers", "torch_version"):
        graph.pop(name, None)
    for node in graph["graph_module"]["graph"]["nodes"]:
        for item in node["inputs"]:
            item.pop("kind", None)

    def older(value: Json) -> Json:
        if isinstance(value, list):
            return [older(item) for item in value]
        if isinstance(value, dict):
            return {key: [] if key == "as_none" else older(item) for key, item in value.items()}
        return value

    return older(graph)


def packed(entries: dict[str, bytes]) -> bytes:
    """A zip archive of stored entries with one date, so that it is always the same."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def side_by_side(graph: Json, weights: bytes, constants: bytes) -> bytes:
    """The layout of torch 2.1 to 2.7."""
    version = graph["schema_version"]
    return packed(
        {
            "serialized_exported_program.json": json.dumps(graph).encode(),
            "serialized_state_dict.pt": weights,
            "serialized_constants.pt": constants,
            "serialized_example_inputs.pt": b"",
            "version": f"{version['major']}.{version['minor']}".encode(),
        }
    )


def in_folders(graph: Json, weights: bytes, constants: bytes) -> bytes:
    """The layout of torch 2.8."""
    return packed(
        {
            "torch_2_8/archive_format": b"pt2",
            "torch_2_8/models/model.json": json.dumps(graph).encode(),
            "torch_2_8/archive_version": b"0",
            "torch_2_8/data/weights/model.pt": weights,
            "torch_2_8/data/constants/model.pt": constants,
            "torch_2_8/data/sample_inputs/model.pt": b"",
            "torch_2_8/byteorder": b"little",
            "torch_2_8/.data/version": b"6",
            "torch_2_8/.data/serialization_id": b"0",
        }
    )


def as_version_4(graph: Json) -> Json:
    graph = as_version_5_3(graph)
    graph["schema_version"] = {"major": 4, "minor": 2}
    return graph


MAKERS: dict[str, tuple[Callable[[Json], Json], Callable[[Json, bytes, bytes], bytes], bool]] = {
    "torch_2_2.pt2": (as_version_4, side_by_side, True),
    "torch_2_4.pt2": (as_version_5_3, side_by_side, True),
    "torch_2_7.pt2": (as_version_8_7, side_by_side, False),
    "torch_2_8.pt2": (as_version_8_7, in_folders, False),
}


def main() -> None:
    net = network()
    for name, (older, layout, decomposed) in MAKERS.items():
        graph, weights, constants = parts(net, decomposed=decomposed)
        (FOLDER / name).write_bytes(layout(older(graph), weights, constants))
    with torch.no_grad():
        answers = net(samples()).tolist()
    (FOLDER / "answers.json").write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
