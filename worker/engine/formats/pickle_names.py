"""What a pickle of weights may name, and what is said about everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from app.domain.errors import InvalidFile, UnsafeFile
from app.domain.export_lines import export_hint

SAVE_HINT = 'Save the plain weights: torch.save(model.state_dict(), "model.pth").'
_STORAGES = {
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "BoolStorage": torch.bool,
    "UntypedStorage": None,
}
DTYPES_BY_NAME = {
    name: value
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype) and not name.startswith("_")
}
# Things that stand beside the weights in checkpoints. They are never made, only passed over.
INERT = {
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.device",
    "torch.Size",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "datetime.datetime",
    "_codecs.encode",
    "__builtin__.list",
    "__builtin__.dict",
    "__builtin__.int",
    "__builtin__.set",
    "builtins.list",
    "builtins.dict",
    "builtins.int",
    "builtins.set",
}
ORDERED = "collections.OrderedDict"
_ODD = {
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
    "torch._tensor._rebuild_from_type_v2": "a tensor of a class of its own",
    "torch._utils._rebuild_parameter_with_state": "a parameter with attributes of its own",
}


_REBUILDERS = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
}


@dataclass(frozen=True)
class Global:
    """Something the pickle names, never imported."""

    name: str


@dataclass(frozen=True)
class Opaque:
    """A value that is no weight and is passed over."""

    name: str


@dataclass(frozen=True)
class StorageRef:
    """What a pickle says about a storage; `dtype` is None for plain bytes."""

    key: str
    dtype: torch.dtype | None
    size: int


def malformed_pickle(what: str) -> InvalidFile:
    return InvalidFile(f"The pickle in the file is malformed: {what}.", SAVE_HINT)


def checked_global(name: str) -> Global:
    """Raises UnsafeFile unless it is one that weights need."""
    module, _, last = name.rpartition(".")
    is_storage = module in ("torch", "torch.cuda", "torch.storage") and last in _STORAGES
    is_dtype = module == "torch" and last in DTYPES_BY_NAME
    if is_storage or is_dtype or name == ORDERED or name in INERT or name in _REBUILDERS:
        return Global(name)
    if name in _ODD:
        raise InvalidFile(
            f"The file holds {_ODD[name]}; only plain dense tensors are read.",
            "Turn it into a plain tensor before saving: .dequantize(), .to_dense() or .data. "
            + SAVE_HINT,
        )
    if module.startswith(("torch.nn.", "__torch__")):
        raise UnsafeFile(
            "This is a whole network saved with torch.save: a pickle, which can run code when it "
            "is opened.",
            export_hint("Load it in your own code and export"),
        )
    raise UnsafeFile(
        f"The pickle in the file asks for {name[:120]!a}, which weights don't need. It could run "
        "code when it is opened, so it is refused unopened.",
        SAVE_HINT,
    )


def storage_ref(value: Any) -> StorageRef:
    if isinstance(value, tuple) and value and value[0] == "module":
        checked_global("torch.nn.modules")
        checked_global("torch.nn.modules.Module")
    if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] != "storage":
        raise malformed_pickle("a storage is described in an unknown way")
    _, kind, key, _, size = value[:5]
    if len(value) == 6 and value[5] is not None:
        raise InvalidFile(
            "The file was saved by a very old PyTorch (storages that are parts of others).",
            "Load it there and save it again. " + SAVE_HINT,
        )
    name = kind.name.rpartition(".")[2] if isinstance(kind, Global) else ""
    if name not in _STORAGES or not isinstance(key, str) or type(size) is not int:
        raise malformed_pickle("a storage is described in an unknown way")
    if not 0 <= size < 1 << 62:
        raise malformed_pickle("a storage has an impossible size")
    return StorageRef(key, _STORAGES[name], size)
