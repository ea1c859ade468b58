"""From what a user types to an `Augment`: names, options, and whether they fit the data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.data.augment import geometry, mix, pixels
from gipi.data.augment.apply import Augment, Step
from gipi.data.augment.geometry import PADDINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.core.schema import Schema

_LIMITS = {  # option -> (lowest, highest, what it is)
    "p": (0.0, 1.0, "a probability from 0 to 1"),
    "strength": (0.0, 1.0, "a number from 0 to 1"),
    "degrees": (0.0, 180.0, "degrees from 0 to 180"),
    "alpha": (0.01, 100.0, "a number from 0.01 to 100"),
    "least": (0.0, 1.0, "a share of the area"),
    "most": (0.0, 1.0, "a share of the area"),
    "aspect": (1.0, 100.0, "a ratio of at least 1"),
}


def crop(*, pixels: int, padding: str = "zero") -> geometry.Geometric:
    """Pad by `pixels` on every side and cut out the original size at a random place.

    The classic for small pictures (He et al. 2015, arXiv:1512.03385: 4 pixels on 32x32).
    """
    return geometry.shift(pixels=pixels, padding=padding, name="crop")


AUGMENTATIONS = Registry(
    "augmentations",
    (
        Record("flip", geometry.flip, "mirror left-right (axis=vertical: upside down)"),
        Record("crop", crop, "pad, then cut out the size again at random", "He et al. 2015",
               facts={"pixels": 8}),
        Record("shift", geometry.shift, "move by a few whole pixels", facts={"pixels": 14}),
        Record("rotate", geometry.rotate, "turn by a few degrees"),
        Record("zoom", geometry.zoom, "scale by a few per cent"),
        Record("brightness", pixels.brightness, "lighter or darker"),
        Record("contrast", pixels.contrast, "stretch about the mean colour"),
        Record("cutout", pixels.cutout, "blank out one square", "DeVries and Taylor 2017",
               facts={"size": 4}),
        Record("erase", pixels.erase, "blank out a random rectangle", "Zhong et al. 2017"),
        Record("mixup", mix.mixup, "blend two rows and their targets", "Zhang et al. 2017",
               tags=("tables",)),
        Record("cutmix", mix.cutmix, "paste a rectangle of another picture", "Yun et al. 2019"),
    ),
)  # fmt: skip
"""`facts` says which share of the shorter side a size in pixels has where none is given."""


def build_augment(asked: Sequence[str | dict[str, Any]], schema: Schema) -> Augment | None:
    """Return the augmentation of these names or {"name": ..., option: value}; None for none.

    schema   fitted: the pictures' shape and normalisation, the number of classes
    Raises `UnknownName` or `ConfigError` for what does not exist or does not fit the data.
    """
    if isinstance(asked, str):
        asked = (asked,)
    if not asked:
        return None
    images = [f for f in schema.inputs if f.kind == "image"]
    steps: list[Step] = []
    for item in asked:
        name, options = _parse(item)
        record = AUGMENTATIONS.get(name)
        if not images and "tables" not in record.tags:
            raise ConfigError(
                f"augment={name} on data without pictures", "pictures", "leave it out"
            )
        if not images and any(f.kind == "category" for f in schema.inputs):
            raise ConfigError(
                f"augment={name} on a table with categories",
                "inputs that are all numbers: categories cannot be blended",
                "leave it out",
            )
        shape = images[0].shape if images else ()
        steps.append(_step(record, options, shape))
    stats = images[0].stats if images else {"mean": [0.0], "std": [1.0], "range": 1.0}
    paddings = {s.padding for s in steps if isinstance(s, geometry.Geometric)} - {"zero"}
    if len(paddings) > 1:
        raise ConfigError(
            "two augmentations with different padding", "one padding: steps are applied as one",
            "use the same padding in all",
        )  # fmt: skip
    return Augment(
        tuple(steps),
        torch.tensor(stats["mean"], dtype=torch.float32),
        torch.tensor(stats["std"], dtype=torch.float32),
        clip=stats["range"] != 1.0,
        classes=len(schema.classes),
    )


def _parse(item: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise ConfigError(
            f"augment entry {item!r}", "a name, or {name: ..., option: value}",
            "write for instance {name: shift, pixels: 2}",
        )  # fmt: skip
    return item["name"], {k: v for k, v in item.items() if k != "name"}


def _step(record: Record, options: dict[str, Any], shape: tuple[int, ...]) -> Step:
    known = [k for k in inspect.signature(record.build).parameters if k != "name"]
    for key, value in options.items():
        if key not in known:
            raise ConfigError(
                f"augment.{record.name}.{key}: there is no such option",
                f"an option of {record.name}: {', '.join(known)}",
                did_you_mean(key, known),
            )
        _check(record.name, key, value, shape)
    if options.get("least", 0.0) > options.get("most", 1.0):
        raise ConfigError(
            f"augment.{record.name}: least={options['least']} is above most={options['most']}",
            "least <= most", "swap them",
        )  # fmt: skip
    for key, part in record.facts.items():
        options = {key: max(1, round(min(shape[1:]) / part)), **options}
    step: Step = record.build(**options)
    return step


def _check(name: str, key: str, value: Any, shape: tuple[int, ...]) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _LIMITS:
        low, high, needed = _LIMITS[key]
        good = number and low <= value <= high
    elif key in ("pixels", "size"):
        needed = f"whole pixels from 0 to the picture's side ({min(shape[1:])})"
        good = number and isinstance(value, int) and 0 <= value <= min(shape[1:])
    elif key == "padding":
        needed, good = "one of " + ", ".join(PADDINGS), value in PADDINGS
    else:
        needed, good = "horizontal or vertical", value in ("horizontal", "vertical")
    if not good:
        raise ConfigError(f"augment.{name}.{key}={value!r}", needed, "correct the value")
