"""The audit of annotated pictures: what is drawn on them, and which rows cannot be used and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data import dense
from gipi.data.audit_text import counted, listed
from gipi.data.faults import called
from gipi.data.findings import Finding

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.options import DataOptions
    from gipi.data.source import Source

SHOWN = 5
TINY = 2.0  # pixels of a side below which a box is hardly one
_KINDS = (  # words of a fault, its code, what it is
    ("cannot be decoded", "broken", "with a picture or mask that cannot be decoded"),
    ("no annotation", "no-annotation", "without an annotation"),
    ("has no mask", "no-annotation", "without a mask"),
    ("all ", "no-keypoints", "with every keypoint missing"),
    ("labels of no class", "unknown-class", "whose mask has labels of no class"),
    ("unknown class", "unknown-class", "with a box or shape of an unknown class"),
    ("colour", "unknown-class", "with colours of no class"),
    ("inverted", "inverted", "with an inverted box"),
    ("no area", "no-area", "with a box without area"),
    ("outside", "outside", "with a box or keypoint outside its picture"),
    ("pixels, the picture", "size", "whose annotation has another size than the picture"),
)


def drawn_findings(
    source: Source, schema: Schema, options: DataOptions
) -> tuple[list[Finding], dict[str, int]]:
    """Return findings on masks, boxes and keypoints, and by class the rows that show it."""
    try:
        found = dense.view(source, schema, options)
    except DataError as error:
        return [Finding("unusable", "error", error.found, error.do)], {}
    if found is None:
        return [], {}
    out = _faults(found.survey.faults, source)
    classes: dict[str, int] = {}
    if found.drawn.kind != "keypoints":
        classes = dict(
            zip(found.drawn.classes, found.presence.sum(0).astype(int).tolist(), strict=True)
        )
    if found.drawn.kind == "boxes":
        out += _boxes(found, source)
    if found.drawn.kind == "keypoints":
        out += _missing_points(found)
    out += [Finding("decided", "note", note) for note in found.notes]
    return out, classes


def _faults(faults: dict[int, str], source: Source) -> list[Finding]:
    groups: dict[tuple[str, str], list[int]] = {}
    for row in sorted(faults):
        kind = next(((c, w) for words, c, w in _KINDS if words in faults[row]), None)
        groups.setdefault(kind or ("unusable-row", "that cannot be used"), []).append(row)
    out = []
    for (code, words), rows in groups.items():
        names = tuple(f"{called(source, r)}: {faults[r]}" for r in rows[:SHOWN])
        out.append(
            Finding(
                code,
                "error",
                f"{counted(len(rows), 'row')} {words}: {listed(names, len(rows))}",
                "correct or remove them; bad_rows=skip leaves them out",
                rows=tuple(source.row_name(r) for r in rows),
                value=float(len(rows)),
            )
        )
    return out


def _boxes(found: dense.View, source: Source) -> list[Finding]:
    tiny: list[str] = []
    cut = empty = 0
    for row, item in enumerate(found.drawn.items):
        if item is None or row in found.survey.faults:
            continue
        height, width = found.survey.sizes[row].tolist()
        sides = np.minimum(item[:, 2] - item[:, 0], item[:, 3] - item[:, 1])
        if len(item) and sides.min() < TINY:
            tiny.append(source.row_name(row))
        cut += int(((item[:, :2] < 0) | (item[:, 2:4] > [width, height])).any(1).sum())
        empty += not len(item)
    out = []
    if tiny:
        shown = listed(tuple(tiny[:SHOWN]), len(tiny))
        out.append(
            Finding(
                "tiny-box",
                "warning",
                f"{counted(len(tiny), 'row')} with a box under {TINY:g} pixels: {shown}",
                "look at them: such boxes are often slips of the mouse",
                rows=tuple(tiny),
            )
        )
    if cut:
        out.append(
            Finding(
                "overhang",
                "note",
                f"boxes that overhang their picture a little: {cut:,}",
                "they are cut at its edge",
            )
        )
    if empty:
        out.append(Finding("empty", "note", f"{counted(empty, 'picture')} of nothing (no box)"))
    return out


def _missing_points(found: dense.View) -> list[Finding]:
    good = [i for i in range(len(found.drawn)) if i not in found.survey.faults]
    if not good:
        return []
    share = np.mean([found.drawn.items[i][:, 2] == 0 for i in good], axis=0)
    lost = [f"{n} ({s:.0%})" for n, s in zip(found.drawn.classes, share, strict=True) if s > 0]
    if not lost:
        return []
    return [
        Finding(
            "missing-keypoints",
            "note",
            f"keypoints that some rows lack: {listed(tuple(lost[:SHOWN]), len(lost))}",
        )
    ]
