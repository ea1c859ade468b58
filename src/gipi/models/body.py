"""What dense models share: a body whose output stride is wished for, padding and enlargement."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from gipi.core.schema import Signature
from gipi.models.backbones import BACKBONES, backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor, nn

    from gipi.models.backbones import Backbone


def build_body(
    name: str,
    image: tuple[int, int, int],
    *,
    generator: Generator,
    options: Mapping[str, Any],
    output_stride: int | None = None,
) -> tuple[nn.Module, Backbone]:
    """Return the backbone called `name` for pictures (C, H, W), as a module and as a `Backbone`.

    options        of its family
    output_stride  wished for: taken where the family has such an option and `options` has none
    """
    given = dict(options)
    if output_stride is not None:
        known = {f.name for f in fields(BACKBONES.get(name).facts["config"])}
        if "output_stride" in known:
            given.setdefault("output_stride", output_stride)
    return backbone(name, Signature(image=image), generator, options=given)


def pad_to(image: Tensor, multiple: int) -> Tensor:
    """Return `image` (B, C, H, W) with zeros to the right and below, to multiples of `multiple`.

    Then the maps of all strides lie exactly on each other, whatever the size of the picture.
    """
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(image, (0, right, 0, below)) if below or right else image


def resize_maps(maps: Tensor, factor: int) -> Tensor:
    """Return maps (B, K, h, w) enlarged `factor` times, bilinear between pixel centres."""
    if factor == 1:
        return maps
    return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
