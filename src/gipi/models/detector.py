"""What detectors on a pyramid share: its maps, two towers that read every level, logits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.fpn import FPN, PRIOR, draw_head, tower
from gipi.models.stem import image_of
from gipi.nn import NORMS, initialise
from gipi.nn.grids import STRIDES, existing_strides

if TYPE_CHECKING:
    from torch import Generator

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class DetectorConfig:
    """Which detector.

    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    width             maps of the pyramid and of the head
    depth             convolutions of each of the two towers of the head
    strides           of the levels; those with a single place are left out
    norm              of the towers, a name of `gipi list norms`: group norm does not care how few
                      pictures a batch has
    """

    backbone: str = "resnet18"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    width: Annotated[int, Field(gt=0)] = 128
    depth: Annotated[int, Field(ge=0, le=8)] = 2
    strides: tuple[int, ...] = STRIDES
    norm: str = "group"


class Detector(nn.Module):
    """Pyramid, and one head of two towers, `what` and `where`, that reads every level of it.

    boxes  answers for one place: 1, or the anchors there

    `logits` answers probability 0.01 for every class at first. Where boxes are, each detector says
    in its own way, by a convolution of `where`.
    """

    def __init__(
        self,
        config: DetectorConfig,
        signature: Signature,
        generator: Generator,
        *,
        name: str,
        boxes: int,
    ) -> None:
        super().__init__()
        image = image_of(signature, name.lower())
        if signature.outputs < 1:
            raise ModelError("no class to find", "at least one class", "give boxes with classes")
        NORMS.get(config.norm)
        self.config, self.classes = config, signature.outputs
        strides = existing_strides(image[1], image[2], strides=config.strides)
        width = config.width
        self.pyramid = FPN(config.backbone, image, strides=strides, width=width,
                           options=config.backbone_options, generator=generator)  # fmt: skip
        self.what = tower(width, config.depth, config.norm)
        self.where = tower(width, config.depth, config.norm)
        initialise(self.what, generator, activation="relu")
        initialise(self.where, generator, activation="relu")
        self.logits = nn.Conv2d(width, boxes * self.classes, 3, padding=1)
        draw_head(self.logits, generator, probability=PRIOR)
        self.choices = (
            f"{name} on {config.backbone}, levels of strides " + ", ".join(map(str, strides)),
            *getattr(self.pyramid.body, "choices", ()),
        )
