"""Graphs whose operators talk to other machines, processes or devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit
from tests.attacks.exported import answering, sound, tensor, written
from tests.unit.engine.archives import call


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.c10d.broadcast_.default",
        "torch.ops.c10d_functional.all_reduce.default",
        "torch.ops._c10d_functional.all_gather_into_tensor.default",
        "torch.ops.symm_mem.one_shot_all_reduce.default",
        "torch.ops.rpc.remote.default",
        "torch.distributed.init_process_group",
        "torch.ops.cuda.synchronize.default",
        "torch.ops.aten.record_stream.default",
        "torch.ops.streams.wait_event.default",
        "torch.ops.mkldnn._convolution_pointwise.default",
        "torch.ops.aten._cudnn_rnn.default",
        "torch.ops.aten.is_pinned.default",
        "urllib.request.urlopen",
        "socket.create_connection",
        "subprocess.run",
        "os.system",
    ],
)
def test_it_is_not_on_the_list(tmp_path: Path, canary: kit.Canary, target: str) -> None:
    node = call(target, "evil", ("self", tensor("linear_1")))
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    kit.refused(kit.read_model(path), "is not on the list", canary, code="unsupported-operator")


@pytest.mark.parametrize("device", ["cuda", "meta", "privateuseone", "xla", "nonsense", "cuda:-7"])
def test_another_device_is_this_one(tmp_path: Path, canary: kit.Canary, device: str) -> None:
    """Where a network was exported doesn't matter: it runs here, on this processor."""
    node = call(
        "torch.ops.aten.to.device",
        "evil",
        ("self", tensor("linear_1")),
        ("device", {"as_device": {"type": device, "index": 3}}),
        ("dtype", {"as_scalar_type": 7}),
    )
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    assert outcome.value["inputs"] == [[None, 3]]
