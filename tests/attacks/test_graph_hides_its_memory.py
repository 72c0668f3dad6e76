"""A workspace that no shape tells of: a dilated convolution of doubles unfolds its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.attacks import kit
from tests.attacks.exported import answering, sound, tensor, written
from tests.unit.engine.archives import call, graph_of


def test_what_the_machine_cannot_give_is_said(tmp_path: Path, canary: kit.Canary) -> None:
    """239 GB that are in no output's shape: the limit of the process turns them into a sentence."""

    def change(record: dict[str, Any]) -> None:
        doubles = ("dtype", {"as_scalar_type": 8})
        graph = graph_of(record)
        image, kernel = {"as_ints": [1, 1, 3000, 3000]}, {"as_ints": [1, 1, 60, 60]}
        graph["nodes"] += [
            call("torch.ops.aten.ones.default", "image", ("size", image), doubles),
            call("torch.ops.aten.ones.default", "kernel", ("size", kernel), doubles),
            call(
                "torch.ops.aten.conv2d.default",
                "unfolded",
                ("input", tensor("image")),
                ("weight", tensor("kernel")),
                ("bias", {"as_none": True}),
                ("stride", {"as_ints": [1, 1]}),
                ("padding", {"as_ints": [0, 0]}),
                ("dilation", {"as_ints": [2, 2]}),
            ),
            call("torch.ops.aten.sum.default", "total", ("self", tensor("unfolded"))),
        ]
        add = ("self", tensor("linear_1")), ("other", tensor("total"))
        answering(record, call("torch.ops.aten.add.Tensor", "evil", *add))

    path = written(tmp_path, sound().changed(change))
    words = "more memory than this machine can give"
    kit.refused(kit.read_model(path), words, canary, memory_bytes=kit.GIB)
