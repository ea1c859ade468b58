"""Answers drawn on pictures: tinted masks, boxes with labels, points with lines to the truth."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

IGNORED = 255
TINT = 0.55  # share of the class colour in a tinted pixel
SIDE = 300  # pixels of the shorter side to which small pictures are enlarged before drawing
LONGEST = 640
FARTHEST = 10_000  # pixels from the corner beyond which answers are drawn no farther
TRUTH = (255, 255, 255)
_BASE = (
    (37, 99, 201), (212, 87, 10), (15, 138, 109), (147, 52, 184), (181, 138, 0), (194, 37, 92),
    (0, 157, 196), (110, 148, 24), (196, 78, 82), (84, 84, 160), (230, 150, 70), (90, 170, 150),
)  # fmt: skip


def colours(classes: int) -> np.ndarray:
    """Return (K, 3) uint8 colours, far apart for the first dozen and then by the golden angle."""
    found = [*_BASE[:classes]]
    for k in range(len(found), classes):
        hue = (k * 137.508) % 360 / 60
        c, x = 190, round(190 * (1 - abs(hue % 2 - 1)))
        rgb = ((c, x, 0), (x, c, 0), (0, c, x), (0, x, c), (x, 0, c), (c, 0, x))[int(hue)]
        found.append((rgb[0] + 30, rgb[1] + 30, rgb[2] + 30))
    return np.array(found, dtype=np.uint8).reshape(-1, 3)


def hex_colour(colour: Sequence[int] | np.ndarray) -> str:
    """Return a colour as "#rrggbb"."""
    return "#" + "".join(f"{int(v):02x}" for v in colour)


def canvas(picture: np.ndarray) -> tuple[Image.Image, float]:
    """Return a picture (H, W, 1|3|4) uint8 in colour at a size worth drawing on, and its factor."""
    array = np.asarray(picture, dtype=np.uint8)
    if array.ndim == 2 or array.shape[2] < 3:
        array = np.repeat(array.reshape(*array.shape[:2], -1)[:, :, :1], 3, axis=2)
    image = Image.fromarray(np.ascontiguousarray(array[:, :, :3]))
    factor = min(LONGEST / max(image.size), max(1.0, SIDE / min(image.size)))
    if factor != 1.0:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    return image, factor


def tinted(picture: np.ndarray, mask: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Return the picture with each pixel tinted by its class; ignored pixels stay grey."""
    image, _ = canvas(picture)
    index = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
    base = np.asarray(image, dtype=np.float32)
    known = index != IGNORED
    tint = palette[np.where(known, np.minimum(index, len(palette) - 1), 0)].astype(np.float32)
    grey = base.mean(2, keepdims=True)
    mixed = np.where(known[..., None], (1 - TINT) * grey + TINT * tint, grey * 0.6)
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two pictures of one size beside each other, with a gap."""
    gap = 6
    both = Image.new("RGB", (left.width + gap + right.width, left.height), (128, 128, 128))
    both.paste(left, (0, 0))
    both.paste(right, (left.width + gap, 0))
    return both


def boxed(
    picture: np.ndarray,
    *,
    truth: Sequence[tuple[Sequence[float], int]],
    said: Sequence[tuple[Sequence[float], int, float]],
    classes: Sequence[str],
    palette: np.ndarray,
) -> Image.Image:
    """Return the picture with the true boxes in white and the answers in colour.

    truth  (box, class) a box; said: (box, class, score), drawn with label and score
    """
    image, factor = canvas(picture)
    draw, letters = ImageDraw.Draw(image), font(12)
    for box, _ in truth:
        corners = _corners(box, factor)
        draw.rectangle(_outer(corners, 1), outline=(0, 0, 0), width=1)
        draw.rectangle(corners, outline=TRUTH, width=2)
    for box, kind, score in sorted(said, key=lambda s: s[2]):
        if not np.isfinite(box).all():
            continue
        colour = _rgb(palette[kind])
        corners = _corners(box, factor)
        draw.rectangle(corners, outline=colour, width=2)
        _label(draw, f"{label_of(classes, kind)} {score:.2f}", corners, colour, letters, image.size)
    return image


def pointed(picture: np.ndarray, *, truth: np.ndarray, said: np.ndarray) -> Image.Image:
    """Return the picture with true points as white rings and the answers as coloured dots.

    truth (K, 3) x, y, visible; said (K, 3) x, y, confidence
    """
    image, factor = canvas(picture)
    draw = ImageDraw.Draw(image)
    palette = colours(max(len(said), 1))
    for k, (goal, answer) in enumerate(zip(truth, said, strict=True)):
        said_so = bool(np.isfinite(answer[:2]).all())
        x, y = (float(np.clip(v * factor, -FARTHEST, FARTHEST)) for v in answer[:2])
        if goal[2] > 0:
            gx, gy = float(goal[0]) * factor, float(goal[1]) * factor
            if said_so:
                draw.line([gx, gy, x, y], fill=(220, 60, 60), width=1)
            draw.ellipse([gx - 5, gy - 5, gx + 5, gy + 5], outline=(0, 0, 0), width=1)
            draw.ellipse([gx - 4, gy - 4, gx + 4, gy + 4], outline=TRUTH, width=2)
        if said_so:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=_rgb(palette[k]), outline=(0, 0, 0))
    return image


def label_of(classes: Sequence[str], kind: int) -> str:
    """Return what is written beside a box: the name where the font has its letters."""
    name = classes[kind] if kind < len(classes) else str(kind)
    return name[:18] if name.isascii() else f"#{kind}"


def mask_png(mask: np.ndarray, classes: int) -> bytes:
    """Return a mask (H, W) uint8 as PNG whose pixel values are the class indices.

    The palette only gives the values colours to look at; 255, where nothing is said, is black.
    """
    image = Image.new("P", (mask.shape[1], mask.shape[0]))
    image.frombytes(np.ascontiguousarray(mask, dtype=np.uint8).tobytes())
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: min(classes, 255)] = colours(min(classes, 255))
    image.putpalette(table.reshape(-1).tolist())
    return png(image)


def png(image: Image.Image) -> bytes:
    """Return a picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def font(size: int) -> FreeTypeFont | BitmapFont:
    """Return Pillow's own font; a build without FreeType has one size only."""
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError, TypeError):
        return ImageFont.load_default()


def _label(
    draw: ImageDraw.ImageDraw,
    words: str,
    corners: Sequence[float],
    colour: tuple[int, int, int],
    letters: FreeTypeFont | BitmapFont,
    size: tuple[int, int],
) -> None:
    """Write on a plate of the box's colour, above the box or just inside it."""
    left, top, right, bottom = draw.textbbox((0, 0), words, font=letters)
    wide, high = right - left + 6, bottom - top + 4
    x = min(max(corners[0], 0), max(size[0] - wide, 0))
    y = corners[1] - high if corners[1] >= high else corners[1]
    draw.rectangle([x, y, x + wide, y + high], fill=colour)
    draw.text((x + 3 - left, y + 2 - top), words, fill=(255, 255, 255), font=letters)


def _corners(box: Sequence[float], factor: float) -> list[float]:
    """Return the corners of a box, upper left first: a net of the user's own may invert boxes."""
    x0, y0, x1, y1 = (float(np.clip(v * factor, -FARTHEST, FARTHEST)) for v in box)
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]


def _outer(corners: Sequence[float], by: float) -> list[float]:
    return [corners[0] - by, corners[1] - by, corners[2] + by, corners[3] + by]


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    return int(colour[0]), int(colour[1]), int(colour[2])
