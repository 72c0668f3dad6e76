"""The network run node by node, while what goes into weights and comes out of them is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from worker.engine.criteria.matrices import MatrixView
from worker.engine.criteria.readers import RECURRENT, Reader, readers_of
from worker.engine.criteria.recurrent import run_cell, run_recurrent, runs_stepwise
from worker.engine.criteria.uses import Dense, Table, Use, batch_first, use_of

if TYPE_CHECKING:
    from worker.engine.graph import CanonicalModel
    from worker.engine.units import Unit

UNKNOWN_USE = (
    "The inputs of its layer can't be seen: the network doesn't use it as the plain weight of a "
    "dense, convolutional or recurrent layer."
)
TABLE = "It is a table of rows picked by number, so there are no inputs to weigh its entries with."
TAPS = "The taps of a transposed convolution add up, so no input belongs to one of its rows alone."
_ELEMENTWISE = frozenset(["add", "iadd", "radd", "sub", "mul", "imul", "rmul"])
_COPYING = _ELEMENTWISE | {"expand", "expand_as"}
"""Operators that give the same bits whether a tensor is one for all samples or one for each."""
TWO_WAYS = "It is used in two ways, and its entries don't meet the same inputs in both."


@dataclass(frozen=True)
class Wired:
    """How one unit is used: by nodes of known kinds, or else.

    `known`: every node that reads it is of a known kind. `copyable`: all of them only add or
    multiply it on, so that each sample may have a copy of its own. `unseen`: why its inputs can't
    be weighed, None where they can.
    """

    unit: Unit
    known: bool
    copyable: bool
    unseen: str | None


@dataclass
class Record:
    """One use of a weight in one run: what went in, and what came out.

    `axis`: where both have their batch, None where that has to be found out (`batch_first`).
    `steps`: `outputs` are those of several steps, and `x` [batch, steps, features].
    """

    use: Use
    x: Tensor
    outputs: list[Tensor]
    axis: int | None = None
    steps: bool = False

    def pair(self, gradients: list[Tensor | None], batch: int, axis: int) -> tuple[Tensor, Tensor]:
        """What went in and the gradient of what came out, [batch, ...] both."""
        back = [
            torch.zeros_like(output) if gradient is None else gradient
            for output, gradient in zip(self.outputs, gradients, strict=True)
        ]
        if self.steps:
            return self.x, torch.stack(back, dim=1)
        at = axis if self.axis is None else self.axis
        return batch_first(self.x, batch, at), batch_first(back[0], batch, at)


class Wiring:
    """Which nodes use which units, and as what. `views`: of units whose inputs can be weighed."""

    def __init__(self, model: CanonicalModel, units: Iterable[Unit]) -> None:
        self.module = model.module
        self.units: dict[str, Wired] = {}
        self.views: dict[str, MatrixView] = {}
        self.uses: dict[fx.Node, list[tuple[str, Use, fx.Node]]] = {}
        self.roles: dict[fx.Node, dict[str, tuple[str, Use]]] = {}
        self.fetches: dict[fx.Node, str] = {}
        for unit in units:
            self._add(model, unit)

    def _add(self, model: CanonicalModel, unit: Unit) -> None:
        uses: list[Use | None] = []
        copyable = True
        for reader, source in readers_of(model, unit):
            copyable = copyable and source is not None and reader.operator in _COPYING
            if source is not None:
                self.fetches[source] = unit.id
            uses.append(self._use(unit, reader, source))
        known = [use for use in uses if use is not None]
        whole = bool(known) and len(known) == len(uses)
        unseen = _unseen(known) if whole else UNKNOWN_USE
        self.units[unit.id] = Wired(unit, whole, copyable, unseen)
        if unseen is None:
            self.views[unit.id] = known[0].view

    def _use(self, unit: Unit, reader: Reader, source: fx.Node | None) -> Use | None:
        if isinstance(reader.module, RECURRENT):
            if not reader.role.startswith("weight_") or reader.node.kwargs:
                return None
            use = Dense(tuple(unit.shape), MatrixView())
            self.roles.setdefault(reader.node, {})[reader.role] = (unit.id, use)
            return use
        found = use_of(reader, source, unit.shape)
        if found is None:
            return None
        use, given = found
        self.uses.setdefault(reader.node, []).append((unit.id, use, given))
        return use


def _unseen(uses: list[Use]) -> str | None:
    if any(isinstance(use, Table) for use in uses):
        return TABLE
    if not all(use.seen for use in uses):
        return TAPS
    return TWO_WAYS if any(use.view != uses[0].view for use in uses) else None


OnInput = Callable[[str, Use, Tensor, int], None]
"""Told a unit, how it is used, what goes in and the size of the batch."""


@dataclass
class Watched:
    """What is to be noted in a run: units whose inputs are told, and units that are recorded.

    `copied`: units whose weight each sample gets a copy of its own, which has a gradient of its
    own. `shared`: tables whose rows are picked for all samples at once, found out in a `trial`.
    """

    told: frozenset[str] = frozenset()
    recorded: frozenset[str] = frozenset()
    copied: frozenset[str] = frozenset()
    shared: set[str] = field(default_factory=set)
    trial: bool = False
    records: dict[str, list[Record]] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)

    @property
    def seen(self) -> frozenset[str]:
        return self.told | self.recorded


class Watcher(fx.Interpreter):
    """Runs the canonical graph on a batch; `watched` fills up, `on_input` hears what goes in."""

    def __init__(
        self,
        wiring: Wiring,
        watched: Watched,
        batch: int,
        on_input: OnInput | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(wiring.module)
        self.wiring, self.watched, self.batch = wiring, watched, batch
        self.on_input, self.beat = on_input, beat

    def run(self, *args: Any) -> Any:
        """What the graph returns. fx's own `run` adds the graph to errors, which takes seconds."""
        self.env, self.args_iter = {}, iter(args)
        for node in self.module.graph.nodes:
            result = self.run_node(node)
            if node.op == "output":
                return result
            self.env[node] = result
            for used in self.user_to_last_uses.get(node, ()):
                del self.env[used]
        raise ValueError("a graph without an output")

    def run_node(self, n: fx.Node) -> Any:
        self.beat()
        if n.op == "call_module" and isinstance(self.fetch_attr(str(n.target)), RECURRENT):
            # Always step by step: who is watched must change no bit of anybody's figures.
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            if not kwargs and runs_stepwise(self.fetch_attr(str(n.target)), args):
                return self._recurrent(n, args)
        unit = self.wiring.fetches.get(n)
        if unit in self.watched.copied:
            return self._copied(unit, super().run_node(n))
        uses = [use for use in self.wiring.uses.get(n, ()) if use[0] in self.watched.seen]
        given = [self.env[source] for _, _, source in uses]
        result = super().run_node(n)
        for (unit, use, _), x in zip(uses, given, strict=True):
            result = self._seen(n, unit, use, x, result)
        return result

    def _seen(self, n: fx.Node, unit: str, use: Use, x: Tensor, result: Tensor) -> Tensor:
        if self.on_input is not None and unit in self.watched.told:
            self.on_input(unit, use, x, self.batch)
        if unit not in self.watched.recorded:
            return result
        # The same values for every sample: let each have its own gradient.
        if isinstance(use, Table) and self._shared(n, unit, x):
            x, result = x.expand(self.batch, -1), result.expand(self.batch, *result.shape)
        elif len(result) == 1 < self.batch and _only_added(n):
            x = x.expand(self.batch, *x.shape[1:])
            result = result.expand(self.batch, *result.shape[1:])
        self.watched.records.setdefault(unit, []).append(Record(use, x.detach(), [result]))
        return result

    def _shared(self, n: fx.Node, unit: str, x: Tensor) -> bool:
        """Are these rows picked for all samples at once? Found out on the first samples."""
        if self.watched.trial and x.dim() == 1 and len(x) != self.batch and _only_added(n):
            self.watched.shared.add(unit)
        return unit in self.watched.shared

    def _recurrent(self, n: fx.Node, args: Sequence[Any]) -> Any:
        module = self.fetch_attr(str(n.target))
        roles = self.wiring.roles.get(n, {})
        whole = isinstance(module, nn.RNNBase)
        stepwise: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

        def tap(role: str, x: Tensor, result: Tensor) -> Tensor:
            if role not in roles:
                return result
            unit, use = roles[role]
            if self.on_input is not None and unit in self.watched.told:
                self.on_input(unit, use, x, self.batch)
            if unit not in self.watched.recorded:
                return result
            if whole and role.startswith("weight_ih"):
                record = Record(use, x.detach(), [result], axis=1)
                self.watched.records.setdefault(unit, []).append(record)
            else:
                inputs, outputs = stepwise.setdefault(role, ([], []))
                inputs.append(x.detach())
                outputs.append(result)
            return result

        made = (run_recurrent if whole else run_cell)(module, args, tap)
        for role, (inputs, outputs) in stepwise.items():
            unit, use = roles[role]
            record = Record(use, torch.stack(inputs, dim=1), outputs, steps=True)
            self.watched.records.setdefault(unit, []).append(record)
        return made

    def _copied(self, unit: str, weight: Tensor) -> Tensor:
        if unit not in self.watched.copies:
            own = weight if len(weight) == 1 else weight[None]
            self.watched.copies[unit] = own.expand(self.batch, *own.shape[1:]).clone()
        return self.watched.copies[unit]


def _only_added(node: fx.Node) -> bool:
    """Is a node's value only added or multiplied on?"""
    return all(Reader(user, None, "").operator in _ELEMENTWISE for user in node.users)
