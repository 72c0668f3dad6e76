"""Every family through the public API: what strangers bring, judged by plain torch beside it."""

from __future__ import annotations

import copy
import csv
import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn import functional

from app.client import Client
from tests.support.live import LiveServer, finished

pytestmark = pytest.mark.slow

LEVELS = [0.5, 0.9]


@dataclass
class Case:
    """A network, its file, its data, and how plain torch computes the figures on `tune`.

    `figures(network)` gives metric name to value, on the samples of `x_tune`.
    """

    network: nn.Module
    model_file: Path
    dataset_file: Path
    figures: Callable[[nn.Module], Mapping[str, float]]
    model_fields: dict[str, str] = field(default_factory=dict)
    dataset_fields: dict[str, str] = field(default_factory=dict)
    kind: str = "single-label"
    key_prefix: str = ""
    retrained: bool = False


def exported(module: nn.Module, path: Path, *example: Tensor) -> Path:
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(
        module.eval(), example, dynamic_shapes=tuple({0: batch} for _ in example)
    )
    torch.export.save(program, path)
    return path


def by_task(output: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        "accuracy": float((output.argmax(-1) == labels).float().mean()),
        "loss": float(functional.cross_entropy(output.double(), labels)),
    }


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.rnn = nn.LSTM(8, 12, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.words(ids))[0])


def tagger(folder: Path) -> Case:
    network = Tagger().eval()
    ids = torch.randint(0, 30, (120, 7))
    tags = (ids % 4).clone()
    tags[:, 5:] = torch.where(ids[:, 5:] > 20, torch.tensor(-100), tags[:, 5:])
    np.savez(folder / "tags.npz", x_train=ids[:80], y_train=tags[:80], x_tune=ids[80:],
             y_tune=tags[80:])  # fmt: skip

    def figures(net: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            output = net(ids[80:])
        wanted = tags[80:] != -100
        return by_task(output[wanted], tags[80:][wanted])

    return Case(
        network,
        exported(network, folder / "tagger.pt2", ids[:2]),
        folder / "tags.npz",
        figures,
        kind="per-position",
        retrained=True,
    )


class Labeller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


def multi_label(folder: Path) -> Case:
    network = Labeller().eval()
    x, y = torch.randn(150, 1, 6, 6), torch.rand(150, 5) < 0.4
    save_file({"x": x, "y": y}, folder / "labels.safetensors")
    return Case(
        network,
        exported(network, folder / "labeller.pt2", x[:2]),
        folder / "labels.safetensors",
        # The server cuts the splits, so only what it says of itself is compared there.
        lambda _: {},
        kind="multi-label",
    )


def table(folder: Path) -> Case:
    """A regression on a table: columns of numbers and of words, encoded from `train` alone."""
    rng = np.random.default_rng(0)
    rows = 300
    size, age = rng.normal(50, 20, rows), rng.normal(30, 9, rows)
    town = rng.choice(["Bonn", "Köln", "Aachen, West"], rows)
    price = 3 * size - age + 10 * (town == "Bonn") + rng.normal(0, 3, rows)
    split = np.array(["train"] * 180 + ["tune"] * 80 + ["test"] * 40)
    with (folder / "houses.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "age", "town", "price", "split"])
        writer.writerows(zip(size, age, town, price, split, strict=True))
    network = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1)).eval()
    train, tune = split == "train", split == "tune"
    columns = [(v - v[train].mean()) / v[train].std() for v in (size, age)]
    columns += [(town == name).astype(float) for name in sorted(set(town))]
    x = torch.tensor(np.stack(columns, 1)[tune], dtype=torch.float32)
    y = torch.tensor(price[tune], dtype=torch.float32)

    def figures(net: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            error = net(x)[:, 0].double() - y.double()
        spread = ((y.double() - y.double().mean()) ** 2).mean()
        return {
            "mse": float((error**2).mean()),
            "mae": float(error.abs().mean()),
            "r2": float(1 - (error**2).mean() / spread),
        }

    return Case(
        network,
        exported(network, folder / "price.pt2", x[:2]),
        folder / "houses.csv",
        figures,
        dataset_fields={"task": "regression", "options": json.dumps({"target": "price"})},
        kind="regression",
        retrained=True,
    )


def image_folder(folder: Path) -> Case:
    """PNGs in folders and a timm network whose weights were saved from DataParallel."""
    from worker.engine.formats.zoo.timm_models import import_timm

    timm = import_timm()
    network = timm.create_model("resnet18", num_classes=3, in_chans=3).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    state = OrderedDict((f"module.{k}", v) for k, v in network.state_dict().items())
    torch.save({"state_dict": state, "epoch": 7}, folder / "resnet18.pth")
    rng = np.random.default_rng(1)
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for part, count in (("train", 8), ("tune", 8), ("test", 4)):
            for at, name in enumerate(["ant", "bee", "cat"]):
                for number in range(count):
                    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    data = io.BytesIO()
                    Image.fromarray(image).save(data, "PNG")
                    archive.writestr(f"pictures/{part}/{name}/{number}.png", data.getvalue())
                    if part == "tune":
                        pixels.append(image)
                        labels.append(at)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = (np.stack(pixels) / 255 - mean) / std
    x = torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)

    def figures(net: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return by_task(net(x), torch.tensor(labels))

    return Case(
        network,
        folder / "resnet18.pth",
        folder / "pictures.zip",
        figures,
        model_fields={
            "architecture": "timm:resnet18",
            "architecture_args": json.dumps({"num_classes": 3, "img_size": 32}),
        },
        dataset_fields={"options": json.dumps({"preset": "imagenet", "size": 32})},
        key_prefix="module.",
    )


def language(folder: Path) -> Case:
    """A GPT-2 of the library's own kind, tied, as safetensors, and texts as token ids."""
    from worker.engine.formats.zoo.transformers_models import import_transformers

    transformers = import_transformers()

    settings: dict[str, Any] = {
        "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16,
    }  # fmt: skip
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).eval()
    state = {k: v.clone() for k, v in network.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "gpt2.safetensors")
    ids = torch.randint(0, 40, (90, 12))
    np.savez(folder / "texts.npz", x_train=ids[:50], x_tune=ids[50:])

    def figures(net: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            scores = net(ids[50:], use_cache=False).logits[:, :-1].flatten(0, 1)
        found = by_task(scores, ids[50:, 1:].flatten())
        return {"perplexity": float(np.exp(found["loss"])), "accuracy": found["accuracy"]}

    return Case(
        network,
        folder / "gpt2.safetensors",
        folder / "texts.npz",
        figures,
        model_fields={
            "architecture": "transformers:gpt2",
            "architecture_args": json.dumps(
                {"class": "GPT2LMHeadModel", "sequence_length": 12} | settings
            ),
        },
        dataset_fields={"task": "language-modelling"},
        kind="language-modelling",
        retrained=True,
    )


def masked_words(folder: Path) -> Case:
    """Two inputs, ids and attention mask, for a BERT exported by its owner."""
    from worker.engine.formats.zoo.transformers_models import import_transformers

    transformers = import_transformers()

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, num_labels=3,
    )  # fmt: skip

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertForSequenceClassification(config)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.bert(input_ids=ids, attention_mask=mask).logits

    network = Classifier().eval()
    ids = torch.randint(1, 50, (90, 9))
    mask = (torch.arange(9) < torch.randint(3, 10, (90, 1))).long()
    labels = torch.randint(0, 3, (90,))
    arrays = {"x_tune.0": ids, "x_tune.1": mask, "y_tune": labels}
    np.savez(folder / "words.npz", **{k: v.numpy() for k, v in arrays.items()})

    def figures(net: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return by_task(net(ids, mask), labels)

    return Case(
        network,
        exported(network, folder / "bert.pt2", ids[:2], mask[:2]),
        folder / "words.npz",
        figures,
    )


CASES = (tagger, multi_label, table, image_folder, language, masked_words)


@pytest.fixture(scope="module")
def client(shared_server: LiveServer):
    with shared_server.client() as opened:
        yield opened


def upload(client: Client, where: str, file: Path, fields: Mapping[str, str]) -> dict[str, Any]:
    with file.open("rb") as stream:
        made = client.call(
            "POST", f"/api/{where}", files={"file": (file.name, stream)}, data=dict(fields)
        )
    found = finished(client, f"/api/{where}/{made['id']}")
    assert found["status"] == "ready", found["error"]
    return found


def pruned(network: nn.Module, unit: str, sparsity: float) -> nn.Module:
    clone = copy.deepcopy(network)
    flat = clone.state_dict()[unit].view(-1)
    order = torch.sort(flat.abs(), stable=True).indices
    with torch.no_grad():
        flat[order[: round(sparsity * flat.numel())]] = 0
    return clone


def agree(said: Mapping[str, Any], truth: Mapping[str, float], samples: int) -> None:
    """The same network in two programs: equal but for rounding, and for a near tie or two."""
    for name, value in truth.items():
        found = said["metrics"][name]["value"]
        slack = 2.5 / samples if name == "accuracy" else 1e-3 * abs(value) + 1e-5
        assert found == pytest.approx(value, abs=slack), name
        interval = said["metrics"][name]
        if interval["low"] is not None:
            assert interval["low"] <= found <= interval["high"]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_the_whole_way(make: Callable[[Path], Case], client: Client, tmp_path: Path):
    torch.manual_seed(0)
    case = make(tmp_path)
    model = upload(client, "models", case.model_file, case.model_fields)
    data = upload(client, "datasets", case.dataset_file, case.dataset_fields)
    units = [u["id"] for u in model["units"]["weight"] if u["prunable"]]
    asked = units[:: max(1, len(units) // 6)]
    made = client.call(
        "POST",
        "/api/analyses",
        json={"model_id": model["id"], "dataset_id": data["id"], "sparsities": LEVELS,
              "units": asked},
    )  # fmt: skip
    analysis = finished(client, f"/api/analyses/{made['id']}")
    assert analysis["status"] == "done", analysis["error"]
    assert analysis["task"] == case.kind
    primary = analysis["metric"]
    assert analysis["baseline"]["metrics"][primary]["value"] is not None
    samples = analysis["baseline"]["samples"]
    agree(analysis["baseline"], case.figures(case.network), samples)
    assert {c["unit"] for c in analysis["curves"]} == set(asked)
    for curve in analysis["curves"]:
        for point in curve["points"]:
            sparse = pruned(case.network, curve["unit"], point["sparsity"])
            agree(point, case.figures(sparse), samples)

    plan = client.call(
        "POST",
        "/api/plans",
        json={"analysis_id": made["id"], "sparsities": dict.fromkeys(asked, 0.5)},
    )
    job = client.call("POST", f"/api/plans/{plan['id']}/measure", json={"split": "tune"})
    assert finished(client, f"/api/jobs/{job['id']}")["state"] == "done"
    measured = client.call("GET", f"/api/plans/{plan['id']}")["measurements"][0]
    file = client._http.get(f"/api/plans/{plan['id']}/checkpoint?format=safetensors")
    assert file.status_code == 200, file.text
    state = load(file.content)
    assert all(key.startswith(case.key_prefix) for key in state)
    clone = copy.deepcopy(case.network)
    bare = {key.removeprefix(case.key_prefix): value for key, value in state.items()}
    missing, unexpected = clone.load_state_dict(bare, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    for key in asked:
        assert float((clone.state_dict()[key] == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    agree(measured, case.figures(clone), samples)

    if case.retrained:
        made = client.call(
            "POST",
            "/api/experiments",
            json={"plan_id": plan["id"], "schedule": "one-shot", "epochs": 2, "batch_size": 16,
                  "learning_rate": None, "baselines": ["uniform"]},
        )  # fmt: skip
        experiment = finished(client, f"/api/experiments/{made['id']}", seconds=240)
        assert experiment["status"] == "done", experiment["error"]
        for run in experiment["runs"]:
            losses = [epoch["tune_loss"] for epoch in run["trajectory"]]
            assert len(losses) == 3
            assert min(losses[1:]) < losses[0]


def test_weights_alone_are_looked_at_and_not_analysed(client: Client, tmp_path: Path):
    weight = torch.randn(40, 30)
    weight[:10] = 0
    save_file({"layer.weight": weight}, tmp_path / "weights.safetensors")
    model = upload(client, "models", tmp_path / "weights.safetensors", {})
    assert model["details"]["kind"] == "weights"
    (look,) = model["details"]["weights"]
    assert (look["key"], look["zeros"]) == ("layer.weight", 300)
    np.savez(tmp_path / "data.npz", x=np.zeros((50, 30), np.float32), y=np.arange(50) % 2)
    data = upload(client, "datasets", tmp_path / "data.npz", {})
    answer = client._http.post(
        "/api/analyses", json={"model_id": model["id"], "dataset_id": data["id"]}
    )
    assert answer.status_code == 422
    assert "architecture" in answer.json()["detail"]
