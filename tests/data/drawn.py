"""Small annotated sets on the disk: coloured squares whose place is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ((220, 40, 40), (40, 200, 40), (40, 40, 220))
NAMES = ("red", "green", "blue")


def squares(n=12, seed=0, sizes=((40, 60),)):
    """Return pictures, masks (0 background, 1..3) and boxes (x0, y0, x1, y1, class)."""
    rng = np.random.RandomState(seed)
    out = []
    for i in range(n):
        h, w = sizes[i % len(sizes)]
        picture = np.full((h, w, 3), 10, dtype=np.uint8)
        mask = np.zeros((h, w), dtype=np.uint8)
        boxes = []
        for c in range(1 + i % 3):
            x0, y0 = rng.randint(1, w - 14), rng.randint(1, h - 14)
            x1, y1 = x0 + rng.randint(6, 13), y0 + rng.randint(6, 13)
            picture[y0:y1, x0:x1] = COLOURS[c]
            mask[y0:y1, x0:x1] = c + 1
            boxes.append((x0, y0, x1, y1, c))
        out.append((picture, mask, boxes))
    return out


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def mask_folder(root, rows=None, names="background\nred\ngreen\nblue\n"):
    for i, (picture, mask, _) in enumerate(rows or squares()):
        write(root / "images" / f"{i:02d}.png", picture)
        write(root / "masks" / f"{i:02d}.png", mask)
    if names:
        (root / "classes.txt").write_text(names)
    return root


def voc_xml(boxes, size, names=NAMES):
    """Return VOC's XML: counted from 1, both ends in."""
    objects = "".join(
        f"<object><name>{names[c]}</name><difficult>0</difficult><bndbox><xmin>{x0 + 1}</xmin>"
        f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1, c in boxes
    )
    h, w = size
    return (
        f"<annotation><size><width>{w}</width><height>{h}</height><depth>3</depth></size>"
        f"{objects}</annotation>"
    )


def voc_folder(root, rows=None, lists=True):
    rows = rows or squares()
    (root / "Annotations").mkdir(parents=True)
    for i, (picture, _, boxes) in enumerate(rows):
        write(root / "JPEGImages" / f"{i:02d}.png", picture)
        (root / "Annotations" / f"{i:02d}.xml").write_text(voc_xml(boxes, picture.shape[:2]))
    if lists:
        place = root / "ImageSets" / "Main"
        place.mkdir(parents=True)
        stems = [f"{i:02d}" for i in range(len(rows))]
        for name, part in (("train", stems[:-4]), ("val", stems[-4:-2]), ("test", stems[-2:])):
            (place / f"{name}.txt").write_text("".join(f"{s}\n" for s in part))
    return root


def coco_json(rows, names=NAMES, points=False):
    pictures, annotations = [], []
    for i, (picture, _, boxes) in enumerate(rows):
        h, w = picture.shape[:2]
        pictures.append({"id": i, "file_name": f"{i:02d}.png", "height": h, "width": w})
        for x0, y0, x1, y1, c in boxes:
            one = {
                "id": len(annotations), "image_id": i, "category_id": 10 * (c + 1), "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            }  # fmt: skip
            if points:
                one["keypoints"] = [x0, y0, 2, x1, y1, 1, 0, 0, 0]
            annotations.append(one)
    categories = [{"id": 10 * (i + 1), "name": n} for i, n in enumerate(names)]
    if points:
        for c in categories:
            c["keypoints"] = ["left_top", "right_bottom", "right_top"]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def coco_folder(root, rows=None, **options):
    rows = rows or squares()
    for i, (picture, _, _) in enumerate(rows):
        write(root / "images" / f"{i:02d}.png", picture)
    (root / "annotations.json").write_text(json.dumps(coco_json(rows, **options)))
    return root


def points_table(root, rows=None, marks=False):
    rows = rows or squares()
    lines = ["image,x0,y0,x1,y1" + (",v0,v1" if marks else "")]
    for i, (picture, _, boxes) in enumerate(rows):
        write(root / "faces" / f"{i:02d}.png", picture)
        x0, y0, x1, y1, _ = boxes[0]
        lines.append(f"faces/{i:02d}.png,{x0},{y0},{x1},{y1}" + (",2,1" if marks else ""))
    path = Path(root) / "points.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
