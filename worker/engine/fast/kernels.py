"""Layers with what follows them in one call, on tensors derived from the user's own.

A kernel keeps the modules it stands for, so that their parameters and buffers are still found by
those who look for readers of a weight. What it derives from them (a folded weight, another number
type, another layout) is brought up to date by `refresh`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]
"""Changes its argument in place and returns it."""
Form = Literal["plain", "channels last", "matrix"]

_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_FEW_ROWS = 8
"""Below so many rows a sample, torch's own matrix product starts faster than oneDNN's."""
_SMALL_MATRIX = 32


class Kernel(nn.Module):
    """`build` once all choices are made; `refresh` after a parameter or buffer changed."""

    def build(self) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring derived tensors up to date."""


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """The two vectors [channels] of a batch norm in evaluation mode: x * scale + shift.

    Computed in float64 and rounded once. Jacob et al., 2018 (Quantization and training of neural
    networks), equation 14.
    """
    variance, mean = norm.running_var.double(), norm.running_mean.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift


class Layer(Kernel):
    """A convolution or linear layer, a batch norm after it, and an activation after that."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.norm: Any = None
        self.activation: Activation | None = None
        self.dtype = torch.float32
        self._derived = False
        self._weight: Tensor = layer.weight.detach()
        self._bias: Tensor | None = None if layer.bias is None else layer.bias.detach()
        self._run: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x)

    @torch.no_grad()
    def refresh(self) -> None:
        if self._derived:
            self._derive()

    def _allocate(self, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        """Room for derived tensors, where the user's own can't be used."""
        layer = self.layer
        other = memory_format != torch.contiguous_format or not layer.weight.is_contiguous()
        self._derived = self.norm is not None or self.dtype != layer.weight.dtype or other
        if not self._derived:
            return
        self._weight = torch.empty_like(
            layer.weight.detach(), dtype=self.dtype, memory_format=memory_format
        )
        if self.norm is not None or layer.bias is not None:
            self._bias = torch.empty(layer.weight.shape[0], dtype=self.dtype)
        self._derive()

    def _derive(self) -> None:
        weight, bias = self.layer.weight.detach(), self.layer.bias
        if self.norm is None:
            self._weight.copy_(weight)
            if bias is not None and self._bias is not None:
                self._bias.copy_(bias.detach())
            return
        scale, shift = scale_and_shift(self.norm)
        if bias is not None:
            shift = shift + bias.detach().double() * scale
        column = scale.to(weight.dtype).view(-1, *[1] * (weight.dim() - 1))
        if self._weight.dtype == weight.dtype:
            torch.mul(weight, column, out=self._weight)
        else:
            self._weight.copy_(weight * column)
        assert self._bias is not None
        self._bias.copy_(shift)

    def _finished(self, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        activation = self.activation
        if activation is None:
            return compute
        return lambda x: activation(compute(x))


class Convolution(Layer):
    """A convolution in one of several forms.

    "matrix": a kernel that covers nearly all of a tiny map is one matrix product from all inputs to
    all outputs. Its matrix is made once from the weights as they were then; a cell that changes
    these very weights convolves instead, so that the way is a function of the weights alone.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.form: Form = "plain"
        self.map_in: tuple[int, ...] = ()
        self._sources: list[tuple[Tensor, Tensor]] = []
        self._pristine = True

    def build(self) -> None:
        layer = self.layer
        last = self.form == "channels last"
        self._allocate(torch.channels_last if last else torch.contiguous_format)
        convolve = _CONVOLVE[layer.weight.dim() - 2]
        rest = (layer.stride, layer.padding, layer.dilation, layer.groups)
        weight, bias = self._weight, self._bias

        def direct(x: Tensor) -> Tensor:
            return convolve(x.contiguous(), weight, bias, *rest)

        def channels_last(x: Tensor) -> Tensor:
            return convolve(x, weight, bias, *rest)

        if self.form != "matrix":
            self._run = self._finished(channels_last if last else direct)
            return
        sources = [layer.weight, layer.bias]
        if self.norm is not None:
            norm = self.norm
            sources += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        self._sources = [(s.detach(), s.detach().clone()) for s in sources if s is not None]
        matrix, offset, shape = self._unrolled()

        def product(x: Tensor) -> Tensor:
            if self._pristine:
                return matrix_product(x.reshape(x.shape[0], -1), matrix, offset).view(-1, *shape)
            return direct(x)

        self._run = self._finished(product)

    @torch.no_grad()
    def refresh(self) -> None:
        if self.form == "matrix":
            self._pristine = all(torch.equal(now, then) for now, then in self._sources)
            if self._pristine:
                return
        super().refresh()

    def _unrolled(self) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """The matrix [outputs, inputs], the offset [outputs], and the shape of one output.

        Column by column what the convolution makes of one input alone.
        """
        layer, weight = self.layer, self._weight
        inputs = weight.shape[1]
        places = self.map_in[0] * self.map_in[1]
        rest = (layer.stride, layer.padding, layer.dilation)
        units = torch.eye(places, dtype=torch.float32).view(places, 1, *self.map_in)
        # [outputs, inputs, kernel] as filters of one channel: what each place contributes.
        filters = weight.float().reshape(-1, 1, *weight.shape[2:])
        parts = torch.conv2d(units, filters, None, *rest)
        shape = (weight.shape[0], *parts.shape[2:])
        parts = parts.view(places, weight.shape[0], inputs, *parts.shape[2:])
        matrix = parts.permute(1, 3, 4, 2, 0).reshape(-1, inputs * places).to(self.dtype)
        offset = None
        if self._bias is not None:
            offset = self._bias.repeat_interleave(shape[1] * shape[2])
        return matrix.contiguous(), offset, shape


class Linear(Layer):
    """A linear layer. `rows`: how many rows a sample has."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.rows = 1
        self._packed: Tensor | None = None

    def build(self) -> None:
        self._allocate()
        weight, bias = self._weight, self._bias
        large = min(weight.shape) >= _SMALL_MATRIX and self.rows >= _FEW_ROWS
        if large and self.dtype == torch.bfloat16:
            self._packed = _pack(weight)
            self._run = self._finished(lambda x: matrix_product(x, self._packed, bias))
            return
        product = matrix_product if large else functional.linear
        self._run = self._finished(lambda x: product(x, weight, bias))

    @torch.no_grad()
    def refresh(self) -> None:
        super().refresh()
        if self._packed is not None:
            self._packed = _pack(self._weight)


class Recurrent(Kernel):
    """One layer of a recurrent module in one direction, as an operator of its own.

    Takes x [batch, steps, inputs] (or steps first, as the module has it) and states [1, batch,
    size]; None: zeros. Returns the operator's results.
    """

    def __init__(self, module: Any, layer: int, reverse: bool) -> None:
        super().__init__()
        suffix = f"_l{layer}" + "_reverse" * reverse
        names = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * bool(module.bias)
        names += ["weight_hr"] * bool(module.proj_size)
        self._own = [getattr(module, name + suffix) for name in names]
        # Only these weights make this kernel run again, not those of the module's other layers.
        for name, own in zip(names, self._own, strict=True):
            self.register_parameter(name, own)
        self.dtype = torch.float32
        self._weights = [own.detach() for own in self._own]
        self._operator = _RECURRENT[module.mode]
        self._has_cell = module.mode == "LSTM"
        self._sizes = (module.proj_size or module.hidden_size, module.hidden_size)
        self._settings = (module.bias, 1, 0.0, False, False, module.batch_first)
        self._batch_axis = 0 if module.batch_first else 1
        self._steps_axis = 1 - self._batch_axis
        self._reverse = reverse

    def build(self) -> None:
        if self.dtype != self._own[0].dtype:
            self._weights = [own.detach().to(self.dtype) for own in self._own]

    @torch.no_grad()
    def refresh(self) -> None:
        for own, derived in zip(self._own, self._weights, strict=True):
            if derived.dtype != own.dtype:
                derived.copy_(own.detach())

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        if not states:
            batch = x.shape[self._batch_axis]
            sizes = self._sizes if self._has_cell else self._sizes[:1]
            states = tuple(x.new_zeros(1, batch, size) for size in sizes)
        if self._reverse:
            x = x.flip(self._steps_axis)
        start = states if self._has_cell else states[0]
        out, *ends = self._operator(x, start, self._weights, *self._settings)
        if self._reverse:
            out = out.flip(self._steps_axis)
        return (out, *ends)


_RECURRENT: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


def _pack(weight: Tensor) -> Tensor:
    """The weight in oneDNN's own layout: no gain in float32, a twentieth in bfloat16."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def matrix_product(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """`functional.linear` by oneDNN, which beats the BLAS by a tenth to a fifth here."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
