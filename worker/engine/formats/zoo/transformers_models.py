"""Networks of transformers by model type or class, from a configuration alone: nothing is fetched.

A model type ("bert") stands for several classes, one a head. `{"class": ...}` names one; without it
the keys of the upload decide.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from worker.engine.formats.zoo.architecture import (
    Architecture,
    Inputs,
    Shapes,
    not_installed,
    unknown_architecture,
)
from worker.engine.formats.zoo.arguments import (
    check_arguments,
    check_names,
    nearest,
    wrong_arguments,
)
from worker.engine.formats.zoo.torchvision_stand_in import torchvision_or_none

# The heads that are tried, those first that people fine-tune.
_HEADS = (
    "SEQUENCE_CLASSIFICATION",
    "TOKEN_CLASSIFICATION",
    "IMAGE_CLASSIFICATION",
    "AUDIO_CLASSIFICATION",
    "MASKED_LM",
    "CAUSAL_LM",
    "QUESTION_ANSWERING",
    "MULTIPLE_CHOICE",
    "PRETRAINING",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "NEXT_SENTENCE_PREDICTION",
    "TEXT_ENCODING",
)
# Ours, beside the fields of the configuration.
_OWN = {"class", "num_labels", "sequence_length"}
_IGNORED = (r"position_ids$", r"(^|\.)masked_bias$", r"attn\.bias$", r"rotary_emb\.inv_freq$")
_SEQUENCE = 128


def import_transformers() -> Any:
    """transformers, never reaching for the network. Raises InvalidInput with the line that
    installs it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    try:
        with torchvision_or_none():
            import transformers
            from transformers.utils import import_utils

            # Asked once, it remembers the answer.
            import_utils.is_torchvision_available()
    except ImportError as error:
        raise not_installed("transformers") from error
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers


def _mappings() -> dict[str, Mapping[str, Any]]:
    from transformers.models.auto import modeling_auto

    names = {"BASE": "MODEL_MAPPING_NAMES", "PRETRAINING": "MODEL_FOR_PRETRAINING_MAPPING_NAMES"}
    names |= {head: f"MODEL_FOR_{head}_MAPPING_NAMES" for head in _HEADS}
    return {head: getattr(modeling_auto, name, {}) for head, name in names.items()}


def _classes(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def transformers_architectures(name: str, arguments: Mapping[str, Any]) -> list[Architecture]:
    """`name`: a model type or a class in the library's own lists. Raises InvalidInput."""
    transformers = import_transformers()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    mappings = _mappings()
    types_of: dict[str, str] = {}
    for mapping in mappings.values():
        for model_type, classes in mapping.items():
            for found in _classes(classes):
                types_of.setdefault(found, model_type)
    check_arguments(arguments)
    wanted = arguments.get("class")
    if name in types_of:
        model_type, wanted = types_of[name], wanted or name
    elif name in CONFIG_MAPPING_NAMES:
        model_type = name
    else:
        known = [*CONFIG_MAPPING_NAMES, *types_of]
        raise unknown_architecture(
            f"transformers has no model {name[:80]!a}{nearest(name, known)}.",
            'Give a model type ("bert") or a class ("BertForSequenceClassification").',
        )
    own = [
        found
        for head in (*_HEADS, "BASE")
        for found in _classes(mappings[head].get(model_type))
        if types_of.get(found) is not None
    ]
    own = list(dict.fromkeys(own))
    if wanted is not None and wanted not in own:
        raise wrong_arguments(
            f"{model_type} has no class {str(wanted)[:80]!a}{nearest(str(wanted), own)}.",
            f"It has: {', '.join(own)}.",
        )
    config_class = CONFIG_MAPPING[model_type]
    fields = set(inspect.signature(config_class.__init__).parameters) - {"self", "kwargs"}
    fields |= set(getattr(config_class, "attribute_map", {}))
    check_names(arguments, fields | _OWN, f"transformers' {model_type}")
    chosen = [wanted] if wanted else own
    if not chosen:
        raise unknown_architecture(
            f"transformers has no network for {model_type} that is known here.",
            "Name its class.",
        )
    return [
        _architecture(transformers, model_type, found, config_class, arguments, bool(wanted))
        for found in chosen
    ]


def _architecture(
    transformers: Any,
    model_type: str,
    class_name: str,
    config_class: Any,
    arguments: Mapping[str, Any],
    named: bool,
) -> Architecture:
    used = {**arguments, "class": class_name}
    fields = {key: value for key, value in arguments.items() if key not in _OWN - {"num_labels"}}

    def build(dtype: torch.dtype) -> nn.Module:
        try:
            config = config_class(**fields)
            config.use_cache = False
            with torchvision_or_none():
                network = getattr(transformers, class_name)
            return network._from_config(config, dtype=dtype)
        except wrong_kinds() as error:
            raise wrong_arguments(
                f"transformers can't build {class_name} with these arguments: {str(error)[:300]}",
                f"Compare them with the fields of {config_class.__name__}.",
            ) from error

    def example(module: nn.Module) -> Inputs:
        inputs = _example(module, arguments.get("sequence_length"))
        # Plain tuples: a class of results would have to be known to whoever reads the export.
        return (), inputs | {"return_dict": False}

    notes = [] if named else [f"By its keys, the upload belongs to transformers' {class_name}."]
    name = f"transformers:{model_type}"
    return Architecture(name, used, build, example, _inferred, _renamed, _IGNORED, _said, notes)


def _said(inputs: Inputs) -> str:
    ids = inputs[1].get("input_ids")
    if ids is None:
        return ""
    return (
        f"It takes sequences of {ids.shape[-1]} tokens; give sequence_length in "
        "architecture_args for others."
    )


def wrong_kinds() -> tuple[type[Exception], ...]:
    """What the library raises for configurations that make no sense."""
    kinds: list[type[Exception]] = [
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        AssertionError,
        ZeroDivisionError,
    ]
    try:
        from huggingface_hub.errors import StrictDataclassError
    except ImportError:
        return tuple(kinds)
    return (*kinds, StrictDataclassError)


def _example(module: nn.Module, sequence: Any) -> dict[str, Any]:
    """Two samples of what the network's `forward` takes, by name."""
    config: Any = module.config
    takes = set(inspect.signature(module.forward).parameters)
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    main = getattr(module, "main_input_name", "input_ids")
    if main == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        channels = getattr(config, "num_channels", 3)
        return {main: torch.randn(2, channels, height, width, dtype=dtype)}
    if main in ("input_values", "input_features"):
        return {main: torch.randn(2, 16_000, dtype=dtype)}
    length = _length(config, sequence)
    vocabulary = getattr(config, "vocab_size", None) or 2
    ids = torch.arange(2 * length).reshape(2, length) % vocabulary
    made: dict[str, Any] = {"input_ids": ids}
    if "attention_mask" in takes:
        made["attention_mask"] = torch.ones(2, length, dtype=torch.int64)
    if "decoder_input_ids" in takes:
        made["decoder_input_ids"] = ids.clone()
    if class_takes_choices(module):
        made = {key: value[:, None].repeat(1, 2, 1) for key, value in made.items()}
    return made


def class_takes_choices(module: nn.Module) -> bool:
    return type(module).__name__.endswith("ForMultipleChoice")


def _length(config: Any, sequence: Any) -> int:
    longest = getattr(config, "max_position_embeddings", None) or 512
    if sequence is None:
        return min(_SEQUENCE, longest)
    if type(sequence) is not int or not 1 <= sequence <= min(longest, 8192):
        raise wrong_arguments(f"sequence_length is a whole number from 1 to {longest:,}.")
    return sequence


def _renamed(module: nn.Module, keys: list[str]) -> dict[str, str]:
    """Keys as files on the hub have them, to those of the classes, as `from_pretrained` renames
    them. Conversions that change the tensors too are left out."""
    same = {key: key for key in keys}
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming
    except ImportError:
        return same
    network: Any = module
    steps = [
        step for step in get_model_conversion_mapping(network) if isinstance(step, WeightRenaming)
    ]
    for key in sorted(keys):
        for step in steps:
            same[key] = step.rename_source_key(same[key])[0]
    return same


def _inferred(module: nn.Module, shapes: Shapes) -> dict[str, Any]:
    """The number of labels, where the only thing that differs is the last layer."""
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    labels = getattr(module, "num_labels", None)
    differing = [key for key in own if key in shapes and shapes[key] != own[key]]
    counts = {shapes[key][0] for key in differing if shapes[key] and own[key][0] == labels}
    if labels is None or len(counts) != 1 or not 0 < len(differing) <= 4:
        return {}
    return {"num_labels": counts.pop()}
