"""Networks of transformers, made from small configurations."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from tests.matrix.registry import BATCH, Library, Made
from worker.engine.formats.zoo.torchvision_stand_in import torchvision_or_none

TRANSFORMERS = Library("transformers", torchvision_or_none)
CLASSES, WORDS, LENGTH = 4, 50, 7

_TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
}
_IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
_EAGER = {"attn_implementation": "eager"}
_NO_ATTENTION_DROPOUT = {"attention_probs_dropout_prob": 0.0}
"""transformers asks for attention's dropout in training mode only: no evaluation export has it."""


def _library() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers


def _config(kind: str, **settings: Any) -> Any:
    config = getattr(_library(), f"{kind}Config")(**settings)
    config.use_cache = False
    return config


def _auto(task: str, kind: str, attention: dict[str, str] | None = None, **settings: Any) -> Any:
    maker = getattr(_library(), f"AutoModelFor{task}")
    return maker.from_config(_config(kind, **settings), **(attention or {}))


def _ids() -> Tensor:
    return torch.randint(3, WORDS, (BATCH, LENGTH))


def _masked() -> dict[str, Tensor]:
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    mask[1, 4:] = 0
    return {"input_ids": _ids(), "attention_mask": mask}


def _text(net: nn.Module, **more: Any) -> Made:
    return Made(net, kwargs=_masked(), **more)


def _words(net: nn.Module) -> Made:
    return Made(net, kwargs={"input_ids": _ids()})


def _images(net: nn.Module, size: int = 32, **more: Any) -> Made:
    return Made(net, (torch.randn(BATCH, 3, size, size),), **more)


def _classifier(kind: str, **settings: Any) -> nn.Module:
    return _auto("SequenceClassification", kind, num_labels=CLASSES, **settings)


def _image_classifier(kind: str, **settings: Any) -> nn.Module:
    return _auto("ImageClassification", kind, num_labels=CLASSES, **settings)


@TRANSFORMERS.entry("text encoders", name="BERT")
def bert() -> Made:
    return _text(_classifier("Bert", **_TEXT, **_NO_ATTENTION_DROPOUT))


@TRANSFORMERS.entry("text encoders", name="BERT, training export", note="attention written out")
def bert_in_training() -> Made:
    return _text(_classifier("Bert", **_TEXT, attention=_EAGER), training=True)


@TRANSFORMERS.entry("text encoders", name="BERT, fixed batch")
def bert_fixed() -> Made:
    return _text(_classifier("Bert", **_TEXT, **_NO_ATTENTION_DROPOUT), dynamic=False)


@TRANSFORMERS.entry("text encoders", name="BERT, a class for every word", task="per-position")
def bert_tokens() -> Made:
    settings = {**_TEXT, **_NO_ATTENTION_DROPOUT, "num_labels": CLASSES}
    net = _auto("TokenClassification", "Bert", **settings)
    return _text(net)


@TRANSFORMERS.entry("text encoders", name="DistilBERT")
def distilbert() -> Made:
    settings = {"vocab_size": WORDS, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    settings |= {"max_position_embeddings": 20, "attention_dropout": 0.0}
    return _text(_classifier("DistilBert", **settings, attention=_EAGER))


@TRANSFORMERS.entry("text encoders", name="RoBERTa")
def roberta() -> Made:
    return _text(_classifier("Roberta", **_TEXT, **_NO_ATTENTION_DROPOUT))


@TRANSFORMERS.entry("text encoders", name="ALBERT", note="one layer used by all depths")
def albert() -> Made:
    return _text(_classifier("Albert", **_TEXT, embedding_size=8, attention=_EAGER))


@TRANSFORMERS.entry("text encoders", name="ELECTRA", task="multi-label")
def electra() -> Made:
    return _text(_classifier("Electra", **_TEXT, **_NO_ATTENTION_DROPOUT, embedding_size=8))


@TRANSFORMERS.entry("text encoders", name="DeBERTa-v2", note="positions and content apart")
def deberta() -> Made:
    settings: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
    return _text(_classifier("DebertaV2", **_TEXT, **settings, type_vocab_size=0))


@TRANSFORMERS.entry("text encoders", name="MPNet")
def mpnet() -> Made:
    return _text(_classifier("MPNet", **_TEXT, attention=_EAGER))


@TRANSFORMERS.entry("text encoders", name="FNet", note="Fourier transforms for attention")
def fnet() -> Made:
    return _words(_classifier("FNet", **_TEXT))


@TRANSFORMERS.entry(
    "text encoders",
    name="T5 encoder",
    task="regression",
    training="differs",
    note="attention's own dropout is not in an evaluation export",
)
def t5() -> Made:
    settings = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2}
    return _text(_library().T5EncoderModel(_config("T5", **settings, num_heads=2)))


_GPT2 = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
_GPT2["attn_pdrop"] = 0.0


@TRANSFORMERS.entry("text decoders", name="GPT-2, classes")
def gpt2() -> Made:
    return _text(_classifier("GPT2", **_GPT2, pad_token_id=0, attention=_EAGER))


@TRANSFORMERS.entry(
    "text decoders", name="GPT-2, next words", task="language-modelling", note="tied embedding"
)
def gpt2_words() -> Made:
    return _words(_auto("CausalLM", "GPT2", _EAGER, **_GPT2))


@TRANSFORMERS.entry(
    "text decoders",
    name="Llama",
    task="language-modelling",
    training="nothing",
    note="grouped queries, rotary positions",
)
def llama() -> Made:
    return _text(_auto("CausalLM", "Llama", **_TEXT, num_key_value_heads=1))


@TRANSFORMERS.entry("text decoders", name="Mistral", training="nothing")
def mistral() -> Made:
    return _text(_classifier("Mistral", **_TEXT, num_key_value_heads=1, pad_token_id=0))


@TRANSFORMERS.entry("text decoders", name="Qwen2", task="language-modelling", training="nothing")
def qwen2() -> Made:
    return _text(_auto("CausalLM", "Qwen2", **_TEXT, num_key_value_heads=1))


@TRANSFORMERS.entry("text decoders", name="GPT-NeoX", task="language-modelling", training="nothing")
def neox() -> Made:
    return _words(_auto("CausalLM", "GPTNeoX", **_TEXT))


@TRANSFORMERS.entry("text decoders", name="OPT", task="language-modelling", note="tied embedding")
def opt() -> Made:
    settings = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "ffn_dim": 32}
    settings |= {"num_attention_heads": 2, "max_position_embeddings": 20, "word_embed_proj_dim": 16}
    return _text(_auto("CausalLM", "OPT", _EAGER, **settings))


@TRANSFORMERS.entry("vision transformers", name="ViT")
def vit() -> Made:
    return _images(_image_classifier("ViT", **_IMAGE, hidden_dropout_prob=0.1))


@TRANSFORMERS.entry("vision transformers", name="DeiT")
def deit() -> Made:
    config = _config("DeiT", **_IMAGE, hidden_dropout_prob=0.1, num_labels=CLASSES)
    return _images(_library().DeiTForImageClassification(config))


@TRANSFORMERS.entry("vision transformers", name="Swin", note="relative positions by index")
def swin() -> Made:
    settings: dict[str, Any] = {"image_size": 32, "patch_size": 4, "embed_dim": 8}
    settings |= {"depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "drop_path_rate": 0.0}
    return _images(_image_classifier("Swin", **settings, hidden_dropout_prob=0.1))


_SEGFORMER: dict[str, Any] = {
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "num_encoder_blocks": 2,
    "sr_ratios": [2, 1],
    "num_attention_heads": [1, 2],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "mlp_ratios": [2, 2],
    "drop_path_rate": 0.0,
}


@TRANSFORMERS.entry("vision transformers", name="SegFormer, classes", training="nothing")
def segformer() -> Made:
    return _images(_image_classifier("Segformer", **_SEGFORMER))


@TRANSFORMERS.entry("vision transformers", name="SegFormer, pixels", task="per-position")
def segformer_pixels() -> Made:
    settings = {**_SEGFORMER, "decoder_hidden_size": 16, "num_labels": CLASSES}
    return _images(_auto("SemanticSegmentation", "Segformer", **settings))


@TRANSFORMERS.entry("residual convolutions", name="ResNet")
def resnet() -> Made:
    settings: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}
    return _images(_image_classifier("ResNet", **settings))


@TRANSFORMERS.entry("modern convolutions", name="ConvNeXt", training="nothing")
def convnext() -> Made:
    settings: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2}
    return _images(_image_classifier("ConvNext", **settings))


@TRANSFORMERS.entry("audio", name="Wav2Vec2", note="weight-normed positions")
def wav2vec2() -> Made:
    settings: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
    settings |= {"num_attention_heads": 2, "conv_dim": (8, 8), "conv_stride": (5, 2)}
    settings |= {"conv_kernel": (10, 3), "num_feat_extract_layers": 2, "classifier_proj_size": 8}
    settings |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    settings |= {"mask_time_prob": 0.0, "layerdrop": 0.0, "num_labels": CLASSES}
    settings |= {"attention_dropout": 0.0}
    net = _auto("AudioClassification", "Wav2Vec2", _EAGER, **settings)
    return Made(net, (torch.randn(BATCH, 400),))


@TRANSFORMERS.entry("audio", name="Whisper encoder")
def whisper() -> Made:
    settings = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "num_mel_bins": 8}
    settings |= {"encoder_ffn_dim": 32, "max_source_positions": 20, "decoder_layers": 1}
    settings |= {"num_labels": CLASSES, "classifier_proj_size": 8, "dropout": 0.1}
    net = _auto("AudioClassification", "Whisper", _EAGER, **settings)
    return Made(net, (torch.randn(BATCH, 8, 40),))


@TRANSFORMERS.entry("time series", name="PatchTST", task="regression")
def patchtst() -> Made:
    settings = {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "d_model": 16}
    settings |= {"patch_stride": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
    settings |= {"num_targets": 1, "loss": "mse", "share_embedding": True}
    net = _library().PatchTSTForRegression(_config("PatchTST", **settings, use_cls_token=False))
    return Made(net, (torch.randn(BATCH, 16, 2),))
