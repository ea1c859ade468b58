"""Answers that lie somewhere, as records and columns: masks, boxes, points, and spans of texts."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = ("mask", "boxes", "points", "entities")
IGNORED = 255
DIGITS = 2  # of coordinates: hundredths of a pixel


def kind_of(values: Mapping[str, Any]) -> str:
    """Return "mask", "boxes", "points" or "entities", or "" where answers have no place."""
    return next((kind for kind in KINDS if kind in values), "")


def records(
    rows: Sequence[str], values: Mapping[str, np.ndarray], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one dictionary a row.

    mask    height, width, and "shares": the share of each class in the pixels that were judged
    boxes   "objects": label, score and box (x0, y0, x1, y1) of each, the surest first
    points  "points": x, y and confidence by name
    entities  text, tokens, tags, and "entities": type, text, start and end of each
    """
    kind = kind_of(values)
    if kind == "entities":
        keys = ("text", "tokens", "tags", "entities")
        return [
            {"row": row, **{k: values[k][i] for k in keys}} for i, row in enumerate(rows)
        ]  # fmt: skip
    if kind == "boxes":
        return [
            {"row": row, "objects": _objects(values, i)} for i, row in enumerate(rows)
        ]  # fmt: skip
    if kind == "points":
        names = _point_names(values["points"], classes)
        return [
            {"row": row, "points": {n: _point(p) for n, p in zip(names, found, strict=True)}}
            for row, found in zip(rows, values["points"], strict=True)
        ]
    names = file_names(rows)
    return [
        {"row": row, "mask": name, "height": mask.shape[0], "width": mask.shape[1],
         "shares": shares(mask, classes)}
        for row, name, mask in zip(rows, names, values["mask"], strict=True)
    ]  # fmt: skip


def columns(
    rows: Sequence[str], values: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, list[Any]]:
    """Return flat columns: a line an object for boxes and entities, else a line a row."""
    kind, found = kind_of(values), records(rows, values, classes)
    if kind == "entities":
        spans = [(r["row"], e) for r in found for e in r["entities"]]
        flat: dict[str, list[Any]] = {"row": [row for row, _ in spans]}
        return flat | {k: [e[k] for _, e in spans] for k in ("type", "text", "start", "end")}
    if kind == "boxes":
        lines = [(r["row"], o) for r in found for o in r["objects"]]
        out: dict[str, list[Any]] = {"row": [row for row, _ in lines]}
        out |= {key: [o[key] for _, o in lines] for key in ("label", "score")}
        return out | {
            key: [o["box"][k] for _, o in lines] for k, key in enumerate(("x0", "y0", "x1", "y1"))
        }
    out = {"row": list(rows)}
    if kind == "points":
        for name in _point_names(values["points"], classes):
            for key in ("x", "y", "confidence"):
                out[f"{name}_{key}"] = [r["points"][name][key] for r in found]
        return out
    out |= {key: [r[key] for r in found] for key in ("mask", "height", "width")}
    return out | {f"share_{name}": [r["shares"][name] for r in found] for name in classes}


def shares(mask: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Return the share of each class in the judged pixels of a mask.

    >>> shares(np.array([[0, 1], [1, 255]], dtype=np.uint8), ("sky", "road"))
    {'sky': 0.333333, 'road': 0.666667}
    """
    counts = np.bincount(mask.reshape(-1), minlength=256)[: len(classes)]
    total = max(int((mask != IGNORED).sum()), 1)
    return {name: round(int(n) / total, 6) for name, n in zip(classes, counts, strict=True)}


def file_names(rows: Sequence[str]) -> list[str]:
    """Return a PNG's name for each row, all different.

    >>> file_names(["a/1.jpg", "b/1.jpg", "row 3"])
    ['a-1.png', 'b-1.png', 'row-3.png']
    """
    taken: set[str] = set()
    names = []
    for row in rows:
        path = PurePath(row)
        stem = str(path.with_suffix("")) if re.fullmatch(r"\.\w{2,5}", path.suffix) else row
        name = base = re.sub(r"[^\w.+]+", "-", stem).strip("-.") or "row"
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def brief(record: Mapping[str, Any]) -> str:
    """Return what a terminal shows of one answer."""
    if "entities" in record:
        spans = record["entities"]
        return "  ".join(f"{e['type']} {e['text']!r} ({e['start']}-{e['end']})" for e in spans) or (
            "no entity"
        )
    if "objects" in record:
        found = record["objects"]
        shown = ", ".join(f"{o['label']} {o['score']:.2f}" for o in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        return f"{len(found)} object{'s' * (len(found) != 1)}" + (
            f": {shown}{more}" if found else ""
        )
    if "points" in record:
        places = [
            f"{n} ({p['x']:.1f}, {p['y']:.1f})" for n, p in list(record["points"].items())[:5]
        ]
        more = f" and {len(record['points']) - 5} more" if len(record["points"]) > 5 else ""
        return "  ".join(places) + more
    order = sorted(record["shares"].items(), key=lambda s: -s[1])[:5]
    parts = [f"{name} {share:.1%}" for name, share in order if share]
    return f"{record['height']}x{record['width']} pixels: " + ", ".join(parts)


def _objects(values: Mapping[str, np.ndarray], i: int) -> list[dict[str, Any]]:
    return [
        {"label": str(label), "score": round(float(score), 5),
         "box": [round(float(v), DIGITS) for v in box]}
        for label, score, box in zip(
            values["labels"][i], values["scores"][i], values["boxes"][i], strict=True
        )
    ]  # fmt: skip


def _point(found: np.ndarray) -> dict[str, float]:
    x, y, confidence = (float(v) for v in found[:3])
    return {"x": round(x, DIGITS), "y": round(y, DIGITS), "confidence": round(confidence, 5)}


def _point_names(points: np.ndarray, classes: Sequence[str]) -> list[str]:
    if len(classes) == points.shape[1]:
        return list(classes)
    return [f"point{k + 1}" for k in range(points.shape[1])]
