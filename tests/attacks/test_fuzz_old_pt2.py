"""Mutated `.pt2` archives of older torch, whose weights lie in a pickle in an archive inside."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from tests.attacks import kit
from tests.attacks.exported import Entries, sound, written
from tests.unit.engine.archives import CONSTANTS, WEIGHTS


def saved(value: object) -> bytes:
    raw = io.BytesIO()
    torch.save(value, raw)
    return raw.getvalue()


def test_each_is_read_or_refused(tmp_path: Path) -> None:
    weights = {"0.weight": torch.rand(4, 3), "0.bias": torch.rand(4)}
    weights |= {"2.weight": torch.rand(2, 4), "2.bias": torch.rand(2)}
    now = sound()
    of_2_8 = Entries({name: data for name, data in now.items()
                      if "/weights/" not in name and name not in (WEIGHTS, CONSTANTS)})  # fmt: skip
    of_2_8 |= {"m/data/weights/model.pt": saved(weights), "m/data/constants/model.pt": saved({})}
    oldest = {
        "m/serialized_exported_program.json": now["m/models/model.json"],
        "m/serialized_state_dict.pt": saved(weights),
        "m/serialized_constants.pt": saved({}),
        "m/serialized_example_inputs.pt": saved(((torch.rand(2, 3),), {})),
        "m/version": b"8.1",
    }
    seeds = [written(tmp_path, of_2_8, "of_2_8.pt2"), written(tmp_path, oldest, "oldest.pt2")]
    for seed in seeds:
        assert kit.read_model(seed).value, kit.read_model(seed)
    kit.fuzzed(seeds, "zip", "model", tmp_path)
