"""From what a user types to an `Augment`: names, options, and whether they fit the data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.data.augment import colour, erasing, filters, geometry, mix, mosaic, policy
from gipi.data.augment.apply import Augment, Step
from gipi.data.augment.geometry import PADDINGS
from gipi.data.augment.mosaic import Mosaic
from gipi.data.augment.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.core.schema import Field, Schema

_LIMITS = {  # option -> (lowest, highest, what it is); "step.option" goes before "option"
    "p": (0.0, 1.0, "a probability from 0 to 1"),
    "strength": (0.0, 1.0, "a number from 0 to 1"),
    "perspective.strength": (0.0, 0.9, "a number from 0 to 0.9"),
    "degrees": (0.0, 180.0, "degrees from 0 to 180"),
    "shear.degrees": (0.0, 40.0, "degrees from 0 to 40"),
    "alpha": (0.01, 100.0, "a number from 0.01 to 100"),
    "least": (0.0, 1.0, "a share of the area"),
    "resized-crop.least": (0.01, 1.0, "a share of the area from 0.01"),
    "most": (0.0, 1.0, "a share of the area"),
    "aspect": (1.0, 100.0, "a ratio of at least 1"),
    "factor": (1.0, 10.0, "a factor from 1 to 10"),
    "sigma": (0.1, 10.0, "pixels from 0.1 to 10"),
    "magnitude": (0.0, 30.0, "a number from 0 to 30"),
    "brightness": (0.0, 1.0, "a number from 0 to 1"),
    "contrast": (0.0, 1.0, "a number from 0 to 1"),
    "saturation": (0.0, 1.0, "a number from 0 to 1"),
    "hue": (0.0, 0.5, "a share of a full turn, from 0 to 0.5"),
}
_WHOLE = {"n": (1, 4), "bits": (1, 8)}
_SIDES = (1, 8192)
_ALONE = ("mask", "boxes", "keypoints")  # targets that lie on the picture
_FITS = {"mixup": (), "cutmix": ("mask",), "mosaic": ("boxes",)}  # of those, what can be mixed

AUGMENTATIONS = Registry(
    "augmentations",
    (
        Record("flip", geometry.flip, "mirror left-right (axis=vertical: upside down)"),
        Record("crop", geometry.crop, "pad, then cut out the size again at random",
               "He et al. 2015", facts={"pixels": 8}),
        Record("shift", geometry.shift, "move by a few whole pixels", facts={"pixels": 14}),
        Record("resized-crop", geometry.resized_crop, "stretch a random part to the whole size",
               "Szegedy et al. 2014"),
        Record("resize", geometry.resize, "stretch to another size"),
        Record("rotate", geometry.rotate, "turn by a few degrees"),
        Record("shear", geometry.shear, "slant by a few degrees"),
        Record("zoom", geometry.zoom, "scale by a few per cent"),
        Record("scale", geometry.scale, "scale by a factor, in proportion or not"),
        Record("translate", geometry.translate, "move by a share of the sides"),
        Record("perspective", geometry.perspective, "look from aside"),
        Record("brightness", colour.brightness, "lighter or darker"),
        Record("contrast", colour.contrast, "stretch about the mean colour"),
        Record("saturation", colour.saturation, "paler or more colourful", tags=("colour",)),
        Record("hue", colour.hue, "turn the colours", tags=("colour",)),
        Record("grey", colour.grey, "take the colours away", tags=("colour",)),
        Record("color-jitter", colour.color_jitter, "brightness, contrast, saturation and hue",
               "Howard 2013"),
        Record("blur", filters.blur, "Gaussian blur"),
        Record("noise", filters.noise, "Gaussian noise"),
        Record("sharpness", filters.sharpness, "sharper or softer"),
        Record("posterize", filters.posterize, "fewer grey levels", tags=("levels",)),
        Record("solarize", filters.solarize, "invert the light parts", tags=("levels",)),
        Record("invert", filters.invert, "make a negative", tags=("levels",)),
        Record("autocontrast", filters.autocontrast, "stretch to the whole range",
               tags=("levels",)),
        Record("equalize", filters.equalize, "spread the grey levels evenly", tags=("levels",)),
        Record("cutout", erasing.cutout, "blank out one square", "DeVries and Taylor 2017",
               facts={"size": 4}),
        Record("erase", erasing.erase, "blank out a random rectangle", "Zhong et al. 2017"),
        Record("rand-augment", policy.rand_augment, "n of fourteen operations, one strength",
               "Cubuk et al. 2020", tags=("levels",)),
        Record("trivial-augment", policy.trivial_augment, "one of fourteen operations",
               "Müller and Hutter 2021", tags=("levels",)),
        Record("mixup", mix.mixup, "blend two rows and their targets", "Zhang et al. 2017",
               tags=("tables",)),
        Record("cutmix", mix.cutmix, "paste a rectangle of another picture", "Yun et al. 2019"),
        Record("mosaic", mosaic.mosaic, "four pictures in one, for detection",
               "Bochkovskiy et al. 2020"),
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
    image = images[0] if images else None
    target = schema.target
    steps: list[Step] = []
    for item in asked:
        name, options = _parse(item)
        record = AUGMENTATIONS.get(name)
        _fits(record, schema, image)
        steps += _steps(record, options, image.shape if image else ())
    stats = image.stats if image else {"mean": [0.0], "std": [1.0], "range": 1.0}
    _agree(steps)
    kind = target.kind if target is not None else "category"
    swap = _swap(target, steps) if target is not None and kind == "keypoints" else None
    return Augment(
        tuple(steps),
        torch.tensor(stats["mean"], dtype=torch.float32),
        torch.tensor(stats["std"], dtype=torch.float32),
        clip=stats["range"] != 1.0,
        classes=len(schema.classes),
        kind=kind,
        swap=swap,
    )


def _fits(record: Record, schema: Schema, image: Field | None) -> None:
    """Raise where a step does not fit the data."""
    name = record.name
    if schema.task == "forecast":
        raise ConfigError(f"augment={name} on a series", "pictures or a table", "leave it out")
    if image is None and "tables" not in record.tags:
        raise ConfigError(f"augment={name} on data without pictures", "pictures", "leave it out")
    if any(f.kind == "text" for f in schema.inputs):
        raise ConfigError(
            f"augment={name} on texts", "pictures or numbers: tokens cannot be blended",
            "leave it out",
        )  # fmt: skip
    if image is None and any(f.kind == "category" for f in schema.inputs):
        raise ConfigError(
            f"augment={name} on a table with categories",
            "inputs that are all numbers: categories cannot be blended",
            "leave it out",
        )
    if image is not None and "colour" in record.tags and image.shape[0] == 1:
        raise ConfigError(f"augment={name} on grey pictures", "pictures in RGB", "leave it out")
    if image is not None and "levels" in record.tags and image.stats["range"] == 1.0:
        raise ConfigError(
            f"augment={name} on pictures of float values",
            "8-bit pictures: the step counts grey levels", "leave it out",
        )  # fmt: skip
    kind = schema.target.kind if schema.target is not None else "category"
    lies = kind in _ALONE
    if name in _FITS and (lies or name == "mosaic") and kind not in _FITS[name]:
        needed = {"mixup": "a target that can be blended: classes or numbers",
                  "cutmix": "classes, numbers or masks", "mosaic": "boxes"}[name]  # fmt: skip
        raise ConfigError(f"augment={name} with {kind} as the target", needed, "leave it out")


def _agree(steps: Sequence[Step]) -> None:
    """Raise where steps cannot be done together."""
    parts = [p for s in steps for p in (s.parts if isinstance(s, Policy) else (s,))]
    moving = [p for p in parts if isinstance(p, geometry.Geometric)]
    if len({p.padding for p in moving} - {"zero"}) > 1:
        raise ConfigError(
            "two augmentations with different padding", "one padding: steps are applied as one",
            "use the same padding in all",
        )  # fmt: skip
    if any(isinstance(s, Mosaic) for s in steps) and any(isinstance(s, mix.Mixing) for s in steps):
        raise ConfigError(
            "mosaic beside mixup or cutmix", "one way to mix pictures", "leave the others out"
        )


def _swap(target: Field, steps: Sequence[Step]) -> torch.Tensor | None:
    """Return the index of each keypoint's name in a mirror image, from the schema's pairs."""
    found = mirror_order(target)
    count = target.shape[0] if target.shape else len(target.classes)
    flips = any(isinstance(s, geometry.Geometric) and s.name == "flip" for s in steps)
    if found is None and count > 1 and flips:
        raise ConfigError(
            f"augment=flip on {count} keypoints of which no pairs are known",
            "the pairs of points that change names in a mirror image (left eye, right eye)",
            "name them in the schema, or leave flip out",
        )
    return found


def mirror_order(target: Field) -> torch.Tensor | None:
    """Return (K,) int64: the index of each keypoint's name in a mirror image; None if unknown.

    From the pairs in `stats["flip"]` of the field, indices or names; other points stay.
    """
    pairs = target.stats.get("flip")
    if target.kind != "keypoints" or pairs is None:
        return None
    order = list(range(target.shape[0] if target.shape else len(target.classes)))
    names = {name: k for k, name in enumerate(target.classes)}
    for a, b in pairs:
        i, j = int(names.get(a, a)), int(names.get(b, b))
        order[i], order[j] = j, i
    return torch.tensor(order)


def _parse(item: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise ConfigError(
            f"augment entry {item!r}", "a name, or {name: ..., option: value}",
            "write for instance {name: shift, pixels: 2}",
        )  # fmt: skip
    return item["name"], {k: v for k, v in item.items() if k != "name"}


def _steps(record: Record, options: dict[str, Any], shape: tuple[int, ...]) -> tuple[Step, ...]:
    parameters = inspect.signature(record.build).parameters
    known = [k for k in parameters if k != "name"]
    for key, value in options.items():
        if key not in known:
            raise ConfigError(
                f"augment.{record.name}.{key}: there is no such option",
                f"an option of {record.name}: {', '.join(known)}",
                did_you_mean(key, known),
            )
        _check(record.name, key, value, shape)
    low, high = (
        options.get(key, parameters[key].default) if key in known else bound
        for key, bound in (("least", 0.0), ("most", 1.0))
    )
    if low > high:
        raise ConfigError(
            f"augment.{record.name}: least={low} is above most={high}",
            "least <= most", "give both, the smaller as least",
        )  # fmt: skip
    for key, part in record.facts.items():
        options = {key: max(1, round(min(shape[1:]) / part)), **options}
    lacking = [
        k for k in known if parameters[k].default is inspect.Parameter.empty and k not in options
    ]
    if lacking:
        raise ConfigError(
            f"augment={record.name} without {lacking[0]}",
            f"a value of {lacking[0]}",
            f"write {{name: {record.name}, {lacking[0]}: ...}}",
        )
    built: Step | tuple[Step, ...] = record.build(**options)
    return built if isinstance(built, tuple) else (built,)


def _check(name: str, key: str, value: Any, shape: tuple[int, ...]) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    limits = _LIMITS.get(f"{name}.{key}", _LIMITS.get(key))
    if limits is not None:
        low, high, needed = limits
        good = number and low <= value <= high
    elif key in _WHOLE:
        least, most = _WHOLE[key]
        needed, good = f"a whole number from {least} to {most}", whole and least <= value <= most
    elif key == "size" and name != "cutout":
        sides = value if isinstance(value, list | tuple) else (value, value)
        needed = "a side in pixels, or [height, width]"
        good = len(sides) == 2 and all(
            isinstance(v, int) and not isinstance(v, bool) and _SIDES[0] <= v <= _SIDES[1]
            for v in sides
        )
    elif key in ("pixels", "size"):
        needed = f"whole pixels from 0 to the picture's side ({min(shape[1:])})"
        good = whole and 0 <= value <= min(shape[1:])
    elif key == "padding":
        needed, good = "one of " + ", ".join(PADDINGS), value in PADDINGS
    else:
        needed, good = "horizontal or vertical", value in ("horizontal", "vertical")
    if not good:
        raise ConfigError(f"augment.{name}.{key}={value!r}", needed, "correct the value")
