"""Operators that nobody here has, and names that are anything but operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import kit
from tests.attacks.exported import answering, sound, tensor, written
from tests.unit.engine.archives import call


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.mylib.evil.default",
        "torch.ops.aten.evil.default",
        "torch.ops.aten.relu.evil",
        "torch.ops.aten.relu",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.relu.__call__",
        "torch.ops.aten.relu.default.__globals__",
        "torch.ops.aten.__init_subclass__.default",
        "torch.ops.aten._reload_packages.default",
        "torch.ops.inductor.resize_storage_bytes_.default",
        "torch.ops.inductor._reinterpret_tensor.default",
        "torch.ops.prims.copy_to.default",
        "torch.ops.quantized.linear.default",
        "torch.ops.static_runtime.create_owned_ref",
        "torch.ops.rngprims.philox_rand.default",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "_operator.call",
        "_operator.setitem",
        "_operator.pow",
        "_operator.lshift",
        "builtins.eval",
        "builtins.getattr",
        "math.factorial",
        "math.comb",
        "math.perm",
        "torch.sym_sqrt.__globals__",
        "torch.fx.wrap",
        "os.system",
        "../../etc",
        "\u202etluafed.uler.neta.spo.hcrot",
        "torch.ops.aten.relu.default ",
        "TORCH.OPS.ATEN.RELU.DEFAULT",
        "",
    ],
)
def test_they_are_refused_by_name(tmp_path: Path, canary: kit.Canary, target: str) -> None:
    node = call(target, "evil", ("self", tensor("linear_1")))
    path = written(tmp_path, sound().changed(lambda record: answering(record, node)))
    message = kit.refused(kit.read_model(path), "", canary, code="unsupported-operator")
    assert target.removeprefix("torch.ops.") in message


def test_a_name_as_long_as_a_book(tmp_path: Path, canary: kit.Canary) -> None:
    for length in (3_000, 3_000_000):
        node = call("torch.ops.x." + "y" * length, "evil", ("self", tensor("linear_1")))
        path = written(tmp_path, sound().changed(lambda r, node=node: answering(r, node)))
        assert len(kit.refused(kit.read_model(path), "", canary)) < 400
