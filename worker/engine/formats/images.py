"""One image of an upload: looked at, then decoded, resized and cropped as torchvision does it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.domain.errors import InvalidFile

# By what they are, not by their names. TIFF's decoder is the oldest of them; it runs behind walls.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 40_000_000
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Look:
    """What an image's header says; the size (height, width) is that after turning it upright."""

    size: tuple[int, int]
    mode: str
    turned: bool
    animated: bool


@dataclass(frozen=True)
class Geometry:
    """`resize`: the short side, or (height, width); `crop`: what is cut from the centre."""

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width after resizing. The long side is cut to a whole number (torchvision)."""
        if self.resize is None:
            return size
        if isinstance(self.resize, tuple):
            return self.resize
        height, width = size
        long = int(self.resize * max(size) / min(size))
        return (self.resize, long) if height <= width else (long, self.resize)

    def result(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the finished image."""
        return self.crop or self.resized(size)


def look_at(data: bytes, name: str) -> Look:
    """Reads the header of an image. Raises InvalidFile, naming the entry; decodes nothing."""
    with _opened(data, name) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        turn = _turn(image)
        width, height = image.size
        size = (width, height) if turn >= 5 else (height, width)
        # Of a TIFF this would walk through all of its pages.
        moving = image.format in ("GIF", "WEBP", "PNG") and getattr(image, "is_animated", False)
        return Look(size, image.mode, turn > 1, bool(moving))


def decode(data: bytes, name: str, geometry: Geometry, channels: int) -> np.ndarray:
    """The image as uint8 `(channels, height, width)`: colour as `convert("RGB")`, grey as "L".

    Raises InvalidFile, naming the entry, if it is cut short or damaged.
    """
    with _opened(data, name) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        turn = _turn(image)
        try:
            plain = image.convert("RGB" if channels == 3 else "L")
        except Exception as error:
            what = "is cut short" if "truncated" in str(error) else "is damaged"
            raise _unreadable(name, what) from error
    if turn > 1:
        plain = plain.transpose(_TURNS[turn])
    height, width = geometry.resized((plain.height, plain.width))
    if height * width > MAX_PIXELS:
        raise InvalidFile(
            f"The image {shown(name)} is so long and thin that it would have {width:,} x "
            f"{height:,} pixels once resized.",
            "Remove it, or give the exact size with the options size and crop: none.",
        )
    if (height, width) != (plain.height, plain.width):
        plain = plain.resize((width, height), _FILTERS[geometry.interpolation])
    pixels = np.asarray(plain)
    pixels = pixels.transpose(2, 0, 1) if channels == 3 else pixels[None]
    return pixels if geometry.crop is None else _centre(pixels, geometry.crop)


def shown(name: str) -> str:
    """A name from the archive, short enough for a sentence."""
    return repr(name if len(name) <= 80 else "…" + name[-79:])


def _opened(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        if isinstance(error, Image.DecompressionBombError):
            raise _too_many(name, "more than 170 million") from error
        raise _unreadable(name, "is no image that can be read") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many(name, f"{width:,} x {height:,}")
    if not width or not height:
        raise _unreadable(name, "has no pixels")
    return image


def _turn(image: Image.Image) -> int:
    """How a camera held it, 1 to 8. Of a PNG only what is said before its pixels counts.

    TIFFs are turned by Pillow itself, their size too.
    """
    if image.format == "TIFF":
        return 1
    if image.format in ("PNG", "PPM", "BMP", "GIF") and "exif" not in image.info:
        return 1
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return turn if turn in _TURNS else 1


def _centre(pixels: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """torchvision's `center_crop`: too small a picture is filled up with black on all sides."""
    _, height, width = pixels.shape
    if height < crop[0] or width < crop[1]:
        down, across = max(0, crop[0] - height), max(0, crop[1] - width)
        fill = ((down // 2, (down + 1) // 2), (across // 2, (across + 1) // 2))
        pixels = np.pad(pixels, ((0, 0), *fill))
        _, height, width = pixels.shape
    top, left = round((height - crop[0]) / 2.0), round((width - crop[1]) / 2.0)
    return pixels[:, top : top + crop[0], left : left + crop[1]]


def _unreadable(name: str, what: str) -> InvalidFile:
    return InvalidFile(
        f"{shown(name)} {what}.",
        "Remove or replace it; read are PNG, JPEG, WebP, BMP, GIF, TIFF and PPM.",
    )


def _too_many(name: str, pixels: str) -> InvalidFile:
    return InvalidFile(
        f"The image {shown(name)} has {pixels} pixels; at most {MAX_PIXELS:,} are decoded.",
        "Make it smaller first.",
    )
