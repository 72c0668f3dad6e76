"""A pickle of weights, read as data: its opcodes are followed, nothing it names is ever imported.

`pickle` and `torch.load` turn a pickle into a program that calls what it names. Here the opcodes
only build plain values: numbers, texts, lists, dictionaries, and `StoredTensor`s that say where a
tensor's bytes lie. A pickle that names anything beyond what a state_dict needs is refused.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, BinaryIO, cast

import torch

from app.domain.errors import UnsafeFile
from worker.engine.formats.pickle_names import (
    DTYPES_BY_NAME,
    INERT,
    ORDERED,
    SAVE_HINT,
    Global,
    Opaque,
    StorageRef,
    checked_global,
    malformed_pickle,
    storage_ref,
)
from worker.engine.formats.stored import MAX_RANK, Storage, StoredTensor, contiguous_strides

MAX_BYTES = 64 << 20
MAX_OPCODES = 2_000_000
MAX_MEMO = 500_000
MAX_STACK = 200_000
MAX_TEXT = 1 << 20


class _Mark:
    pass


_MARK = _Mark()


class _Window(io.RawIOBase):
    """At most `limit` bytes of a file from where it stands, one opcode after the other."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        data = self._file.readline(min(self._left, 4_000))
        self._left -= len(data)
        return data

    def tell(self) -> int:
        return self._file.tell()


def scan_pickle(
    file: BinaryIO, storage_of: Callable[[StorageRef], Storage], limit: int = MAX_BYTES
) -> Any:
    """The value of the pickle at the file's position; the file then stands behind it.

    `storage_of` finds the bytes of a storage and raises InvalidFile if there are none. Raises
    UnsafeFile where the pickle names what weights don't need, InvalidFile where it is malformed.
    """
    machine = _Machine(storage_of)
    try:
        for count, (opcode, argument, _) in enumerate(
            pickletools.genops(cast(IO[bytes], _Window(file, limit)))
        ):
            if count > MAX_OPCODES:
                raise malformed_pickle(f"it has more than {MAX_OPCODES:,} instructions")
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
    except (ValueError, OverflowError) as error:
        raise malformed_pickle("an instruction can't be read") from error
    except (IndexError, KeyError, TypeError) as error:
        raise malformed_pickle("an instruction lacks what it works on") from error
    if len(machine.stack) != 1:
        raise malformed_pickle("it does not end with one value")
    return machine.stack[0]


class _Machine:
    def __init__(self, storage_of: Callable[[StorageRef], Storage]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._storage_of = storage_of

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSH:
            if isinstance(argument, (str, bytes)) and len(argument) > MAX_TEXT:
                raise malformed_pickle("a text is too long")
            self._push(argument)
        elif name in _CONSTANTS:
            self._push(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            return
        elif handler := _HANDLERS.get(name):
            handler(self, argument)
        else:
            raise UnsafeFile(
                f"The pickle in the file has the instruction {name}, which files of weights don't "
                "need; it is refused unopened.",
                SAVE_HINT,
            )

    def _push(self, value: Any) -> None:
        if len(self.stack) >= MAX_STACK:
            raise malformed_pickle("it piles up too many values")
        self.stack.append(value)

    def _to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise malformed_pickle("a list has no beginning")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _keep(self, place: Any) -> None:
        if len(self.memo) >= MAX_MEMO:
            raise malformed_pickle("it remembers too many values")
        self.memo[int(place)] = self.stack[-1]

    def put(self, place: Any) -> None:
        self._keep(place)

    def memoize(self, _: Any) -> None:
        self._keep(len(self.memo))

    def get(self, place: Any) -> None:
        self._push(self.memo[int(place)])

    def mark(self, _: Any) -> None:
        self._push(_MARK)

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def pop_mark(self, _: Any) -> None:
        self._to_mark()

    def tuple_(self, _: Any) -> None:
        self._push(tuple(self._to_mark()))

    def list_(self, _: Any) -> None:
        self._push(self._to_mark())

    def dict_(self, _: Any) -> None:
        made: dict[Any, Any] = {}
        _fill(made, self._to_mark())
        self._push(made)

    def frozen(self, _: Any) -> None:
        self._to_mark()
        self._push(Opaque("set"))

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        _extend(self.stack[-1], [value])

    def appends(self, _: Any) -> None:
        items = self._to_mark()
        _extend(self.stack[-1], items)

    def add_items(self, _: Any) -> None:
        self._to_mark()

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def set_items(self, _: Any) -> None:
        items = self._to_mark()
        _fill(self.stack[-1], items)

    def global_(self, argument: Any) -> None:
        self._push(checked_global(".".join(str(argument).split(" ", 1))))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise malformed_pickle("a name is no text")
        self._push(checked_global(f"{module}.{name}"))

    def persistent(self, _: Any) -> None:
        self._push(storage_ref(self.stack.pop()))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise malformed_pickle("it calls something that is no function")
        self._push(self._called(function.name, arguments))

    def new_object(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Global) or not isinstance(arguments, tuple):
            raise malformed_pickle("it makes something that has no class")
        self._push(self._called(kind.name, arguments))

    def build(self, _: Any) -> None:
        self.stack.pop()
        if not isinstance(self.stack[-1], (dict, Opaque)):
            raise UnsafeFile(
                "The file gives a tensor attributes of its own, which could be code.", SAVE_HINT
            )

    def _called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == ORDERED:
            made: dict[Any, Any] = {}
            for pair in arguments[0] if arguments else ():
                _fill(made, list(pair))
            return made
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self._tensor(arguments[0], None, arguments[1:])
        if name == "torch._utils._rebuild_tensor_v3":
            kind = arguments[6]
            dtype = DTYPES_BY_NAME.get(kind.name.removeprefix("torch.")) if kind else None
            if dtype is None:
                raise malformed_pickle("a number type is unknown")
            return self._tensor(arguments[0], dtype, arguments[1:6])
        if name == "torch._utils._rebuild_parameter":
            return _parameter(*arguments)
        if name in INERT:
            return Opaque(name)
        raise malformed_pickle(f"it calls {name}, which is no function")

    def _tensor(
        self, ref: Any, dtype: torch.dtype | None, arguments: tuple[Any, ...]
    ) -> StoredTensor:
        if not isinstance(ref, StorageRef):
            raise malformed_pickle("a tensor has no storage")
        kind = dtype or ref.dtype
        if kind is None:
            raise malformed_pickle("a tensor has no number type")
        offset, shape = arguments[0], arguments[1]
        if len(shape) > MAX_RANK:
            raise malformed_pickle("a tensor has more axes than can be")
        strides = arguments[2] if len(arguments) > 2 else contiguous_strides(shape)
        grad = arguments[3] if len(arguments) > 3 else False
        if len(arguments) > 4 and arguments[4] not in ({}, None):
            raise UnsafeFile("A tensor in the file has hooks, which are code.", SAVE_HINT)
        numbers = (offset, *shape, *strides)
        if any(type(number) is not int or not 0 <= number < 1 << 62 for number in numbers):
            raise malformed_pickle("a tensor's size is no number")
        return StoredTensor(
            self._storage_of(ref), kind, tuple(shape), tuple(strides), offset, False, grad is True
        )


def _parameter(data: Any, grad: Any, hooks: Any = None) -> Any:
    if not isinstance(data, StoredTensor):
        raise malformed_pickle("a parameter is no tensor")
    if hooks not in ({}, None):
        raise UnsafeFile("A tensor in the file has hooks, which are code.", SAVE_HINT)
    return StoredTensor(
        data.storage, data.dtype, data.shape, data.strides, data.offset, True, grad is True
    )


def _fill(target: Any, items: list[Any]) -> None:
    """Pairs into a dictionary. Keys that are no plain values are passed over: hashing deep tuples
    can take forever."""
    if isinstance(target, Opaque):
        return
    if not isinstance(target, dict) or len(items) % 2:
        raise malformed_pickle("it sets entries of something that has none")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if key is None or type(key) in (str, int, float, bool):
            target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Opaque):
        raise malformed_pickle("it appends to something that is no list")


_PUSH = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
}
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Opaque("set"),
}


def _fixed_tuple(size: int) -> Callable[[_Machine, Any], None]:
    def made(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-size:])
        if len(items) != size:
            raise malformed_pickle("a tuple lacks its items")
        del machine.stack[-size:]
        machine.stack.append(items)

    return made


_HANDLERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "TUPLE": _Machine.tuple_,
    "TUPLE1": _fixed_tuple(1),
    "TUPLE2": _fixed_tuple(2),
    "TUPLE3": _fixed_tuple(3),
    "LIST": _Machine.list_,
    "DICT": _Machine.dict_,
    "FROZENSET": _Machine.frozen,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
}
