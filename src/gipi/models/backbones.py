"""The convolutional nets with stage maps, by name: what segmentation and detection are built on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from gipi.core.registry import Record, Registry
from gipi.models.densenet import (
    DenseNetBCConfig,
    DenseNetConfig,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    densenet_bc,
)
from gipi.models.googlenet import GoogLeNetConfig, googlenet
from gipi.models.lightnet import LightNetConfig, lightnet
from gipi.models.options import read_options
from gipi.models.resnet import (
    CifarResNetConfig,
    ResNetConfig,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet101,
    resnet110,
    resnet152,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor, nn

    from gipi.core.schema import Signature

RESNET = (
    "He, Zhang, Ren and Sun 2016, Deep residual learning for image recognition, arXiv:1512.03385"
)
DENSENET = (
    "Huang, Liu, van der Maaten and Weinberger 2017, Densely connected convolutional networks, "
    "arXiv:1608.06993"
)
PHOTO, SMALL = (3, 224, 224), (3, 32, 32)


@runtime_checkable
class Backbone(Protocol):
    """A module that answers the maps of its stages.

    features          image (B, C, H, W) -> maps, the finest first
    feature_channels  channels of each map
    feature_strides   how many pixels of the image one step of each map is
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the stage maps."""
        ...


def _resnet(depth: int, build: Any) -> Record:
    return Record(f"resnet{depth}", build, f"residual net of {depth} layers", RESNET, ("image",),
                  {"config": ResNetConfig, "image": PHOTO})  # fmt: skip


def _small(depth: int, build: Any) -> Record:
    return Record(f"resnet{depth}", build, f"residual net of {depth} layers for small pictures",
                  RESNET, ("image",), {"config": CifarResNetConfig, "image": SMALL})  # fmt: skip


def _densenet(depth: int, build: Any) -> Record:
    return Record(f"densenet{depth}", build, f"densely connected net of {depth} layers", DENSENET,
                  ("image",), {"config": DenseNetConfig, "image": PHOTO})  # fmt: skip


RECORDS = (
    Record("googlenet", googlenet, "inception blocks: filters of several sizes side by side",
           "Szegedy et al. 2015, Going deeper with convolutions, arXiv:1409.4842", ("image",),
           {"config": GoogLeNetConfig, "image": PHOTO}),
    _small(20, resnet20),
    _small(32, resnet32),
    _small(44, resnet44),
    _small(56, resnet56),
    _small(110, resnet110),
    _resnet(18, resnet18),
    _resnet(34, resnet34),
    _resnet(50, resnet50),
    _resnet(101, resnet101),
    _resnet(152, resnet152),
    _densenet(121, densenet121),
    _densenet(161, densenet161),
    _densenet(169, densenet169),
    _densenet(201, densenet201),
    Record("densenet-bc", densenet_bc, "densely connected net for small pictures", DENSENET,
           ("image",), {"config": DenseNetBCConfig, "image": SMALL}),
    Record("lightnet", lightnet, "small residual net for dense tasks on processors", RESNET,
           ("image",), {"config": LightNetConfig, "image": (3, 180, 240)}),
)  # fmt: skip
BACKBONES = Registry("backbones", RECORDS)


def backbone(
    name: str,
    signature: Signature,
    generator: Generator,
    *,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, Backbone]:
    """Return the net called `name` without its head, as a module and as a `Backbone` (one object).

    options  of its family, such as {"norm": "group"}

    Raises `UnknownName` with the nearest name, `ConfigError` for an unknown option.

    >>> import torch
    >>> from gipi.core.schema import Signature
    >>> _, body = backbone("resnet18", Signature(image=(3, 96, 96)), torch.Generator())
    >>> [tuple(m.shape[1:]) for m in body.features(torch.zeros(1, 3, 96, 96))]
    [(64, 48, 48), (64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3)]
    """
    record = BACKBONES.get(name)
    config = read_options(name, record.facts["config"], options or {})
    module: nn.Module = record.build(config, replace(signature, outputs=0), generator)
    return module, cast("Backbone", module)
