"""A network as steps, and for each weight the steps that depend on it.

For a pruned weight, the nodes reachable from its users are its suffix; everything else is computed
once per batch. Suffixes share one list of instructions, and sets of nodes are bits of an integer,
so that preparing thousands of weights on graphs of thousands of nodes takes moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from app.domain.errors import InvalidFile
from worker.engine.aliasing import (
    SharedMemory,
    protect_sources,
    shared_memory,
    storage_of,
    tensors_in,
)
from worker.engine.fast import accelerate
from worker.engine.fast.kernels import Kernel
from worker.engine.flow_options import PLAIN, FlowOptions
from worker.engine.objectives.base import first_tensor
from worker.engine.steps import Registers, Step, attribute, compile_step

Instruction = tuple[Step, int, tuple[int, ...]]
"""A step, the register it writes, and the registers nobody reads after it."""


@dataclass(frozen=True)
class Suffix:
    """What has to run again when one weight changes.

    `boundary` are the registers it needs from the dense run, all of them known once the dense run
    has passed node `ready` (-1: before any node ran). `nodes` are the indices of its steps.
    """

    instructions: tuple[Instruction, ...]
    boundary: tuple[int, ...]
    nodes: tuple[int, ...]
    ready: int


def bits(mask: int) -> list[int]:
    """Positions of the ones of a non-negative integer, ascending."""
    return [at for at, digit in enumerate(bin(mask)[:1:-1]) if digit == "1"]


def mask_of(positions: Iterable[int]) -> int:
    mask = 0
    for position in positions:
        mask |= 1 << position
    return mask


def execute(instructions: Sequence[Instruction], registers: Registers) -> None:
    """Run instructions, dropping every value after its last use."""
    for step, out, done in instructions:
        registers[out] = step(registers)
        for register in done:
            registers[register] = None


class Flow:
    """A canonical graph in evaluation mode as instructions over numbered registers.

    Register i belongs to node i in execution order. `sample` are inputs of a few samples, used to
    find in-place operators. Parameters are captured by reference: change them in place and the
    next run sees it, after `refresh` where `options` allow more than the plain kernels. Build it in
    evaluation mode. Raises InvalidFile when the graph has no tensor output.
    """

    def __init__(
        self, module: fx.GraphModule, sample: Sequence[Tensor], options: FlowOptions = PLAIN
    ) -> None:
        self.options = options
        self.reason: str | None = None
        self._kernels: dict[int, list[Kernel]] = {}
        shared = shared_memory(module, sample)
        protected = protect_sources(module, shared) if shared else None
        if protected is not None:
            module = protected
            shared = shared_memory(module, sample)
        if options.fuse or options.precision != "float32":
            module = self._accelerated(module, sample, shared)
        nodes = [node for node in module.graph.nodes if node.op != "output"]
        index = {node: at for at, node in enumerate(nodes)}
        self.count = len(nodes)
        self._output = self._output_node(module, index)
        self.inputs = [at for at, node in enumerate(nodes) if node.op == "placeholder"]
        self.constants = {
            at: attribute(module, str(node.target))
            for at, node in enumerate(nodes)
            if node.op == "get_attr"
        }
        self._given = mask_of(self.inputs) | mask_of(self.constants)
        self._constant = mask_of(self.constants)
        self._inputs_of = [{index[i] for i in node.all_input_nodes} for node in nodes]
        self._groups = [
            (mask_of(index[n] for n in group.members), mask_of(index[n] for n in group.writers))
            for group in shared
        ]
        self._order_writers()
        self._reads = [mask_of(sources) for sources in self._inputs_of]
        self._close()
        self._instructions = self._compile(module, nodes, index)
        self._readers = self._find_readers(module, nodes)

    def refresh(self, tensor: Tensor) -> None:
        """Bring up to date what was derived from a parameter or buffer that changed in place.

        Call it after every change, and after the old values were put back. Costs time in proportion
        to the tensor; nothing where nothing is derived from it.
        """
        for kernel in self._kernels.get(storage_of(tensor), ()):
            kernel.refresh()

    @property
    def output(self) -> int:
        """The register of the logits."""
        return self._output

    def registers(self) -> Registers:
        """Fresh registers that hold the constants only."""
        registers: Registers = [None] * self.count
        for at, value in self.constants.items():
            registers[at] = value
        return registers

    def suffix(self, weight: Tensor) -> Suffix:
        """The suffix of everything that shares memory with `weight`."""
        dirty = self._spread(self._readers.get(storage_of(weight), 0)) & self._needed
        steps = bits(dirty & ~self._given)
        reads = 1 << self._output
        for at in steps:
            reads |= self._reads[at]
        boundary = bits(reads & ~dirty & ~self._constant)
        computed = [at for at in boundary if not self._given >> at & 1]
        return Suffix(
            instructions=tuple(self._instructions[at] for at in steps),
            boundary=tuple(boundary),
            nodes=tuple(steps),
            ready=max(computed, default=-1),
        )

    def prefix(self, targets: Iterable[int]) -> Iterator[int]:
        """The nodes to compute, in order, for the dense values of the target registers."""
        wanted = 0
        for at in targets:
            wanted |= self._sources[at]
        return iter(bits(wanted & ~self._given))

    def reads(self, at: int) -> list[int]:
        """The registers that node `at` reads, constants left out."""
        return [source for source in self._inputs_of[at] if source not in self.constants]

    def instruction(self, at: int) -> Instruction:
        """Node `at` with the registers that nobody reads after it."""
        return self._instructions[at]

    def step(self, at: int) -> Step:
        return self._instructions[at][0]

    def _accelerated(
        self, module: fx.GraphModule, sample: Sequence[Tensor], shared: Sequence[SharedMemory]
    ) -> fx.GraphModule:
        """The faster graph, or the given one and a reason."""
        if shared:
            self.reason = "It writes in place."
            return module
        made = accelerate(module, sample, self.options.precision)
        self.reason, self._kernels = made.reason, made.kernels
        return made.module

    @staticmethod
    def _output_node(module: fx.GraphModule, index: dict[fx.Node, int]) -> int:
        output = next(node for node in module.graph.nodes if node.op == "output")
        found = first_tensor(output.args[0])
        if found is None:
            raise InvalidFile(
                "The model returns no tensor.", "Export a network that returns its logits."
            )
        return index[found]

    def _order_writers(self) -> None:
        """Make every reader of changed memory depend on the writers before it."""
        for members, writers in self._groups:
            for at in range(self.count):
                if any(members >> source & 1 for source in self._inputs_of[at]):
                    self._inputs_of[at] |= set(bits(writers & ((1 << at) - 1)))

    def _close(self) -> None:
        """For each node: all it is computed from, and all that is computed from it."""
        self._sources = [0] * self.count
        self._reach = [1 << at for at in range(self.count)]
        for at in range(self.count):
            self._sources[at] = 1 << at
            for source in self._inputs_of[at]:
                self._sources[at] |= self._sources[source]
        for at in reversed(range(self.count)):
            for source in self._inputs_of[at]:
                self._reach[source] |= self._reach[at]
        self._needed = self._sources[self._output]

    def _spread(self, roots: int) -> int:
        """All nodes to run again when `roots` change, with the memory they would spoil.

        Where one of them writes to shared memory, or reads it before somebody else writes to it,
        every node that makes or views that memory runs again too, so that the cell works on
        memory of its own.
        """
        dirty = 0
        while True:
            for at in bits(roots & ~dirty):
                dirty |= self._reach[at]
            roots = dirty
            for members, writers in self._groups:
                active = writers & self._needed
                early = mask_of(
                    at for at in bits(dirty) if self._reads[at] & members and active >> at
                )
                if dirty & active or early:
                    roots |= members
            if roots == dirty:
                return dirty

    def _compile(
        self, module: fx.GraphModule, nodes: list[fx.Node], index: dict[fx.Node, int]
    ) -> list[Instruction]:
        last = {}
        for at in bits(self._needed):
            for source in self._inputs_of[at]:
                last[source] = at
        done: dict[int, list[int]] = {}
        for source, at in last.items():
            if source != self._output and not self._constant >> source & 1:
                done.setdefault(at, []).append(source)

        def given(_: Registers) -> None:
            raise AssertionError("an input is not computed")

        return [
            (
                given if self._given >> at & 1 else compile_step(node, module, index),
                at,
                tuple(done.get(at, ())),
            )
            for at, node in enumerate(nodes)
        ]

    def _find_readers(self, module: fx.GraphModule, nodes: list[fx.Node]) -> dict[int, int]:
        """Memory address of a parameter to the nodes that compute with it."""
        readers: dict[int, int] = {}
        for at, node in enumerate(nodes):
            held: list[Tensor] = []
            if node.op == "call_module":
                held = _held(module.get_submodule(str(node.target)))
            for source in self._inputs_of[at] & self.constants.keys():
                value = self.constants[source]
                held += _held(value) if isinstance(value, nn.Module) else tensors_in(value)
            for tensor in held:
                address = storage_of(tensor)
                readers[address] = readers.get(address, 0) | 1 << at
        return readers


def _held(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
