"""Uses what recipes use, loaded after the walls are up."""

from __future__ import annotations

import os
import tempfile

import numpy as np

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    import safetensors.torch
    import torch

    layer = torch.nn.Conv2d(3, 8, 3)
    layer(torch.randn(8, 3, 64, 64)).sum().backward()
    product = torch.ones(500, 500) @ torch.ones(500, 500)
    torch.save(layer.state_dict(), job.folder / "weights.pt")
    safetensors.torch.save_file(layer.state_dict(), job.folder / "weights.safetensors")
    read = safetensors.torch.load_file(job.folder / "weights.safetensors")
    np.save(job.folder / "array.npy", np.arange(5))
    os.replace(job.folder / "array.npy", job.folder / "moved.npy")
    mapped = np.load(job.folder / "moved.npy", mmap_mode="r")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    return {
        "product": product.sum().item(),
        "same": bool(torch.equal(read["weight"], layer.weight)),
        "mapped": mapped.sum(),
        "threads": torch.get_num_threads(),
        "tasks": len(os.listdir("/proc/self/task")),
        "networks": _networks(job.arguments["packages"]),
    }


def _networks(packages: list[str]) -> dict[str, list[int]]:
    import torch

    from worker.engine.formats.zoo.torchvision_stand_in import (
        torchvision_or_none,
        torchvision_or_stand_in,
    )

    found = {}
    if "timm" in packages:
        with torchvision_or_stand_in():
            import timm

        found["timm"] = list(timm.create_model("resnet18")(torch.zeros(1, 3, 64, 64)).shape)
    if "transformers" in packages:
        with torchvision_or_none():
            from transformers import BertConfig, BertModel

        bert = BertModel(
            BertConfig(
                hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
            )
        )
        found["transformers"] = list(bert(torch.zeros(1, 4, dtype=torch.long))[0].shape)
    if "PIL" in packages:
        import io

        from PIL import Image

        out = io.BytesIO()
        Image.new("RGB", (8, 4)).save(out, "JPEG")
        found["PIL"] = list(Image.open(out).size)
    if "arro3" in packages:
        import io

        from arro3.core import Table
        from arro3.io import read_parquet, write_parquet

        out = io.BytesIO()
        write_parquet(Table.from_pydict({"a": _arrow([1, 2, 3])}), out)
        out.seek(0)
        found["arro3"] = [read_parquet(out).read_all().num_rows]
    return found


def _arrow(values: list[int]) -> object:
    from arro3.core import Array, DataType

    return Array(values, DataType.int64())
