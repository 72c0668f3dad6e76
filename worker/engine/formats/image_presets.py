"""How images become a network's input: published figures, and what is done if nothing is said."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from app.domain.errors import InvalidFile
from worker.engine.formats.dataset_options import ImageOptions
from worker.engine.formats.images import Geometry

# timm's default share of the resized picture that is kept: 224 of 256.
CROP_SHARE = 0.875


@dataclass(frozen=True)
class Preset:
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    geometry: Geometry | None = None


PRESETS = {
    # torchvision.transforms._presets.ImageClassification(crop_size=224)
    "imagenet": Preset(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), Geometry(256, (224, 224), "bilinear")
    ),
    # github.com/openai/CLIP, clip.py, _transform(224)
    "clip": Preset(
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        Geometry(224, (224, 224), "bicubic"),
    ),
    # Mean and deviation of all pixels of CIFAR-10's 50,000 training images.
    "cifar10": Preset((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "half": Preset((0.5,), (0.5,)),
    "none": Preset(None, None),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that is done to an image, and the sentences about it."""

    geometry: Geometry
    channels: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    notes: tuple[str, ...]

    def as_options(self) -> dict[str, Any]:
        """The options that ask for exactly this."""
        geometry = self.geometry
        said: dict[str, Any] = {"preset": "none", "channels": self.channels}
        said["crop"] = "none" if geometry.crop is None else "center"
        if geometry.resize is not None:
            whole = isinstance(geometry.resize, tuple)
            said["resize"] = list(geometry.resize) if whole else geometry.resize
            said["interpolation"] = geometry.interpolation
        if geometry.crop is not None:
            said["size"] = list(geometry.crop)
        if self.mean is not None:
            said["mean"] = list(self.mean)
        if self.std is not None:
            said["std"] = list(self.std)
        return said


def choose_recipe(options: ImageOptions, sizes: Collection[tuple[int, int]]) -> Recipe:
    """What is done to images of these sizes. Raises InvalidFile if the results differ in size."""
    notes: list[str] = []
    geometry = _geometry(options, sizes, notes)
    if len({geometry.result(size) for size in sizes}) > 1:
        raise InvalidFile(
            f"The images differ in size ({_range(sizes)}), and nothing makes them alike.",
            'Give the option {"size": 224}, or {"size": [height, width]}.',
        )
    channels = options.channels or 3
    preset = PRESETS[options.preset] if options.preset else None
    if preset is None and options.mean is None and options.std is None:
        if channels == 3:
            preset = PRESETS["imagenet"]
            notes.append(
                "The images are normalised with ImageNet's mean and deviation, as pretrained "
                'networks expect; the options preset ("none" leaves 0 to 1), mean and std change '
                "that."
            )
        else:
            notes.append("The images are scaled to 0 to 1; the options mean and std change that.")
    mean = options.mean or (preset.mean if preset else None)
    std = options.std or (preset.std if preset else None)
    return Recipe(geometry, channels, mean, std, tuple(notes))


def _geometry(
    options: ImageOptions, sizes: Collection[tuple[int, int]], notes: list[str]
) -> Geometry:
    published = PRESETS[options.preset].geometry if options.preset else None
    filter_name = options.interpolation or (published.interpolation if published else "bilinear")
    size, resize = options.size, options.resize
    if options.crop == "none":
        return Geometry(resize or size, None, filter_name)
    if size is None and resize is None:
        if published is not None:
            return Geometry(published.resize, published.crop, filter_name)
        if len(sizes) == 1 and options.crop is None:
            height, width = next(iter(sizes))
            notes.append(f"All images have {width} x {height} pixels and are kept so.")
            return Geometry()
        if options.preset == "cifar10":
            return Geometry((32, 32), None, filter_name)
        notes.append(
            f"The images differ in size ({_range(sizes)}): the short side is made 256 and 224 x "
            "224 pixels are cut from the centre; the options size, resize and crop change that."
        )
        return Geometry(256, (224, 224), filter_name)
    if size is None:
        return Geometry(resize, (resize, resize) if isinstance(resize, int) else None, filter_name)
    if resize is not None:
        return Geometry(resize, size, filter_name)
    if set(sizes) == {size}:
        return Geometry()
    if size[0] != size[1]:
        return Geometry(size, None, filter_name)
    if options.preset == "clip":
        return Geometry(size[0], size, filter_name)
    return Geometry(math.floor(size[0] / CROP_SHARE), size, filter_name)


def _range(sizes: Collection[tuple[int, int]]) -> str:
    low, high = min(sizes, key=math.prod), max(sizes, key=math.prod)
    return f"{low[1]} x {low[0]} to {high[1]} x {high[0]} pixels"
