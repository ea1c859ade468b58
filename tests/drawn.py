"""Small folders of drawn pictures: a bright square or disc on a dim ground, and where it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from pathlib import Path

SIZES = ((48, 64), (48, 64), (60, 80))  # H, W: not all alike


def scene(i: int) -> tuple[Image.Image, tuple[int, int, int, int], int]:
    """A picture, the box of its object and the object's class: 0 square, 1 disc."""
    rng = np.random.default_rng(i)
    high, wide = SIZES[i % len(SIZES)]
    noise = rng.integers(0, 60, (high, wide, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    side = int(rng.integers(16, 26))
    x0, y0 = int(rng.integers(0, wide - side)), int(rng.integers(0, high - side))
    box = (x0, y0, x0 + side, y0 + side)
    draw = ImageDraw.Draw(image)
    last = (x0, y0, x0 + side - 1, y0 + side - 1)
    if i % 2:
        draw.ellipse(last, fill=(60, 220, 90))
    else:
        draw.rectangle(last, fill=(230, 80, 60))
    return image, box, i % 2


def masks(folder: Path, rows: int = 24) -> Path:
    """images/ and masks/, with a list of class names."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(rows):
        image, (x0, y0, x1, y1), kind = scene(i)
        image.save(folder / "images" / f"{i:03d}.png")
        mask = Image.new("L", image.size, 0)
        draw = ImageDraw.Draw(mask)
        shape = (x0, y0, x1 - 1, y1 - 1)
        (draw.ellipse if kind else draw.rectangle)(shape, fill=kind + 1)
        mask.save(folder / "masks" / f"{i:03d}.png")
    (folder / "classes.txt").write_text("ground\nsquare\ndisc\n")
    return folder


def boxes(folder: Path, rows: int = 24) -> Path:
    """images/ and a COCO file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(rows):
        image, (x0, y0, x1, y1), kind = scene(i)
        image.save(folder / "images" / f"{i:03d}.png")
        images.append({"id": i, "file_name": f"{i:03d}.png", "width": image.width,
                       "height": image.height})  # fmt: skip
        annotations.append({"id": i, "image_id": i, "category_id": kind + 1, "iscrowd": 0,
                            "bbox": [x0, y0, x1 - x0, y1 - y0],
                            "area": (x1 - x0) * (y1 - y0)})  # fmt: skip
    categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def points(folder: Path, rows: int = 24) -> Path:
    """Pictures and a table with the object's corners and middle."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["image,corner_x,corner_y,middle_x,middle_y,end_x,end_y"]
    for i in range(rows):
        image, (x0, y0, x1, y1), _ = scene(i)
        image.save(folder / f"{i:03d}.png")
        middle = f"{(x0 + x1) / 2},{(y0 + y1) / 2}"
        lines.append(f"{i:03d}.png,{x0},{y0},{middle},{x1},{y1}")
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    return folder / "points.csv"


def labels(folder: Path, rows: int = 48) -> Path:
    """A table whose rows have several labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["a,b,tags"]
    for _ in range(rows):
        a, b = rng.normal(size=2)
        found = [name for name, there in (("high", a > 0), ("wide", b > 0)) if there]
        lines.append(f"{a:.4f},{b:.4f},{'|'.join(found)}")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")
    return folder / "tags.csv"
