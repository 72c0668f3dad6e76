"""Computing in bfloat16: the heavy operators in it, everything else in whatever comes in.

As in mixed precision training (Micikevicius et al., 2018) and torch's autocast: products of
matrices, convolutions and recurrent layers take bfloat16, sums that go through the whole network
and normalisation stay in float32 where they were, because they cost little. A layer that makes the
outputs themselves stays in float32 where it is small: eight bits of mantissa would tie logits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from worker.engine.fast.kernels import Kernel, Layer, Recurrent
from worker.engine.fast.work import SEEN, Seen, Work, argument, aten_name, seen

_HEAVY = frozenset({"matmul", "bmm", "mm", "linear", "conv1d", "conv2d", "conv3d"})
_EXACT = frozenset(
    {
        *("softmax", "_softmax", "log_softmax", "_log_softmax", "layer_norm", "group_norm"),
        *("native_layer_norm", "rms_norm", "scaled_dot_product_attention", "exp", "log", "pow"),
        *("sum", "mean", "var", "std", "var_mean", "cumsum", "cumprod", "logsumexp", "norm"),
        *("adaptive_avg_pool2d", "adaptive_avg_pool1d", "linalg_vector_norm", "prod", "erf"),
    }
)
_SHORT = 256
_SMALL_HEAD = 0.1
"""The part of all multiplications that a last layer in float32 may take."""


def to_bfloat16(work: Work, sample: list[Tensor]) -> None:
    """Rewrite a graph whose kernels were not built yet. Raises what the graph raises."""
    last = _last_layers(work)
    values: dict[fx.Node, Any] = {}
    casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    inputs = iter(sample)
    runner = fx.Interpreter(work.module, garbage_collect_values=False)
    runner.env = values

    def cast(node: fx.Node, dtype: torch.dtype) -> None:
        for source in node.all_input_nodes:
            value = values[source]
            wrong = torch.bfloat16 if dtype == torch.float32 else torch.float32
            if not isinstance(value, Tensor) or value.dtype != wrong:
                continue
            if (source, dtype) not in casts:
                with work.graph.inserting_before(node):
                    made = work.graph.call_method("to", (source, dtype))
                values[made] = value.to(dtype)
                made.meta[SEEN] = Seen(tuple(value.shape), dtype)
                casts[source, dtype] = made
            node.replace_input_with(source, casts[source, dtype])

    with torch.inference_mode(False), torch.no_grad():
        for node in list(work.graph.nodes):
            if node.op == "placeholder":
                values[node] = next(inputs).clone()
                continue
            if node.op == "output":
                cast(node, torch.float32)
                continue
            if node.op != "get_attr":
                module = work.submodule(node)
                heavy = isinstance(module, (Layer, Recurrent)) or aten_name(node) in _HEAVY
                if heavy and node not in last:
                    cast(node, torch.bfloat16)
                    if isinstance(module, (Layer, Recurrent)):
                        module.dtype = torch.bfloat16
                elif _plain_attention(node):
                    cast(node, torch.bfloat16)
                    scale = argument(node, "scale")
                    node.args, node.kwargs = (*node.args[:3], scale), {}
                    node.target = attend
                elif heavy or aten_name(node) in _EXACT:
                    cast(node, torch.float32)
                if isinstance(module, Kernel):
                    module.build()
                if aten_name(node) == "add" and _mixed(node, values):
                    node.target = add_mixed
            values[node] = _run(runner, node, cast)
            if isinstance(values[node], Tensor):
                node.meta[SEEN] = Seen(tuple(values[node].shape), values[node].dtype)


def _run(runner: fx.Interpreter, node: fx.Node, cast: Any) -> Any:
    try:
        return runner.run_node(node)
    except RuntimeError:
        # Operators that take one number type only.
        cast(node, torch.float32)
        return runner.run_node(node)


def _plain_attention(node: fx.Node) -> bool:
    """Attention over a short sequence without a mask."""
    if aten_name(node) != "scaled_dot_product_attention" or len(node.args) < 3:
        return False
    given = [seen(source) for source in node.args[:3]]
    if any(g is None or len(g.shape) != 4 for g in given):
        return False
    options = ("attn_mask", "dropout_p", "is_causal", "enable_gqa")
    plain = not any(argument(node, name) for name in options)
    return plain and given[1].shape[-2] <= _SHORT  # type: ignore[union-attr]


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Attention in three steps: twice as fast on short sequences as the one fused operator."""
    factor: float = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(factor)
    return torch.matmul(torch.softmax(scores, -1), value)


def _mixed(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Whether a plain sum of two tensors of one shape has one in each number type."""
    if len(node.args) != 2 or node.kwargs or len(node.all_input_nodes) != 2:
        return False
    left, right = (values[source] for source in node.all_input_nodes)
    types = {torch.float32, torch.bfloat16}
    return left.shape == right.shape and {left.dtype, right.dtype} == types


def add_mixed(left: Tensor, right: Tensor) -> Tensor:
    """left + right in float32; torch's own sum of two number types is slower."""
    if left.dtype == torch.float32:
        left, right = right, left
    return left.to(torch.float32).add_(right)


def _last_layers(work: Work) -> set[fx.Node]:
    """Linear layers that make the outputs, where they are a small part of the work."""
    work_of = {node: _multiplications(work, node) for node in work.nodes}
    total = sum(work_of.values())
    found: set[fx.Node] = set()
    waiting = [n for node in work.graph.nodes if node.op == "output" for n in node.all_input_nodes]
    looked: set[fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node in looked:
            continue
        looked.add(node)
        if isinstance(work.submodule(node), Layer):
            if work_of[node] <= _SMALL_HEAD * total:
                found.add(node)
        elif node.op in ("call_function", "call_method"):
            waiting += node.all_input_nodes
    return found


def _multiplications(work: Work, node: fx.Node) -> float:
    module, made = work.submodule(node), seen(node)
    if isinstance(module, Layer) and made is not None:
        weight = module.layer.weight
        return math.prod(made.shape) * weight.numel() / weight.shape[0]
    if isinstance(module, Recurrent):
        given = seen(node.args[0])
        steps = math.prod(given.shape[:2]) if given else 1
        return steps * sum(p.numel() for p in module.parameters())
    return 0.0
