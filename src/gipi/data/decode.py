"""From a picture file to pixels: the one decoder that training and prediction share.

What becomes of unusual files:
    palette          looked up; a transparent colour counts as alpha
    alpha            composited on white, as a browser shows it on an empty page
    16-bit grey      divided by 257, so that the full range stays the full range
    32-bit, float    values within [0, 1] times 255; within [0, 255] as they are; else as 16-bit
    CMYK, YCbCr, Lab converted to RGB
    EXIF orientation applied: the picture is as a viewer shows it
    animation        the first frame
    another size     scaled (anti-aliased) as `placement` says: to cover the target for pictures
                     with a label each, with all of it kept where something is drawn on it

Torch is not imported here, so that worker processes start fast.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gipi.core.errors import DataError
from gipi.data.placement import Box, Fit, Placed, place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gipi.data.source import ImageFiles

VERSION = 1  # raise it when the same file gives other pixels: caches are keyed by it
MAX_SIDE = 128  # longest side chosen on its own; larger with image_size
_PROBED = 512  # files whose headers decide the size
_LOOKED_INTO = 48  # RGB files whose pixels are compared to find grey pictures saved as colour
UNREADABLE = (
    OSError, ValueError, SyntaxError, IndexError, EOFError, TypeError, KeyError, AttributeError,
    OverflowError, MemoryError, ZeroDivisionError, RecursionError, AssertionError, struct.error,
    zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for files that are damaged in one way or another."""
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I", "F")


@dataclass(frozen=True)
class Decoder:
    """Target of every decoded picture: `channels` 1 (grey) or 3 (RGB), its size, how it gets there.

    fit   one of `placement.FITS`
    """

    channels: int
    height: int
    width: int
    fit: Fit = "cover"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.channels, self.height, self.width


def _unreadable(name: str, why: str) -> DataError:
    return DataError(
        f"the picture {name} cannot be decoded ({why})",
        "a complete file of a format that Pillow reads",
        "remove or replace this file",
    )


def _why(error: Exception, path: Path | bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        empty = not path if isinstance(path, bytes) else path.stat().st_size == 0
        return "the file is empty" if empty else "it is no picture of a known format"
    plain = isinstance(error, OSError | ValueError | SyntaxError | Image.DecompressionBombError)
    return (str(error) if plain else "") or type(error).__name__


def _wide_to_l(image: Image.Image) -> Image.Image:
    """Return an 8-bit picture of one with 16-bit, 32-bit or float values."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are no numbers")
    top = float(values.max(initial=0))
    if image.mode == "F" and top <= 1.0:
        scaled = values * 255.0
    elif image.mode in ("I", "F") and top <= 255:
        scaled = values.astype(np.float64)
    else:
        scaled = values.astype(np.float64) / 257.0
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    premultiplied = {"La": "LA", "RGBa": "RGBA"}
    rgba = image.convert(premultiplied.get(image.mode, image.mode)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def to_pixels(image: Image.Image, channels: int) -> Image.Image:
    """Return an upright 8-bit picture of mode "L" or "RGB" of any opened one."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _wide_to_l(image)
    elif image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = _on_white(image)
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.convert("L" if channels == 1 else "RGB")


def lay(image: Image.Image, placed: Placed, height: int, width: int) -> Image.Image:
    """Return (height, width) pixels with the picture where `placed` says, black elsewhere."""
    size = (placed.width, placed.height)
    x0, y0, x1, y1 = placed.part
    if image.size == size == (width, height) and list(placed.part) == [0, 0, width, height]:
        return image
    if x0 < 0 or y0 < 0 or x1 > image.width or y1 > image.height:  # a part that reaches beyond
        image = image.crop((int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1))))
        x0, y0, x1, y1 = 0.0, 0.0, x1 - int(x0), y1 - int(y0)
    scaled = image.resize(size, Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
    if size == (width, height):
        return scaled
    whole = Image.new(image.mode, (width, height))
    whole.paste(scaled, (placed.left, placed.top))
    return whole


def as_array(image: Image.Image) -> np.ndarray:
    """Return uint8 (C, H, W) of a picture of mode "L" or "RGB"."""
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def open_picture(
    path: Path | bytes, name: str, *, near: tuple[int, int] | None = None
) -> Image.Image:
    """Return the loaded picture; JPEG is read at a lower resolution where twice `near` is enough.

    near   (H, W) that the picture will be scaled to
    Raises `DataError` naming the file when it cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF blocks that it can skip
            image = Image.open(io.BytesIO(path if isinstance(path, bytes) else path.read_bytes()))
            if near is not None and image.format == "JPEG":
                side = 2 * max(near)
                image.draft(None, (side, side))
            image.load()
    except FileNotFoundError as error:
        raise _unreadable(name, "the file is gone") from error
    except UNREADABLE as error:
        raise _unreadable(name, _why(error, path)) from error
    return image


def decode(
    path: Path | bytes, decoder: Decoder, name: str, *, crop: Box | None = None
) -> np.ndarray:
    """Return uint8 (C, H, W) of one file (or its bytes), as the decoder wants it.

    crop   part of the picture to use, in its pixels
    """
    whole = decoder.fit != "cover" or crop is not None  # what is drawn on it must stay in place
    near = None if whole else (decoder.height, decoder.width)
    image = open_picture(path, name, near=near)
    try:
        return as_array(_fitted(to_pixels(image, decoder.channels), decoder, crop))
    except UNREADABLE as error:  # a palette, a profile or an EXIF block that is damaged
        raise _unreadable(name, _why(error, path)) from error


def _fitted(image: Image.Image, decoder: Decoder, crop: Box | None = None) -> Image.Image:
    target = (decoder.height, decoder.width)
    placed = place((image.height, image.width), target, decoder.fit, crop=crop)
    return lay(image, placed, *target)


def decode_files(files: ImageFiles, rows: np.ndarray, decoder: Decoder) -> np.ndarray:
    """Return uint8 (n, C, H, W) of these rows of a column of files."""
    out = np.empty((len(rows), *decoder.shape), dtype=np.uint8)
    for i, row in enumerate(rows.tolist()):
        out[i] = decode(files.paths[row], decoder, files.name(row), crop=files.crop(row))
    return out


def placements(
    column: ImageFiles | np.ndarray, decoder: Decoder, rows: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return (n, 3, 3) float64 from original to prepared pixels of these rows.

    sizes   (n, 2) height and width of their originals
    """
    out = np.empty((len(rows), 3, 3))
    target = (decoder.height, decoder.width)
    for i, (row, (h, w)) in enumerate(zip(rows.tolist(), sizes.tolist(), strict=True)):
        crop = None if isinstance(column, np.ndarray) else column.crop(row)
        out[i] = place((h, w), target, decoder.fit, crop=crop).matrix
    return out


def decode_array(pixels: np.ndarray, decoder: Decoder) -> np.ndarray:
    """Return (N, C, H, W) of pictures (N, H, W, C) in memory, scaled like files where needed.

    uint8 stays uint8; float pictures stay float32 and must have the target's size and channels.
    """
    n, h, w, c = pixels.shape
    if (h, w) == (decoder.height, decoder.width) and c == decoder.channels:
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    if pixels.dtype != np.uint8:
        raise DataError(
            f"float pictures of {h}x{w}x{c} where {decoder.height}x{decoder.width}"
            f"x{decoder.channels} is needed",
            "pictures of one size (only 8-bit ones are scaled)",
            "scale them first, or pass uint8",
        )
    out = np.empty((n, *decoder.shape), dtype=np.uint8)
    for i in range(n):
        image = Image.fromarray(pixels[i, :, :, 0] if c == 1 else pixels[i])
        out[i] = as_array(_fitted(to_pixels(image, decoder.channels), decoder))
    return out


@dataclass(frozen=True)
class Choice:
    """A decoder and the reasons for its channels and size."""

    decoder: Decoder
    reason: str


def choose(files: ImageFiles, rows: Sequence[int], *, size: tuple[int, int] | None) -> Choice:
    """Choose channels and size for a column of files from the files of `rows`.

    Channels: grey where every probed picture is grey (also grey ones saved as colour), else RGB.
    Size: the only one; else the most common where it is at least half of them; else the median;
    never above `MAX_SIDE` unless `size` (H, W) is given.
    """
    step = max(1, len(rows) // _PROBED)
    sizes: list[tuple[int, int]] = []
    for row in list(rows)[::step]:
        with contextlib.suppress(DataError):  # such rows are found and named when they are decoded
            sizes.append(header(files.paths[row], files.name(row))[1:])
    if not sizes:
        header(files.paths[rows[0]], files.name(rows[0]))  # no picture can be read: says why
    grey = shade(files, rows) == 1
    shown = "grey" if grey else "RGB"
    if size is not None:
        return Choice(Decoder(1 if grey else 3, *size), f"{shown}; size as asked")
    target, why = _common_size(sizes)
    return Choice(Decoder(1 if grey else 3, *target), f"{shown}; {why}")


def shade(files: ImageFiles, rows: Sequence[int]) -> int:
    """Return the channels that pictures need: 1 where all probed ones are grey, else 3."""
    step = max(1, len(rows) // _PROBED)
    looked = 0
    for row in list(rows)[::step]:
        path, name = files.paths[row], files.name(row)
        try:
            if header(path, name)[0] in _GREY:
                continue
            looked += 1
            if not _all_grey(open_picture(path, name)):
                return 3
        except DataError:
            continue
        if looked >= _LOOKED_INTO:
            break
    return 1


def header(path: Path, name: str) -> tuple[str, int, int]:
    """Return mode, height and width of a file as a viewer shows it, without decoding it."""
    try:
        with warnings.catch_warnings(), path.open("rb") as f:
            warnings.simplefilter("ignore")
            image = Image.open(f)
            width, height = image.size
            on_its_side = image.getexif().get(0x0112) in (5, 6, 7, 8)  # others turn nothing
    except UNREADABLE as error:
        raise _unreadable(name, _why(error, path)) from error
    return (image.mode, width, height) if on_its_side else (image.mode, height, width)


def _all_grey(image: Image.Image) -> bool:
    values = np.asarray(to_pixels(image, 3))
    return bool((values == values[..., :1]).all())


def _common_size(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    distinct, counts = np.unique(np.array(sizes), axis=0, return_counts=True)
    best = int(counts.argmax())
    rule: Literal["only", "common", "median"]
    if len(distinct) == 1:
        rule, (h, w) = "only", distinct[0].tolist()
    elif counts[best] * 2 >= len(sizes):
        rule, (h, w) = "common", distinct[best].tolist()
    else:
        rule, (h, w) = "median", np.median(np.array(sizes), axis=0).round().astype(int).tolist()
    said = {
        "only": f"all pictures are {h}x{w}",
        "common": f"most pictures are {h}x{w}",
        "median": f"the median of {len(distinct)} sizes is {h}x{w}",
    }[rule]
    if max(h, w) > MAX_SIDE:
        factor = MAX_SIDE / max(h, w)
        h, w = max(1, round(h * factor)), max(1, round(w * factor))
        said += f", scaled to {h}x{w} (image_size changes it)"
    return (h, w), said
