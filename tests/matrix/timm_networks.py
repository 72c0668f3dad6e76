"""Networks of timm, narrow and shallow, on small images."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from tests.matrix.registry import BATCH, Library, Made
from worker.engine.formats.zoo.torchvision_stand_in import torchvision_or_stand_in

TIMM = Library("timm", torchvision_or_stand_in)
CLASSES = 5


def _network(name: str, **settings: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=CLASSES, **settings)


def _small(module: str, maker: str, *args: Any, **settings: Any) -> nn.Module:
    """For families whose widths are fixed by the functions that `create_model` knows."""
    made: Callable[..., nn.Module] = getattr(import_module(f"timm.models.{module}"), maker)
    return made(*args, num_classes=CLASSES, **settings)


def _images(net: nn.Module, size: int, **more: Any) -> Made:
    return Made(net, (torch.randn(BATCH, 3, size, size),), **more)


@TIMM.entry("residual convolutions", name="resnet18")
def resnet18() -> Made:
    return _images(_network("resnet18", channels=(8, 16, 24, 32), drop_rate=0.2), 64)


@TIMM.entry("residual convolutions", name="resnet26d, training export")
def resnet26d() -> Made:
    net = _network("resnet26d", channels=(4, 8, 12, 16), stem_width=8)
    return _images(net, 64, training=True)


@TIMM.entry("residual convolutions", name="resnet18, fixed batch")
def resnet18_fixed() -> Made:
    return _images(_network("resnet18", channels=(8, 8, 16, 16)), 32, dynamic=False)


@TIMM.entry("grouped convolutions", name="resnext50")
def resnext() -> Made:
    settings = {"layers": [1, 1, 1, 1], "cardinality": 4, "base_width": 16}
    return _images(_network("resnext50_32x4d", channels=(8, 16, 24, 32), **settings), 64)


@TIMM.entry("squeeze and excitation", name="seresnet18")
def seresnet() -> Made:
    return _images(_network("seresnet18", channels=(8, 16, 24, 32)), 64)


@TIMM.entry("multi-scale convolutions", name="res2net50")
def res2net() -> Made:
    settings = {"layers": [1, 1, 1, 1], "channels": (8, 16, 24, 32)}
    return _images(_network("res2net50_26w_4s", **settings), 64)


@TIMM.entry("plain convolutions", name="vgg11 with batch norm")
def vgg() -> Made:
    widths = [8, "M", 16, "M", 24, 24, "M", 32, 32, "M", 32, 32, "M"]
    net = _small("vgg", "VGG", widths, mlp_ratio=1 / 128, norm_layer=nn.BatchNorm2d, drop_rate=0.3)
    return _images(net, 224)


@TIMM.entry("inverted bottlenecks", name="mobilenetv2")
def mobilenetv2() -> Made:
    args = ("efficientnet", "_gen_mobilenet_v2", "mobilenetv2_035", 0.1)
    return _images(_small(*args, depth_multiplier=0.5, drop_rate=0.2), 64)


@TIMM.entry("inverted bottlenecks", name="mobilenetv3")
def mobilenetv3() -> Made:
    args = ("mobilenetv3", "_gen_mobilenet_v3", "mobilenetv3_small_050", 0.25)
    return _images(_small(*args, depth_multiplier=0.5), 64)


@TIMM.entry("inverted bottlenecks", name="efficientnet-b0")
def efficientnet() -> Made:
    args = ("efficientnet", "_gen_efficientnet", "efficientnet_b0")
    return _images(_small(*args, channel_multiplier=0.1, depth_multiplier=0.4), 64)


@TIMM.entry("cheap feature maps", name="ghostnet")
def ghostnet() -> Made:
    return _images(_small("ghostnet", "_create_ghostnet", "ghostnet_050", width=0.1), 64)


@TIMM.entry("dense connections", name="densenet")
def densenet() -> Made:
    return _images(_network("densenet121", growth_rate=4, block_config=(2, 3, 2, 2)), 64)


@TIMM.entry("design spaces", name="regnetx")
def regnet() -> Made:
    from timm.models.regnet import RegNet, RegNetCfg

    cfg = RegNetCfg(w0=8, wa=12.0, wm=2.2, group_size=4, depth=6, stem_width=8)
    return _images(RegNet(cfg, num_classes=CLASSES), 64)


@TIMM.entry("several branches", name="inception-v3")
def inception() -> Made:
    return _images(_network("inception_v3"), 75)


@TIMM.entry("separable convolutions", name="xception")
def xception() -> Made:
    from timm.models.xception_aligned import XceptionAligned

    def block(width: int, out: int, stride: int) -> dict[str, int]:
        return {"in_chs": width, "out_chs": out, "stride": stride}

    blocks = [block(64, 32, 2), block(32, 48, 2), block(48, 48, 1), block(48, 64, 2)]
    return _images(XceptionAligned(blocks, num_classes=CLASSES), 64)


@TIMM.entry(
    "without normalisation",
    name="nfnet",
    training="nothing",
    note="weights standardised in the graph",
)
def nfnet() -> Made:
    from timm.models.nfnet import NormFreeNet, _nfnet_cfg

    widths = (16, 16, 32, 32)
    cfg = _nfnet_cfg((1, 1, 1, 1), channels=widths, group_size=8, act_layer="silu")
    return _images(NormFreeNet(cfg, num_classes=CLASSES), 64)


@TIMM.entry("re-parameterised convolutions", name="repvgg")
def repvgg() -> Made:
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    blocks = tuple(ByoBlockCfg("rep", d=1, c=width, s=2) for width in (8, 16, 24, 32))
    cfg = ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=8)
    return _images(ByobNet(cfg, num_classes=CLASSES), 64)


@TIMM.entry("modern convolutions", name="convnext", training="nothing")
def convnext() -> Made:
    return _images(_network("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 12, 16, 24)), 64)


@TIMM.entry("vision transformers", name="vit-tiny")
def vit() -> Made:
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return _images(_network("vit_tiny_patch16_224", **settings, proj_drop_rate=0.1), 32)


@TIMM.entry(
    "vision transformers", name="swin", training="nothing", note="relative positions by index"
)
def swin() -> Made:
    settings = {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (2, 2)}
    settings |= {"num_heads": (2, 2), "drop_path_rate": 0.0}
    return _images(_network("swin_tiny_patch4_window7_224", **settings), 32)


@TIMM.entry("vision transformers", name="levit")
def levit() -> Made:
    settings = {"embed_dim": (16, 24), "depth": (1, 1), "num_heads": (2, 2), "img_size": 64}
    return _images(_network("levit_128s", **settings), 64)


@TIMM.entry("vision transformers", name="xcit", note="attention over channels")
def xcit() -> Made:
    settings = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "cls_attn_layers": 1}
    return _images(_small("xcit", "Xcit", patch_size=8, eta=1.0, **settings), 32)


def _maxxvit(depths: tuple[int, ...], blocks: tuple[str, ...], size: int, width: int) -> Made:
    from timm.models.maxxvit import MaxxVit, MaxxVitCfg, MaxxVitTransformerCfg

    attention = MaxxVitTransformerCfg(dim_head=8, window_size=(4, 4), rel_pos_type="bias")
    widths = tuple(width * (1 + at // 2) for at in range(len(depths)))
    cfg = MaxxVitCfg(embed_dim=widths, depths=depths, block_type=blocks, stem_width=8)
    cfg.transformer_cfg = attention
    return _images(MaxxVit(cfg, img_size=size, num_classes=CLASSES, drop_rate=0.1), size)


@TIMM.entry("convolution and attention", name="coatnet")
def coatnet() -> Made:
    return _maxxvit((1, 1, 1, 1), ("C", "C", "T", "T"), 64, 16)


@TIMM.entry("convolution and attention", name="maxvit", note="attention in windows and grids")
def maxvit() -> Made:
    return _maxxvit((1, 1), ("M", "M"), 32, 16)


@TIMM.entry("convolution and attention", name="edgenext", training="nothing")
def edgenext() -> Made:
    return _images(_network("edgenext_xx_small", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)), 64)


@TIMM.entry("mixers", name="mlp-mixer")
def mixer() -> Made:
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_blocks": 2}
    return _images(_small("mlp_mixer", "MlpMixer", **settings, drop_rate=0.1), 32)


@TIMM.entry("mixers", name="gmlp", training="nothing")
def gmlp() -> Made:
    from timm.layers import GatedMlp
    from timm.models.mlp_mixer import SpatialGatingBlock

    settings: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_blocks": 2}
    settings |= {"mlp_ratio": 4, "block_layer": SpatialGatingBlock, "mlp_layer": GatedMlp}
    return _images(_small("mlp_mixer", "MlpMixer", **settings), 32)


@TIMM.entry("mixers", name="poolformer", training="nothing")
def poolformer() -> Made:
    from timm.layers import GroupNorm1
    from timm.models.metaformer import MetaFormer, Pooling

    settings: dict[str, Any] = {"depths": (1, 1), "dims": (8, 16), "token_mixers": (Pooling,) * 2}
    settings |= {"mlp_act": nn.GELU, "mlp_bias": True, "norm_layers": GroupNorm1}
    settings |= {"use_mlp_head": False, "downsample_norm": None}
    return _images(MetaFormer(num_classes=CLASSES, **settings), 64)
