"""Files of weights with a network of transformers: small configurations, as `save_pretrained` and
`torch.save` write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.domain.errors import InvalidFile, InvalidInput
from worker.engine.formats.checkpoints import as_uploaded
from worker.engine.formats.models import OpenedModel, open_model
from worker.engine.formats.zoo.transformers_models import import_transformers

transformers = import_transformers()
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 90,
}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 90}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 90, "n_positions": 64}
VIT = {
    **{key: value for key, value in BERT.items() if key != "vocab_size"},
    "image_size": 32,
    "patch_size": 8,
}
CASES = [
    ("bert", "BertForSequenceClassification", BERT, 4),
    ("bert", "BertForMaskedLM", BERT, None),
    ("distilbert", "DistilBertForSequenceClassification", DISTIL, 3),
    ("gpt2", "GPT2LMHeadModel", GPT2, None),
    ("vit", "ViTForImageClassification", VIT, 5),
]


def network(kind: str, class_name: str, fields: dict[str, Any], labels: int | None) -> Any:
    torch.manual_seed(2)
    more = {} if labels is None else {"num_labels": labels}
    config = transformers.AutoConfig.for_model(kind, **fields, **more)
    return getattr(transformers, class_name)(config).eval()


def inputs_of(kind: str, length: int = 24) -> dict[str, torch.Tensor]:
    if kind == "vit":
        return {"pixel_values": torch.randn(3, 3, 32, 32)}
    mask = torch.ones(3, length, dtype=torch.int64)
    mask[1, 9:] = 0
    return {"input_ids": torch.randint(0, 90, (3, length)), "attention_mask": mask}


def agrees(result: OpenedModel, net: nn.Module, kind: str) -> bool:
    assert result.model is not None
    given = inputs_of(kind)
    assert [spec.name for spec in result.model.inputs] == list(given)
    state, own = result.model.state_dict(), net.state_dict()
    with torch.no_grad():
        expected = net(**given, return_dict=False, use_cache=False)[0]
        answers = torch.equal(result.model.module(*given.values()), expected)
    return answers and list(state) == list(own) and all(torch.equal(state[k], own[k]) for k in own)


@pytest.mark.parametrize(("kind", "class_name", "fields", "labels"), CASES)
def test_what_save_pretrained_wrote(
    tmp_path: Path, kind: str, class_name: str, fields: dict[str, Any], labels: int | None
) -> None:
    """Keys decide the class, shapes the labels; tied tensors are not in the file; ViT's keys have
    the names that files on the hub have."""
    net = network(kind, class_name, fields, labels)
    net.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    length = {} if kind == "vit" else {"sequence_length": 24}
    result = open_model(
        path,
        architecture=f"transformers:{kind}",
        architecture_args={**fields, **length},
        folder=tmp_path,
    )
    assert agrees(result, net, kind)
    assert result.details["architecture_args"]["class"] == class_name
    assert result.details["architecture_args"].get("num_labels") == labels
    assert result.model is not None
    state = as_uploaded(
        result.model.state_dict(),
        path,
        key_prefix=result.details["key_prefix"],
        renamed=result.details["renamed"],
    )
    uploaded = load_file(path)
    assert set(state) == set(uploaded)
    assert all(torch.equal(state[key], value) for key, value in uploaded.items())
    if kind == "gpt2":
        assert "lm_head.weight" not in state
        assert any(
            "lm_head.weight (as transformer.wte.weight)" in n for n in result.details["notes"]
        )


def test_a_checkpoint_with_both_names_of_a_tied_tensor_and_half_precision(tmp_path: Path) -> None:
    net = network("gpt2", "GPT2LMHeadModel", GPT2, None).to(torch.bfloat16)
    save_file({k: v.clone() for k, v in net.state_dict().items()}, tmp_path / "a")
    arguments = {**GPT2, "sequence_length": 24}
    result = open_model(
        tmp_path / "a",
        architecture="transformers:GPT2LMHeadModel",
        architecture_args=arguments,
        folder=tmp_path,
    )
    assert agrees(result, net, "gpt2")
    assert result.model is not None
    assert dict(result.model.tied) == {"lm_head.weight": "transformer.wte.weight"}
    assert {v.dtype for v in result.model.state_dict().values()} == {torch.bfloat16}
    state = {k: v.clone() for k, v in net.state_dict().items()}
    state["lm_head.weight"] += 1
    save_file(state, tmp_path / "b")
    with pytest.raises(InvalidFile, match=r"ties lm_head\.weight to transformer\.wte\.weight"):
        open_model(
            tmp_path / "b",
            architecture="transformers:gpt2",
            architecture_args=arguments,
            folder=tmp_path,
        )


def test_wrong_sizes_are_listed(tmp_path: Path) -> None:
    net = network("bert", "BertForSequenceClassification", BERT, 4)
    save_file(net.state_dict(), tmp_path / "a")
    with pytest.raises(InvalidFile) as caught:
        open_model(
            tmp_path / "a",
            architecture="transformers:bert",
            architecture_args={**BERT, "hidden_size": 16, "class": "BertForSequenceClassification"},
            folder=tmp_path,
        )
    assert (
        "bert.embeddings.word_embeddings.weight is [90, 32] in the file, [90, 16] in the "
        "architecture" in caught.value.message
    )


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("transformers:berd", {}, "no model 'berd' .did you mean 'bert'"),
        ("transformers:google/bert", {}, "no model"),
        ("transformers:bert", {"hidden_sise": 3}, "'hidden_sise' .did you mean 'hidden_size'"),
        ("transformers:bert", {"hidden_size": "3"}, "can't build"),
        ("transformers:bert", {"class": "GPT2LMHeadModel"}, "no class"),
        ("transformers:bert", {"_name_or_path": "x"}, "not accepted"),
        ("transformers:bert", {"auto_map": {"AutoModel": "x.Y"}}, "not accepted"),
        ("transformers:bert", {"trust_remote_code": True}, "not accepted"),
        ("transformers:bert", {"attn_implementation": "kernels"}, "not accepted"),
        ("transformers:bert", {"hidden_act": "import os"}, "can't build"),
        ("transformers:bert", {"hidden_size": 33}, "can't build"),
    ],
)
def test_names_and_arguments_are_those_of_the_library(
    tmp_path: Path, name: str, arguments: dict[str, Any], words: str
) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(InvalidInput, match=words):
        open_model(tmp_path / "a", architecture=name, architecture_args=arguments, folder=tmp_path)
