"""Batch augmentation: whole batches on the device, every draw a function of (seed, epoch, id)."""

from __future__ import annotations

from gipi.data.augment.apply import Augment
from gipi.data.augment.build import AUGMENTATIONS, build_augment, mirror_order
from gipi.data.augment.follow import transform_boxes, transform_masks, transform_points
from gipi.data.augment.probe import FlipProbe, probe_flip, probe_flips
from gipi.data.augment.strength import Chosen, default_augment
from gipi.data.augment.views import View, tta_views

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "Chosen",
    "FlipProbe",
    "View",
    "build_augment",
    "default_augment",
    "mirror_order",
    "probe_flip",
    "probe_flips",
    "transform_boxes",
    "transform_masks",
    "transform_points",
    "tta_views",
]
