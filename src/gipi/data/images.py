"""The picture column of a data set: which decoder, and normalised by what."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.data.decode import VERSION, Decoder, choose, decode_files
from gipi.data.pictures import Pictures
from gipi.data.source import ImageFiles

if TYPE_CHECKING:
    from gipi.core.schema import Field
    from gipi.data.options import DataOptions

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MEASURED = 4096  # training pictures that give mean and spread
_BLOCK = 256


def choose_decoder(
    column: ImageFiles | np.ndarray, train: np.ndarray, options: DataOptions
) -> tuple[Decoder, str]:
    """Return how pictures of this column are decoded, and why; from training rows only."""
    size = size_asked(options.image_size)
    if isinstance(column, ImageFiles):
        chosen = choose(column, train.tolist(), size=size)
        return chosen.decoder, chosen.reason
    if column.ndim != 4 or column.shape[3] not in (1, 3):
        raise DataError(
            f"pictures of shape {column.shape}",
            "(N, H, W, C) with 1 or 3 channels",
            "put the channels last; for one channel (N, H, W, 1)",
        )
    _, h, w, c = column.shape
    if size is None:
        return Decoder(c, h, w), f"{'grey' if c == 1 else 'RGB'}; all pictures are {h}x{w}"
    return Decoder(c, *size), f"{'grey' if c == 1 else 'RGB'}; size as asked"


def size_asked(asked: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return (H, W) of `image_size`, None where nothing is asked; raise where it is no size."""
    if asked is None:
        return None
    pair = (asked, asked) if isinstance(asked, int) else tuple(asked)
    if len(pair) != 2 or not all(isinstance(v, int) and 1 <= v <= 8192 for v in pair):
        raise ConfigError(
            f"image_size={asked!r}", "a side in pixels, or height and width", "image_size=64"
        )
    return pair[0], pair[1]


def decoder_of(field: Field) -> Decoder:
    """Return the decoder that a fitted picture field records."""
    channels, height, width = field.shape
    return Decoder(channels, height, width, field.stats.get("fit", "cover"))


def fit_pictures(
    field: Field, decoder: Decoder, pixels: np.ndarray | ImageFiles, train: np.ndarray, *,
    reason: str, normalise: str | None,
) -> Field:  # fmt: skip
    """Return the field with shape, mean and std per channel, fitted on training rows only.

    Mean and std are in units of the full range for 8-bit pixels (0..1), else of the values.
    normalise   None: measured; "imagenet": the usual constants of RGB nets; "none": 0 and 1
    """
    channels = decoder.channels
    full = 1.0 if isinstance(pixels, np.ndarray) and pixels.dtype.kind == "f" else 255.0
    if normalise == "imagenet":
        if channels != len(IMAGENET[0]):
            raise ConfigError(
                "normalise=imagenet for grey pictures", "pictures in RGB", "leave normalise out"
            )
        mean, std = list(IMAGENET[0]), list(IMAGENET[1])
    elif normalise == "none":
        mean, std = [0.0] * channels, [1.0] * channels
    elif normalise is None:
        mean, std = _measure(pixels, decoder, train, full)
    else:
        raise ConfigError(
            f"normalise={normalise!r}", "imagenet or none (or nothing: measured)", "correct it"
        )
    stats: dict[str, Any] = {"mean": mean, "std": std, "range": full, "decoder": VERSION}
    if decoder.fit != "cover":
        stats["fit"] = decoder.fit
    said = "; ".join(part for part in (field.reason, reason) if part)
    return replace(field, shape=decoder.shape, stats=stats, reason=said)


def _measure(
    pixels: np.ndarray | ImageFiles, decoder: Decoder, train: np.ndarray, full: float
) -> tuple[list[float], list[float]]:
    step = max(1, len(train) // _MEASURED)
    rows = train[::step]
    total, square, count = np.zeros(decoder.channels), np.zeros(decoder.channels), 0
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        if isinstance(pixels, ImageFiles):
            values = decode_files(pixels, part, decoder)
        else:
            values = pixels[part]
        values = values.astype(np.float64) / full
        total += values.sum((0, 2, 3))
        square += (values**2).sum((0, 2, 3))
        count += values.size // decoder.channels
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 0.0))
    std[std < 1e-6] = 1.0
    return mean.tolist(), std.tolist()


def pictures_of(field: Field, pixels: np.ndarray | ImageFiles) -> Pictures:
    """Return pixels with the normalisation that a fitted field records."""
    full = float(field.stats["range"])
    found = 1.0 if isinstance(pixels, np.ndarray) and pixels.dtype.kind == "f" else 255.0
    if found != full:
        raise DataError(
            "pictures of another number type than in training",
            "8-bit pictures" if full > 1 else "float pictures in the range of training",
            "convert them first",
        )
    shift = tuple(m * full for m in field.stats["mean"])
    scale = tuple(1.0 / (s * full) for s in field.stats["std"])
    return Pictures(pixels, decoder_of(field), shift, scale)
