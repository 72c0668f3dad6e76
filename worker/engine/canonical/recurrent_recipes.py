"""Recurrent layers and cells as modules again, so that dropout between layers comes back."""

from __future__ import annotations

from typing import Any

from torch import nn

from worker.engine.canonical.calls import Call
from worker.engine.canonical.recipes import Recipe, recipe

_KINDS: dict[str, tuple[type[nn.Module], int, dict[str, Any]]] = {
    "lstm": (nn.LSTM, 4, {}),
    "gru": (nn.GRU, 3, {}),
    "rnn_tanh": (nn.RNN, 1, {"nonlinearity": "tanh"}),
    "rnn_relu": (nn.RNN, 1, {"nonlinearity": "relu"}),
}
_CELLS: dict[str, tuple[type[nn.Module], int, dict[str, Any]]] = {
    "lstm_cell": (nn.LSTMCell, 4, {}),
    "gru_cell": (nn.GRUCell, 3, {}),
    "rnn_tanh_cell": (nn.RNNCell, 1, {"nonlinearity": "tanh"}),
    "rnn_relu_cell": (nn.RNNCell, 1, {"nonlinearity": "relu"}),
}


def _states(call: Call) -> list[Any]:
    """The given states: none where they are nothing but zeros, which the module makes itself.

    An export with a fixed batch size has that size in its zeros.
    """
    value = call["hx"]
    states = list(value) if isinstance(value, list) else [value]
    return [] if all(call.is_zeros(state) for state in states) else states


@recipe("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")
def _recurrent(call: Call) -> Recipe | None:
    kind, gates, extra = _KINDS[call.operator.partition(".")[0]]
    x, first = call.meta("input"), call.meta("params.0")
    if x is None or first is None or len(x.shape) != 3 or len(first.shape) != 2:
        return None
    layers, directions = call["num_layers"], 2 if call["bidirectional"] else 1
    each, rest = divmod(len(call["params"]), layers * directions)
    names = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * bool(call["has_biases"])
    settings = {
        "input_size": first.sizes[1],
        "hidden_size": first.sizes[0] // gates,
        "num_layers": layers,
        "bias": call["has_biases"],
        "batch_first": call["batch_first"],
        "dropout": call["dropout"] if layers > 1 else 0.0,
        "bidirectional": call["bidirectional"],
        **extra,
    }
    if kind is nn.LSTM and each == len(names) + 1:
        projection = call.meta(f"params.{len(names)}")
        if projection is None:
            return None
        names.append("weight_hr")
        settings["proj_size"] = projection.sizes[0]
    if rest or each != len(names):
        return None
    roles = {
        f"{name}_l{at // directions}{'_reverse' * (at % directions)}": f"params.{at * each + slot}"
        for at in range(layers * directions)
        for slot, name in enumerate(names)
    }
    if any(call.key(argument) is None for argument in roles.values()):
        return None
    states = _states(call)
    state = tuple(states) if kind is nn.LSTM else next(iter(states), None)
    return Recipe(
        kind,
        settings,
        (call["input"], state) if states else (call["input"],),
        roles,
        outputs=((0,), (1, 0), (1, 1)) if kind is nn.LSTM else ((0,), (1,)),
    )


@recipe("lstm_cell.default", "gru_cell.default", "rnn_tanh_cell.default", "rnn_relu_cell.default")
def _cell(call: Call) -> Recipe | None:
    kind, gates, extra = _CELLS[call.operator.partition(".")[0]]
    weight = call.meta("w_ih")
    biases = [call[name] is not None for name in ("b_ih", "b_hh")]
    if weight is None or len(weight.shape) != 2 or biases[0] != biases[1]:
        return None
    roles = {"weight_ih": "w_ih", "weight_hh": "w_hh"}
    if biases[0]:
        roles |= {"bias_ih": "b_ih", "bias_hh": "b_hh"}
    if any(call.key(argument) is None for argument in roles.values()):
        return None
    settings = {
        "input_size": weight.sizes[1],
        "hidden_size": weight.sizes[0] // gates,
        "bias": biases[0],
        **extra,
    }
    states = _states(call)
    state = tuple(states) if kind is nn.LSTMCell else next(iter(states), None)
    inputs = (call["input"], state) if states else (call["input"],)
    outputs = ((0,), (1,)) if kind is nn.LSTMCell else None
    return Recipe(kind, settings, inputs, roles, outputs=outputs)
