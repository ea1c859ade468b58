"""Which augmentation, and how strong: from the task, the pictures and how often each is seen.

A picture that is seen a few times is best shown almost as it is: variation costs accuracy before it
saves any. The more often it is seen, the more it must vary to be worth another look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gipi.data.augment.build import mirror_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.core.schema import Field, Schema
    from gipi.data.augment.probe import FlipProbe

LIGHT, FEW, MEDIUM, STRONG, LONG = 2, 6, 15, 60, 200
"""Epochs above which pictures are mirrored, moved, partly hidden, changed at will, and mixed."""
PHOTO = 64  # shorter side in pixels from which objects come in many sizes
MANY = 5_000  # rows from which mixing pays in long runs

Steps = tuple[str | dict[str, Any], ...]


@dataclass(frozen=True)
class Chosen:
    """Steps as a user would write them, and why these."""

    steps: Steps
    reason: str


def default_augment(
    schema: Schema, rows: int, epochs: float, *, probes: Sequence[FlipProbe] = ()
) -> Chosen:
    """Return the steps for `rows` training rows that are seen `epochs` times each.

    probes   from `probe_flips`; a flip that was not measured is used only where the target moves
             along (masks, boxes, keypoints with known pairs), and only left-right
    """
    image = next((f for f in schema.inputs if f.kind == "image"), None)
    if image is None:
        return Chosen((), "no augmentation: the data has no pictures")
    seen = f"each picture is seen {epochs:.3g} times"
    if epochs <= LIGHT:
        return Chosen((), f"no augmentation: {seen}")
    flips, why = _flips(schema.target, probes)
    kind = schema.target.kind if schema.target is not None else "category"
    steps: list[str | dict[str, Any]] = [*flips]
    if kind == "mask":
        said = _mask_steps(steps, image, epochs)
    elif kind == "boxes":
        said = _box_steps(steps, epochs)
    elif kind == "keypoints":
        said = _point_steps(steps, epochs)
    else:
        said = _class_steps(steps, schema, image, rows=rows, epochs=epochs)
    return Chosen(tuple(steps), "; ".join([f"{seen}: {said}", *why]))


def _flips(target: Field | None, probes: Sequence[FlipProbe]) -> tuple[Steps, list[str]]:
    """Return the flips that keep what is to be learnt, and why."""
    measured = {p.axis: p for p in probes}
    names: dict[str, str | dict[str, Any]] = {
        "horizontal": "flip", "vertical": {"name": "flip", "axis": "vertical"},
    }  # fmt: skip
    kind = target.kind if target is not None else "category"
    if target is not None and kind == "keypoints":
        if mirror_order(target) is None:
            return (), ["no flip: no pairs of points are known that change names"]
        return ("flip",), ["left-right flip on: pairs of points change their names"]
    found = [names[axis] for axis, probe in measured.items() if probe.allowed]
    why = [probe.reason for probe in probes]
    across = measured.get("horizontal")
    refused = across is not None and across.by_class and not across.allowed  # by the objects
    if kind in ("mask", "boxes") and not refused:
        if "flip" not in found:
            found.insert(0, "flip")
        why = [f"left-right flip on: {kind} move along"]
        why += [p.reason for p in probes if p.axis == "vertical"]
    elif not probes:
        why = ["no flip: it was not measured whether it keeps the class"]
    return tuple(found), why


def _class_steps(
    steps: list[str | dict[str, Any]], schema: Schema, image: Field, *, rows: int, epochs: float
) -> str:
    """Add the steps for classes and numbers; return what was done in words."""
    channels, height, width = image.shape
    eight_bit = image.stats.get("range", 1.0) != 1.0
    side = min(height, width)
    photo = side >= PHOTO and channels == 3
    if photo:
        steps.append({"name": "resized-crop", "least": 0.5 if epochs <= MEDIUM else 0.25})
    elif epochs <= FEW:
        return "too few to move it"
    else:
        # As much as a picture of this size bears: 4 pixels of 32, 2 of 28 in one colour.
        steps.append("crop" if channels == 3 else "shift")
    said = "few, so it is only moved"
    if epochs > MEDIUM:
        said = "a part of it is hidden too"
        steps.append({"name": "cutout", "size": max(1, side // 4)} if not photo else "erase")
    if epochs > STRONG and eight_bit:
        steps.insert(len(steps) - 1, "trivial-augment")
        said = "many, so it is changed at will and a part of it hidden"
    classes = schema.target is not None and schema.target.kind == "category"
    if epochs > LONG and rows >= MANY and classes:
        steps += [{"name": "mixup", "p": 0.8}, {"name": "cutmix", "p": 0.8}]
        said = "very many, so it is changed at will and mixed with others"
    return said


def _mask_steps(steps: list[str | dict[str, Any]], image: Field, epochs: float) -> str:
    steps.append({"name": "scale", "factor": 1.25 if epochs <= MEDIUM else 1.6})
    if epochs <= MEDIUM:
        return "few, so it is only scaled"
    steps += [{"name": "translate", "strength": 0.1}, {"name": "rotate", "degrees": 8}]
    jitter = {"name": "color-jitter"} if image.shape[0] == 3 else {"name": "brightness"}
    steps.append(jitter)
    return "it is scaled, moved, turned a little and changed in colour"


def _box_steps(steps: list[str | dict[str, Any]], epochs: float) -> str:
    steps += [{"name": "scale", "factor": 1.25}, {"name": "translate", "strength": 0.1}]
    if epochs <= MEDIUM:
        return "few, so it is only scaled and moved"
    steps.append("color-jitter")
    if epochs <= STRONG:
        return "it is scaled, moved and changed in colour"
    steps.append("mosaic")
    return "many, so it is scaled, moved, changed in colour and put together with others"


def _point_steps(steps: list[str | dict[str, Any]], epochs: float) -> str:
    degrees, strength = (10, 0.05) if epochs <= MEDIUM else (25, 0.15)
    steps += [
        {"name": "rotate", "degrees": degrees}, {"name": "zoom", "strength": strength},
        {"name": "translate", "strength": 0.05},
    ]  # fmt: skip
    if epochs <= STRONG:
        return "it is turned, scaled and moved a little"
    steps += ["brightness", "contrast", "erase"]
    return "many, so it is turned, scaled, moved, changed in light and partly hidden"
