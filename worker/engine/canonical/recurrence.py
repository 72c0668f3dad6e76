"""Recurrent operators that stay functional, with the checks that nn.LSTM and its kin make.

ATen's own `lstm` trusts its arguments: a state or weight of another size than the rest makes the
CPU kernel read and write past the end of its memory. A file may say anything, so sizes are compared
before every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten


def _require(tensor: Tensor, shape: Sequence[Any], like: Tensor, what: str) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{what} of a recurrent layer has the shape {tuple(tensor.shape)} instead of "
            f"{tuple(shape)}"
        )
    if tensor.dtype != like.dtype:
        raise ValueError(f"{what} of a recurrent layer is {tensor.dtype} instead of {like.dtype}")


def check_sizes(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    gates: int,
) -> None:
    """Raises ValueError unless all sizes and number types belong together.

    `states`: hidden, and cell for an LSTM, each [layers * directions, batch, size]; `weights` in
    the order of `nn.RNNBase`; `gates`: 4 for an LSTM, 3 for a GRU, 1 else.
    """
    if x.dim() != 3 or len(states) != (2 if gates == 4 else 1) or len(weights) < 2:
        raise ValueError("a recurrent layer is called with other inputs than it takes")
    directions = 2 if bidirectional else 1
    hidden, given = weights[0].shape[0] // gates, states[0].shape[-1]
    projected = gates == 4 and given != states[1].shape[-1]
    each = 2 + 2 * biases + projected
    if layers < 1 or len(weights) != layers * directions * each:
        raise ValueError("a recurrent layer has another number of weights than it needs")
    if not projected and given != hidden:
        raise ValueError(f"the state of a recurrent layer has {given} features, not {hidden}")
    batch, width = x.shape[0 if batch_first else 1], x.shape[2]
    for at in range(layers * directions):
        own = weights[at * each : (at + 1) * each]
        inputs = width if at < directions else given * directions
        shapes: list[tuple[int, ...]] = [(gates * hidden, inputs), (gates * hidden, given)]
        shapes += [(gates * hidden,)] * (2 * biases) + [(given, hidden)] * projected
        for weight, shape in zip(own, shapes, strict=True):
            _require(weight, shape, x, "a weight")
    for state, size in zip(states, (given, hidden), strict=False):
        _require(state, (layers * directions, batch, size), x, "the state")


def lstm(x: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], *settings: Any) -> Any:
    """`aten.lstm` after `check_sizes`; settings in the operator's order."""
    biases, layers, _, _, bidirectional, batch_first = settings
    check_sizes(x, hx, params, biases, layers, bidirectional, batch_first, 4)
    return _ATEN.lstm.input(x, hx, params, *settings)


def _simple(kernel: Callable[..., Any], gates: int, name: str) -> Callable[..., Any]:
    def checked(x: Tensor, hx: Tensor, params: Sequence[Tensor], *settings: Any) -> Any:
        biases, layers, _, _, bidirectional, batch_first = settings
        check_sizes(x, [hx], params, biases, layers, bidirectional, batch_first, gates)
        return kernel(x, hx, params, *settings)

    # fx writes the name into the code that it makes of the graph.
    checked.__name__ = checked.__qualname__ = name
    return checked


gru = _simple(_ATEN.gru.input, 3, "gru")
rnn_tanh = _simple(_ATEN.rnn_tanh.input, 1, "rnn_tanh")
rnn_relu = _simple(_ATEN.rnn_relu.input, 1, "rnn_relu")

CHECKED: dict[str, Callable[..., Any]] = {
    "lstm.input": lstm,
    "gru.input": gru,
    "rnn_tanh.input": rnn_tanh,
    "rnn_relu.input": rnn_relu,
}
"""What runs instead of the operator of that name."""
