"""Batch augmentation: whole batches on the device, every draw a function of (seed, epoch, id)."""

from __future__ import annotations

from gipi.data.augment.apply import Augment
from gipi.data.augment.build import AUGMENTATIONS, build_augment
from gipi.data.augment.geometry import transform_boxes, transform_masks, transform_points

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "build_augment",
    "transform_boxes",
    "transform_masks",
    "transform_points",
]
