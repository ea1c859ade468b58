"""The stem of a convolutional net: large strides for photographs, none for small pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from gipi.core.schema import Signature

Stem = Literal["auto", "imagenet", "cifar"]
ResolvedStem = Literal["imagenet", "cifar"]
SMALL = 64  # pixels of the longer side up to which "auto" does without strides in the stem


def image_of(signature: Signature, model: str) -> tuple[int, int, int]:
    """Return (C, H, W) of the signature; raise `ModelError` where its input is no image."""
    if signature.image is None:
        raise ModelError(f"{model} for data without pictures", "images",
                         "use 'mlp' for tables, 'lstm' for texts and series")  # fmt: skip
    return signature.image


def pick_stem(stem: Stem, image: tuple[int, int, int]) -> tuple[ResolvedStem, str]:
    """Return the stem that is used and the sentence that says so.

    "imagenet" divides height and width by four before the first stage, as published; at 32 pixels
    that leaves 8. "cifar" is a 3x3 convolution of stride 1 and no pooling, the usual change for
    small pictures. "auto" takes it where the longer side has up to 64 pixels.

    >>> pick_stem("auto", (3, 32, 32))[0], pick_stem("auto", (3, 224, 224))[0]
    ('cifar', 'imagenet')
    """
    side = max(image[1:])
    if stem == "auto":
        chosen: ResolvedStem = "cifar" if side <= SMALL else "imagenet"
        reason = f"the picture has {'up to' if side <= SMALL else 'over'} {SMALL} pixels a side"
    else:
        chosen, reason = stem, "as asked"
    form = "3x3 without pooling" if chosen == "cifar" else "as published, stride and pooling"
    return chosen, f"stem {chosen} ({form}): {reason}"
