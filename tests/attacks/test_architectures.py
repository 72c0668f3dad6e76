"""Names and arguments of architectures that ask for files, downloads, other code or the moon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from app.domain.errors import InvalidFile, InvalidInput
from tests.attacks import kit
from worker.sandbox.walls import Limits, Walls

pytestmark = pytest.mark.slow

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "a network of the hub": ("timm:hf-hub:evil/network", {}),
    "a path": ("timm:../../etc/passwd", {}),
    "a folder with code": ("transformers:/tmp/evil", {"trust_remote_code": True}),
    "code from elsewhere": (
        "transformers:bert",
        {"auto_map": {"AutoModel": "evil--modeling.Evil"}, "trust_remote_code": True},
    ),
    "weights from elsewhere": ("timm:resnet18", {"pretrained": True}),
    "a checkpoint": ("timm:resnet18", {"checkpoint_path": "/etc/passwd"}),
    "a configuration": ("timm:resnet18", {"pretrained_cfg": {"url": "http://127.0.0.1:9/x"}}),
    "a class that isn't a network": ("transformers:BertTokenizer", {}),
    "the moon": ("transformers:bert", {"num_hidden_layers": 10**6, "hidden_size": 10**6}),
    "a module": ("os:system", {"command": "touch canary"}),
    "nesting without end": ("timm:resnet18", {"block": [[[[[[[[]]]]]]]]}),
}


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory):
    opened = Walls(tmp_path_factory.mktemp("walls"), threads=1)
    yield opened
    opened.close()


@pytest.mark.parametrize("asked", ASKED)
def test_they_are_refused(walls: Walls, tmp_path: Path, canary: kit.Canary, asked: str) -> None:
    name, arguments = ASKED[asked]
    path = tmp_path / "weights.safetensors"
    save_file({"fc.weight": torch.zeros(10, 512)}, path)
    with pytest.raises((InvalidInput, InvalidFile)) as caught:
        walls.run(
            "import_model",
            {"architecture": name, "architecture_args": arguments},
            {"model": path},
            on_message=lambda *_: None,
            limits=Limits(seconds=120, memory_bytes=3 << 30),
        )
    kit.sentence(caught.value.as_dict())
    assert canary.alive


def test_a_pickle_in_the_metadata_is_text(tmp_path: Path, canary: kit.Canary) -> None:
    """Some programs keep one there, and some open it."""
    pickle = f"cos\nsystem\n(S'{canary.command}'\ntR."
    path = tmp_path / "weights.safetensors"
    save_file({"fc.weight": torch.zeros(10, 512)}, path, metadata={"pickle": pickle})
    outcome = kit.read_model(path)
    kit.harmless(outcome, canary)
    assert outcome.error is None
