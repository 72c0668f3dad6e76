"""Recurrent layers step by step, so that what goes into each of their matrices can be seen.

torch runs a recurrent layer as one operator, which shows neither its inner states nor their
gradients. The equations are those of `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Tap = Callable[[str, Tensor, Tensor], Tensor]
"""Told a parameter's name, what goes into its matrix and what comes out; gives that back."""


def runs_stepwise(module: nn.Module, args: Sequence[Any]) -> bool:
    """Is this call one that can be taken apart: a plain batch, no packed sequences?"""
    axes = 3 if isinstance(module, nn.RNNBase) else 2
    return bool(args) and isinstance(args[0], Tensor) and args[0].dim() == axes


def run_recurrent(module: nn.RNNBase, args: Sequence[Any], tap: Tap) -> Any:
    """What `module(*args)` returns in evaluation mode, to rounding, where it `runs_stepwise`.

    `tap` sees each use of a matrix: `weight_ih_*` once a direction with all steps, [steps, batch,
    features], the others once a step, [batch, features].
    """
    x = args[0]
    if module.batch_first:
        x = x.transpose(0, 1)
    given = args[1] if len(args) > 1 and args[1] is not None else None
    directions = 2 if module.bidirectional else 1
    lstm = isinstance(module, nn.LSTM)
    hidden, cell = (given if lstm else (given, None)) if given is not None else (None, None)
    last_hidden, last_cell = [], []
    for layer in range(module.num_layers):
        sides = []
        for direction in range(directions):
            suffix = f"_l{layer}{'_reverse' * direction}"
            at = layer * directions + direction
            start = _state(hidden, at, x, module.proj_size or module.hidden_size)
            memory = _state(cell, at, x, module.hidden_size)
            steps, end, end_memory = _direction(
                module, suffix, x, start, memory, bool(direction), tap
            )
            sides.append(steps)
            last_hidden.append(end)
            last_cell.append(end_memory)
        x = torch.cat(sides, dim=-1)
    output = x.transpose(0, 1) if module.batch_first else x
    states = torch.stack(last_hidden)
    return (output, (states, torch.stack(last_cell))) if lstm else (output, states)


def run_cell(module: nn.RNNCellBase, args: Sequence[Any], tap: Tap) -> Any:
    """What `module(*args)` returns, to rounding; each matrix is seen once."""
    x = args[0]
    given = args[1] if len(args) > 1 and args[1] is not None else None
    lstm = isinstance(module, nn.LSTMCell)
    hidden, memory = (given if lstm else (given, None)) if given is not None else (None, None)
    blank = x.new_zeros(len(x), module.hidden_size)
    hidden, memory = (blank if state is None else state for state in (hidden, memory))
    from_input = _product(module, "weight_ih", "bias_ih", x, tap)
    hidden, memory = _step(module, "", from_input, hidden, memory, tap)
    return (hidden, memory) if lstm else hidden


def _state(states: Tensor | None, at: int, x: Tensor, size: int) -> Tensor:
    return x.new_zeros(x.shape[1], size) if states is None else states[at]


def _direction(
    module: nn.RNNBase,
    suffix: str,
    x: Tensor,
    hidden: Tensor,
    memory: Tensor,
    backwards: bool,
    tap: Tap,
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of a direction, [steps, batch, features], and its last states."""
    from_inputs = _product(module, f"weight_ih{suffix}", f"bias_ih{suffix}", x, tap)
    made: list[Tensor] = [hidden] * len(x)
    order = range(len(x) - 1, -1, -1) if backwards else range(len(x))
    for at in order:
        hidden, memory = _step(module, suffix, from_inputs[at], hidden, memory, tap)
        made[at] = hidden
    return torch.stack(made), hidden, memory


def _step(
    module: nn.RNNBase | nn.RNNCellBase,
    suffix: str,
    from_input: Tensor,
    hidden: Tensor,
    memory: Tensor,
    tap: Tap,
) -> tuple[Tensor, Tensor]:
    from_hidden = _product(module, f"weight_hh{suffix}", f"bias_hh{suffix}", hidden, tap)
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        enter, forget, new, show = (from_input + from_hidden).chunk(4, dim=-1)
        memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
        hidden = show.sigmoid() * memory.tanh()
        if getattr(module, "proj_size", 0):
            hidden = _product(module, f"weight_hr{suffix}", "", hidden, tap)
        return hidden, memory
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        reset_in, update_in, new_in = from_input.chunk(3, dim=-1)
        reset_state, update_state, new_state = from_hidden.chunk(3, dim=-1)
        reset, update = (reset_in + reset_state).sigmoid(), (update_in + update_state).sigmoid()
        new = (new_in + reset * new_state).tanh()
        return new + update * (hidden - new), memory
    summed = from_input + from_hidden
    return summed.relu() if module.nonlinearity == "relu" else summed.tanh(), memory


def _product(module: nn.Module, weight: str, bias: str, x: Tensor, tap: Tap) -> Tensor:
    matrix, offset = getattr(module, weight), getattr(module, bias, None) if bias else None
    return tap(weight, x, functional.linear(x, matrix, offset))
