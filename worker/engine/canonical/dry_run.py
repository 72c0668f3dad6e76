"""A run without numbers: how much memory and work a network would take, before it takes any.

A file of two kilobytes can ask for a tensor of a terabyte, or for a week of multiplications of
small ones. Every operator is first run on shapes alone, as torch.export did when the file was made,
and what it would make and multiply is added up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils.flop_counter import FlopCounterMode

from app.domain.errors import InvalidFile, UnsupportedOperator
from app.domain.export_lines import export_hint

MAX_LIVE_BYTES = 8 << 30
MAX_INTEGER = 1 << 62
# Minutes on two cores; the largest vision transformers multiply a tenth of that for two images.
MAX_MACS = 1 << 43
RUN_ERRORS = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    AssertionError,
)


def does_not_run(error: BaseException) -> InvalidFile:
    """The sentence for a network that fails on inputs of its own shapes."""
    if "can't allocate memory" in str(error):
        return InvalidFile(
            "Running the network on inputs of the shapes it declares takes more memory than this "
            "machine can give.",
            export_hint("Export it with an example of two samples"),
        )
    lines = str(error).strip().splitlines()
    reason = lines[0][:300].rstrip(".") if lines else type(error).__name__
    return InvalidFile(
        f"The network does not run on inputs of the shapes it declares: {reason}.",
        export_hint("Export it again with torch 2.13 from a network that runs"),
    )


class _Weigher(fx.Interpreter):
    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        # The counter hooks into gradients, and fails on views of parameters that have none.
        value = super().get_attr(target, args, kwargs)
        return value.detach() if isinstance(value, Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise _depends_on_data(n) from error
        if isinstance(result, int) and not -MAX_INTEGER < result < MAX_INTEGER:
            raise OverflowError("a size is out of range")
        live = _bytes(result) + sum(_bytes(value) for value in self.env.values())
        if live > MAX_LIVE_BYTES:
            raise InvalidFile(
                f"At the operator {n.name} the network would take {live / (1 << 30):.1f} GiB for "
                "a batch of the size it was exported with; at most "
                f"{MAX_LIVE_BYTES >> 30} GiB are allowed.",
                export_hint("Export it with an example of two samples"),
            )
        return result


def _depends_on_data(n: fx.Node) -> UnsupportedOperator:
    path = str(n.meta.get("path", ""))
    where = f"the layer {path}" if path else "the network's own forward function"
    return UnsupportedOperator(
        f"The operator {str(n.target)[:120]} in {where} gives as many values as the data say, "
        "and networks are read with sizes that don't depend on their data.",
        "Multiply with a mask, or use torch.where, instead of picking rows by a condition, and "
        "export again.",
    )


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (list, tuple)):
        return sum(_bytes(item) for item in value)
    return 0


def weigh(module: fx.GraphModule, shapes: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> None:
    """Raises InvalidFile when running the graph on such inputs fails or takes too much."""
    # torch writes a page into the log for every operator that refuses its shapes.
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with (
            FakeTensorMode(allow_non_fake_inputs=True),
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
        ):
            _Weigher(module).run(*[torch.empty(shape, dtype=dtype) for shape, dtype in shapes])
    except RUN_ERRORS as error:
        raise does_not_run(error) from error
    finally:
        log.setLevel(level)
    macs = counter.get_total_flops() // 2
    if macs > MAX_MACS:
        raise InvalidFile(
            f"The network would multiply {macs:,} times for a batch of the size it was exported "
            f"with; at most {MAX_MACS:,} are allowed.",
            export_hint("Export it with an example of two samples"),
        )
