"""Files of weights with a network of timm: the canonical form answers as the network itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from app.domain.errors import InvalidFile, InvalidInput
from worker.engine.formats.checkpoints import as_uploaded, write_pth, write_safetensors
from worker.engine.formats.models import OpenedModel, open_model
from worker.engine.formats.zoo.timm_models import import_timm

timm = import_timm()

SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"num_classes": 7},
    "mobilenetv3_small_050": {"num_classes": 4},
    "vit_tiny_patch16_224": {"num_classes": 3, "img_size": 32},
}


def network(name: str, **arguments: Any) -> nn.Module:
    """With weights and statistics of its own."""
    torch.manual_seed(1)
    net = timm.create_model(name, pretrained=False, **arguments).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def opened(
    folder: Path, state: Any, name: str, arguments: dict[str, Any] | None = None
) -> OpenedModel:
    torch.save(state, folder / "a.pth")
    return open_model(
        folder / "a.pth", architecture=name, architecture_args=arguments, folder=folder
    )


def agrees(result: OpenedModel, net: nn.Module, x: Tensor) -> bool:
    assert result.model is not None
    state, own = result.model.state_dict(), net.state_dict()
    with torch.no_grad():
        answers = torch.equal(result.model.module(x), net(x))
    return (
        answers
        and list(state) == list(own)
        and all(torch.equal(state[k], own[k]) and state[k].dtype == own[k].dtype for k in own)
    )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("format", ["pth", "safetensors"])
def test_the_network_itself_comes_back(tmp_path: Path, name: str, format: str) -> None:
    net = network(name, **SMALL[name])
    path = tmp_path / f"a.{format}"
    if format == "pth":
        torch.save(net.state_dict(), path)
    else:
        save_file(net.state_dict(), path)
    result = open_model(
        path, architecture=f"timm:{name}", architecture_args=SMALL[name], folder=tmp_path
    )
    size = SMALL[name].get("img_size", 224)
    assert agrees(result, net, torch.randn(3, 3, size, size))
    assert result.format == format
    assert result.derived == tmp_path / "derived.pt2"
    again = open_model(result.derived)
    assert again.format == "pt2"
    assert agrees(again, net, torch.randn(1, 3, size, size))


def test_what_the_shapes_say_needs_no_argument(tmp_path: Path) -> None:
    net = network("resnet18", num_classes=7, in_chans=1)
    state = {"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}, "epoch": 2}
    result = opened(tmp_path, state, "timm:resnet18", {"img_size": 64})
    assert agrees(result, net, torch.randn(2, 1, 64, 64))
    assert result.details["architecture_args"] == {"img_size": 64, "num_classes": 7, "in_chans": 1}
    assert result.details["key_prefix"] == "module."
    assert result.details["nested_under"] == "state_dict"
    said = " ".join(result.details["notes"])
    for words in ("num_classes is 7", "in_chans is 1", "'state_dict'", "'module.'", "1 x 64 x 64"):
        assert words in said


def test_half_precision_stays_half(tmp_path: Path) -> None:
    net = network("resnet18", num_classes=5).half()
    result = opened(tmp_path, net.state_dict(), "timm:resnet18", {"img_size": 32})
    assert agrees(result, net, torch.randn(2, 3, 32, 32).half())


def test_any_part_that_all_keys_share_is_a_prefix(tmp_path: Path) -> None:
    net = network("resnet18")
    state = {f"model.net.{key}": value for key, value in net.state_dict().items()}
    result = opened(tmp_path, state, "timm:resnet18", {"img_size": 32})
    assert result.details["key_prefix"] == "model.net."
    assert agrees(result, net, torch.randn(2, 3, 32, 32))


def test_old_files_without_counters_of_batches(tmp_path: Path) -> None:
    net = network("resnet18")
    state = {k: v for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
    result = opened(tmp_path, state, "timm:resnet18", {"img_size": 32})
    assert agrees(result, net, torch.randn(2, 3, 32, 32))
    assert any("num_batches_tracked" in note for note in result.details["notes"])


@pytest.mark.parametrize("write", [write_safetensors, write_pth])
def test_a_download_has_the_keys_of_the_upload(tmp_path: Path, write: Any) -> None:
    net = network("resnet18", num_classes=3)
    own = {k: v for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
    uploaded = {f"module.{key}": value for key, value in own.items()} | {
        "module.total_ops": torch.ones(1, dtype=torch.float64)
    }
    result = opened(tmp_path, {"model": uploaded}, "timm:resnet18", {"img_size": 32})
    assert result.model is not None
    state = as_uploaded(
        result.model.state_dict(),
        tmp_path / "a.pth",
        key_prefix=result.details["key_prefix"],
        renamed=result.details["renamed"],
    )
    assert list(state) == list(uploaded)
    written = write(state, tmp_path / "out").path
    back = load_file(written) if write is write_safetensors else torch.load(written)
    assert set(back) == set(uploaded)
    assert all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in uploaded.items())
    masks = {key: torch.ones(2) for key in ("conv1.weight", "fc.weight")}
    named = as_uploaded(masks, tmp_path / "a.pth", key_prefix="module.", others=False)
    assert list(named) == ["module.conv1.weight", "module.fc.weight"]


def test_the_wrong_architecture_is_told_key_by_key(tmp_path: Path) -> None:
    state = network("resnet18").state_dict()
    state["layer1.0.konv1.weight"] = state.pop("layer1.0.conv1.weight")
    state["layer1.0.bn1.bias"] = torch.ones(65)
    with pytest.raises(InvalidFile) as caught:
        opened(tmp_path, state, "timm:resnet18")
    message = caught.value.message
    assert "1 missing in the file" in message
    assert "layer1.0.conv1.weight (nearest, of the same shape: layer1.0.konv1.weight)" in message
    assert "1 unknown to the architecture" in message
    assert "layer1.0.bn1.bias is [65] in the file, [64] in the architecture" in message


def test_quite_another_architecture_lists_ten_of_each(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile) as caught:
        opened(tmp_path, network("resnet18").state_dict(), "timm:resnet34")
    assert "more" in caught.value.message
    assert len(caught.value.message.splitlines()) < 40
    big = {f"w{at}": torch.ones(2) for at in range(4)}
    with pytest.raises(InvalidInput, match="far more than the file"):
        opened(tmp_path, big, "timm:vit_giant_patch14_224")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet_18", "no model named 'resnet_18' .did you mean"),
        ("timm:hf-hub:somebody/model", "no model named"),
        ("timm:", "no model named"),
        ("timm:../resnet18", "no model named"),
        ("resnet18", "no architecture named"),
    ],
)
def test_names_are_those_of_the_library(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        opened(tmp_path, {"w": torch.ones(2)}, name)
    assert "architecture" in caught.value.fields


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_clases": 3}, "'num_clases' .did you mean 'num_classes'"),
        ({"pretrained": True}, "'pretrained' is not accepted"),
        ({"checkpoint_path": "x"}, "'checkpoint_path' is not accepted"),
        ({"pretrained_cfg": {"url": "x"}}, "'pretrained_cfg' is not accepted"),
        ({"pretrained_cfg_overlay": {"file": "x"}}, "not accepted"),
        ({"features_only": True}, "not accepted"),
        ({"scriptable": True}, "not accepted"),
        ({"layers": [10**9]}, "out of range"),
        ({"global_pool": "/etc/passwd"}, "no plain word"),
        ({"layers": [[[[[[[1]]]]]]]}, "too deeply"),
        ({"layers": list(range(5000))}, "more than 2,000 entries"),
        ({"block": "BasicBlock"}, "can't build"),
        ({"drop_rate": float("nan")}, "out of range"),
    ],
)
def test_arguments_are_plain_and_known(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        opened(tmp_path, {"w": torch.ones(2)}, "timm:resnet18", arguments)
    assert "architecture_args" in caught.value.fields


def test_a_network_far_larger_than_the_file_is_given_up_early(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="more than"):
        opened(
            tmp_path,
            {"w": torch.ones(2)},
            "timm:vit_tiny_patch16_224",
            {"depth": 900_000, "drop_path_rate": 0.0},
        )


def test_an_archive_takes_no_architecture(tmp_path: Path) -> None:
    net = network("resnet18")
    result = opened(tmp_path, net.state_dict(), "timm:resnet18", {"img_size": 32})
    assert result.derived is not None
    with pytest.raises(InvalidInput, match="holds its network already"):
        open_model(result.derived, architecture="timm:resnet18", folder=tmp_path)
    with pytest.raises(InvalidInput, match="no architecture was named"):
        open_model(tmp_path / "a.pth", architecture_args={"num_classes": 3})


def test_the_stand_in_is_gone_after_the_import() -> None:
    assert "torchvision" not in sys.modules or hasattr(sys.modules["torchvision"], "models")


def test_the_same_upload_gives_the_same_network_file(tmp_path: Path) -> None:
    net = network("resnet18")
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        result = opened(folder, net.state_dict(), "timm:resnet18", {"img_size": 32})
        assert result.derived is not None
        found.append(result.derived.read_bytes())
    assert found[0] == found[1]
