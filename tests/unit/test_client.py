"""What `Client.push` makes of what it is given, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.client import Client, as_array, export
from app.domain.errors import InvalidInput
from worker.engine.formats.pt2 import load_model


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(3, 2),
        [[0, 1], [2, 3], [4, 5]],
        torch.arange(6).reshape(3, 2),
        torch.arange(6.0).reshape(3, 2).requires_grad_(),
    ],
    ids=["array", "list", "tensor", "tensor with gradient"],
)
def test_arrays_lists_and_tensors_are_taken(value: Any) -> None:
    assert as_array("x", value).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    "value",
    [[[1, 2], [3]], np.array([[1], None], dtype=object), [None, 1], torch.ones(2).bfloat16()],
    ids=["ragged", "objects", "none", "bfloat16"],
)
def test_what_is_no_array_is_named(value: Any) -> None:
    with pytest.raises(InvalidInput, match="x_tune can't be made an array"):
        as_array("x_tune", value)


def test_a_missing_file_is_said_before_the_export() -> None:
    with (
        Client("http://127.0.0.1:9", "token") as client,
        pytest.raises(InvalidInput, match=r"no file absent\.npz"),
    ):
        client.push(None, None, "absent.npz")


def test_inputs_may_come_as_a_list(tmp_path: Path) -> None:
    net = nn.Bilinear(4, 5, 3).eval()
    export(net, [torch.randn(2, 4), torch.randn(2, 5)], tmp_path / "net.pt2")
    model = load_model(tmp_path / "net.pt2", "pt2")
    assert [spec.shape for spec in model.inputs] == [(None, 4), (None, 5)]
