"""The user's module tree again, with the user's keys: what the canonical graph hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from app.domain.errors import InvalidFile
from worker.engine.canonical.recipes import Recipe
from worker.engine.formats.pt2_schema import ExportedProgramData

_TAKEN = frozenset(dir(fx.GraphModule)) | frozenset(
    ["training", "_parameters", "_buffers", "_modules", "graph", "code", "_code", "_graph"]
)


def split(key: str) -> tuple[str, str]:
    """Module path and own name of a key."""
    path, _, name = key.rpartition(".")
    return path, name


class ModuleTree:
    """Collects modules at the user's paths; `build` makes the tree of them.

    Tied keys share one Parameter. `aliases`: all keys of the same tensor, in order, by key.
    """

    def __init__(self, program: ExportedProgramData) -> None:
        self.state = program.state
        self.parameters = program.parameters
        self.constants = program.constants
        self.paths = set(program.modules)
        self.aliases: dict[str, tuple[str, ...]] = {}
        by_tensor: dict[int, list[str]] = {}
        for key, tensor in program.state.items():
            by_tensor.setdefault(id(tensor), []).append(key)
        for keys in by_tensor.values():
            self.aliases.update(dict.fromkeys(keys, tuple(keys)))
        self.below: dict[str, set[str]] = {}
        for key in program.state:
            path, _ = split(key)
            while path:
                self.below.setdefault(path, set()).add(key)
                path, _ = split(path)
        self.made: dict[str, tuple[Recipe, nn.Module]] = {}

    def place(self, recipe: Recipe, keys: Mapping[str, str], path: str, kind: str) -> str | None:
        """The path of a module that does what the recipe says; None when there is none.

        `keys`: state_dict key of each role. `path`, `kind`: where in the user's network the call
        was made, and in which class.
        """
        if recipe.free:
            return self._place_free(recipe, path, kind)
        for candidate in self._candidates(keys, path):
            if candidate in self.made:
                if self._same(self.made[candidate][0], recipe):
                    return candidate
                continue
            module = recipe.module(**recipe.settings, device="meta")
            wanted = {f"{candidate}.{name}" for name in module.state_dict()}
            if self.below.get(candidate) == wanted and self._fill(module, candidate):
                self.made[candidate] = (recipe, module)
                return candidate
        return None

    def _candidates(self, keys: Mapping[str, str], path: str) -> list[str]:
        """Paths at which every role is filled by this call's tensors, the caller's own first."""
        found: list[str] | None = None
        for role, key in keys.items():
            owners = [
                owner
                for owner, name in map(split, self.aliases.get(key, ()))
                if name == role and owner
            ]
            found = owners if found is None else [p for p in found if p in owners]
        return sorted(found or [], key=lambda candidate: candidate != path)

    def _fill(self, module: nn.Module, path: str) -> bool:
        """Give a module its tensors. False: theirs have other shapes, so it is another module."""
        for name, own in module.state_dict(keep_vars=True).items():
            key = f"{path}.{name}"
            tensor = self.state[key]
            if tensor.shape != own.shape or (key in self.parameters) != isinstance(
                own, nn.Parameter
            ):
                return False
        for name in module.state_dict():
            tensor = self.state[f"{path}.{name}"]
            (module._parameters if name in module._parameters else module._buffers)[name] = tensor
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
        return True

    def _place_free(self, recipe: Recipe, path: str, kind: str) -> str:
        own = path and not self.below.get(path) and kind.startswith(recipe.module.__name__[:7])
        candidates = [path] if own else []
        stem = f"{path}.{recipe.name}" if path else recipe.name
        for candidate in [*candidates, *(f"{stem}_{n}" if n else stem for n in range(10_000))]:
            if candidate in self.made:
                if self._same(self.made[candidate][0], recipe):
                    return candidate
                continue
            if candidate not in candidates and self._is_taken(candidate):
                continue
            self.made[candidate] = (recipe, recipe.module(**recipe.settings))
            return candidate
        raise InvalidFile(f"The layer {path} has too many dropouts.", "Simplify the network.")

    def _is_taken(self, path: str) -> bool:
        taken = self.paths | self.below.keys() | self.state.keys() | self.constants.keys()
        return path in taken or split(path)[1] in _TAKEN

    @staticmethod
    def _same(one: Recipe, other: Recipe) -> bool:
        return one.module is other.module and one.settings == other.settings

    def build(self, constants: Mapping[str, Tensor]) -> nn.Module:
        """The tree: modules, then loose parameters and buffers in containers, in key order.

        `constants`: tensors outside of the state_dict, which become non-persistent buffers.
        Raises InvalidFile for names that torch.nn keeps for itself.
        """
        root = nn.Module()
        for key, tensor in self.state.items():
            path, name = split(key)
            if path in self.made:
                self._attach(root, path)
                continue
            self._register(_container(root, path), name, tensor, key, key in self.parameters)
        for path in self.made:
            self._attach(root, path)
        for key, tensor in constants.items():
            path, name = split(key)
            owner = _container(root, path)
            _check_name(owner, name, key)
            owner.register_buffer(name, tensor.detach(), persistent=False)
        return root

    def _attach(self, root: nn.Module, path: str) -> None:
        parent, name = split(path)
        owner = _container(root, parent)
        if name not in owner._modules:
            _check_name(owner, name, path)
            owner.add_module(name, self.made[path][1])
        elif owner._modules[name] is not self.made[path][1]:
            raise InvalidFile(f"The network has two modules named {path}.", _RENAME)

    @staticmethod
    def _register(owner: nn.Module, name: str, tensor: Any, key: str, is_parameter: bool) -> None:
        _check_name(owner, name, key)
        if is_parameter:
            owner.register_parameter(name, tensor)
        else:
            owner.register_buffer(name, tensor)


_RENAME = "Rename it in the network and export again."


def _check_name(owner: nn.Module, name: str, key: str) -> None:
    if name in _TAKEN or name.startswith("__") or hasattr(owner, name):
        raise InvalidFile(
            f"The name {key} can't be used: PyTorch's modules have an attribute {name} already.",
            _RENAME,
        )


def _container(root: nn.Module, path: str) -> nn.Module:
    """The module at `path`, made of empty modules where there is none yet."""
    module, done = root, []
    for name in path.split(".") if path else []:
        done.append(name)
        if name not in module._modules:
            _check_name(module, name, ".".join(done))
            module.add_module(name, nn.Module())
        child = module._modules[name]
        if child is None:
            raise InvalidFile(f"The network has no module at {path}.", _RENAME)
        module = child
    return module
