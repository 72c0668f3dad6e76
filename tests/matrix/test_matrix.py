"""Every network of the matrix: the canonical form is the user's network, and its figures exact."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.matrix.examine import Examined, answer
from tests.matrix.networks import BY_LABEL
from tests.matrix.table import RESULTS, row, table
from worker.engine.units import UNUSED


@pytest.fixture(scope="module", params=list(BY_LABEL))
def examined(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Examined]:
    """One network after the other: all tests of one come before the next is made."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Examined(BY_LABEL[request.param], Path(tmp_path_factory.mktemp("model")))
    torch.set_num_threads(threads)


def test_answers_equal_the_source_bit_for_bit(examined: Examined) -> None:
    assert len(examined.bit_equal) == (1 if examined.model.fixed_batch else 3)
    assert all(examined.bit_equal.values()), examined.bit_equal
    wanted = examined.entry.fixed
    assert examined.model.fixed_batch == (len(examined.made.inputs[0]) if wanted else None)


def test_keys_order_shapes_types_and_sharing_are_the_source_s(examined: Examined) -> None:
    own = examined.made.module.state_dict(keep_vars=True)
    found = examined.model.state_dict()
    assert list(found) == list(own) == list(examined.model.module.state_dict())
    for key, tensor in own.items():
        twin = found[key]
        assert (twin.dtype, twin.shape, twin.stride()) == (
            *(tensor.dtype, tensor.shape, tensor.stride()),
        ), key
        assert torch.equal(twin, tensor), key
        assert isinstance(twin, nn.Parameter) == isinstance(tensor, nn.Parameter), key
    assert families(found) == families(own)


def families(state: dict[str, Tensor]) -> set[tuple[str, ...]]:
    """Keys of one and the same tensor, for all tensors that have several."""
    keys: dict[int, list[str]] = {}
    for key, tensor in state.items():
        keys.setdefault(id(tensor), []).append(key)
    return {tuple(shared) for shared in keys.values() if len(shared) > 1}


def test_training_mode_is_the_source_s(examined: Examined) -> None:
    """Dropout drops the same entries, statistics of batches are used and updated the same way."""
    made, wanted = examined.made, examined.entry.training
    own = examined.entry.make().module.train()
    twin = copy.deepcopy(examined.model.module).train()
    with torch.no_grad():
        torch.manual_seed(5)
        expected = answer(made, made.inputs, own)
        torch.manual_seed(5)
        found = twin(*made.inputs)
    if wanted == "differs":
        assert found.shape == expected.shape
        assert not torch.equal(found, expected), "training mode is the source's by now"
        return
    assert torch.equal(found, expected)
    changes = not torch.equal(found, examined.ours(made.inputs))
    assert changes == (wanted == "same"), "training mode changes something, or nothing"
    buffers = dict(twin.named_buffers())
    for name, buffer in own.named_buffers():
        # The counters of batches count for momentum=None only, and no update depends on them here.
        if name in buffers and not name.endswith("num_batches_tracked"):
            assert torch.equal(buffers[name], buffer), name


def test_gradients_flow_to_the_same_parameters(examined: Examined) -> None:
    made = examined.made
    own, twin = examined.entry.make().module.eval(), copy.deepcopy(examined.model.module)
    answer(made, made.inputs, own).float().square().sum().backward()
    twin(*made.inputs).float().square().sum().backward()
    found = dict(twin.named_parameters())
    assert any(parameter.grad is not None for parameter in found.values())
    for key, parameter in own.named_parameters():
        gradient = found[key].grad
        assert (gradient is None) == (parameter.grad is None), key
        if gradient is not None:
            scale = float(parameter.grad.abs().max())
            assert torch.allclose(gradient, parameter.grad, 1e-3, 1e-4 * scale + 1e-9), key


def test_units_are_the_parameters_and_the_weights_among_them_prunable(examined: Examined) -> None:
    net, made = examined.entry.make().module.eval(), examined.made
    answer(made, made.inputs, net).float().square().sum().backward()
    named = dict(net.named_parameters(remove_duplicate=False))
    listed = [key for unit in examined.units for key in unit.members]
    assert sorted(listed) == sorted(named)
    weights = weights_of_layers(net)
    for unit in examined.units:
        parameter = named[unit.id]
        assert all(named[key] is parameter for key in unit.members)
        assert (unit.size, unit.shape) == (parameter.numel(), tuple(parameter.shape))
        assert unit.prunable == (unit.reason is None)
        if parameter.requires_grad:
            assert (unit.reason == UNUSED) == (parameter.grad is None), unit.id
        if parameter.grad is not None and weights.intersection(unit.members):
            assert unit.prunable, unit.id
        if parameter.dim() < 2:
            assert not unit.prunable, unit.id


def weights_of_layers(net: nn.Module) -> set[str]:
    """The keys of weights that layers multiply with."""
    kinds = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvNd)
    found = {f"{path}.weight" for path, m in net.named_modules() if isinstance(m, kinds)}
    for path, module in net.named_modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            found |= {f"{path}.{name}" for name, p in module.named_parameters() if p.dim() == 2}
        if isinstance(module, nn.MultiheadAttention):
            found.add(f"{path}.in_proj_weight")
    return found


def test_the_exact_analysis_equals_the_naive_loop(examined: Examined) -> None:
    exact = examined.exact
    assert exact.found == exact.expected
    assert len(exact.expected) >= 4
    assert exact.changed >= len(exact.expected) / 2, "hardly any cell differs from the dense run"
    assert examined.bit_equal == {
        size: torch.equal(examined.ours(x), examined.source(x))
        for size in examined.bit_equal
        for x in [examined.inputs_of(size)]
    }, "the analysis has changed the network"


def test_curves_by_the_fast_flow_have_the_same_answers(examined: Examined) -> None:
    """To the sample where a sample has one class, else but for answers that rounding turns."""
    if examined.entry.name == "a buffer for each sample":
        pytest.skip("what it answers depends on a sample's place, and the stream has other places")
    expected = examined.exact.expected
    assert examined.curves.keys() == expected.keys()
    single = examined.entry.task == "single-label"
    for cell, found in examined.curves.items():
        own = expected[cell]
        if own.loss is not None and found.loss is not None:
            assert found.loss == pytest.approx(own.loss, rel=2e-3, abs=1e-4), cell
        assert (found.loss is None) == (own.loss is None), cell
        if single:
            assert found.counts == own.counts, cell
        elif own.correct is not None and found.correct is not None:
            assert abs(found.correct - own.correct) <= 2, cell


def test_its_row_in_the_table_is_true(examined: Examined) -> None:
    assert row(examined) in RESULTS.read_text().splitlines(), "run: make matrix-table"


def test_the_table_has_these_rows_and_no_others() -> None:
    lines = RESULTS.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")][2:]
    assert [tuple(line.split(" | ")[:2]) for line in rows] == [
        (f"| {entry.library}", entry.name) for entry in BY_LABEL.values()
    ]
    assert RESULTS.read_text() == table(rows), "run: make matrix-table"
