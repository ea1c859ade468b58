"""Evidence of answers that lie on pictures: figures per class, the cost of each row, overlays.

Everything here is in pixels of the prepared picture, in the forms that the metrics compare: masks
(N, H, W), detections (N, D, 6) as x0, y0, x1, y1, score, class, points (N, K, 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from gipi import metrics
from gipi.core.errors import MissingExtra
from gipi.deploy import paint
from gipi.deploy.evaluation import primary_metric
from gipi.deploy.known import WORST, Case, Evidence, Known, Rows
from gipi.metrics.ap import HIT, matches
from gipi.metrics.coco import coco_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.core.schema import Field, Schema
    from gipi.tasks import Task
    from gipi.train.evaluate import Evaluation

SURE = 0.3
"""Detections with at least this score are drawn and counted as said."""

EXACT = "the exact COCO evaluation"
BINNED = (
    "1,000 to 10,000 bins of the score, fewer for more classes; pip install 'gipi[detect]' gives "
    "the exact COCO evaluation"
)


@dataclass(frozen=True)
class Drawn:
    """What is known of the answers.

    facts   entries of the summary; arrays: of arrays.npz
    cost    (N,) what orders the rows, the worst largest
    words   what is said beside each row
    """

    facts: dict[str, Any]
    cost: np.ndarray
    words: list[str]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def judge(
    outputs: Tensor, target: Tensor, weight: Tensor | None, task: Task, schema: Schema
) -> Drawn:
    """Return figures and costs of answers against the truth, by the kind of the target."""
    goal = schema.target
    assert goal is not None
    by_kind = {"mask": _masks, "boxes": _boxes, "keypoints": _points}
    found = by_kind[goal.kind](outputs, target, weight, goal)
    simple = _simplest(outputs, target, goal)
    metric = primary_metric(task, schema)
    if simple is not None and metric is not None:
        state = metric.init("cpu")
        metric.update(state, simple[0], target, weight)
        value = float(metric.compute(state))
        found.facts["baseline"] = {"metric": metric.name, "value": value, "rule": simple[1]}
    found.facts["drawn"] = goal.kind
    return found


def _simplest(outputs: Tensor, target: Tensor, goal: Field) -> tuple[Tensor, str] | None:
    """Return the answers of the simplest rule, and the rule; None where nothing simple answers."""
    if goal.kind == "mask":
        counts = torch.bincount(target[target != paint.IGNORED].long(), minlength=1)
        common = int(counts.argmax())
        name = goal.classes[common] if common < len(goal.classes) else str(common)
        return torch.full_like(target, common), f"calling every pixel '{name}', the commonest class"
    if goal.kind == "keypoints":
        seen = (target[..., 2:] > 0).double()
        mean = (target[..., :2].double() * seen).sum(0) / seen.sum(0).clamp_min(1)
        same = torch.cat([mean, torch.ones_like(mean[:, :1])], 1).expand(len(target), -1, -1)
        return same.to(outputs.dtype), "always answering the mean place of each point of these rows"
    return None


# ---------------------------------------------------------------------------- masks


def _masks(outputs: Tensor, target: Tensor, weight: Tensor | None, goal: Field) -> Drawn:
    width, n = len(goal.classes), len(outputs)
    w = np.ones(n) if weight is None else weight.double().numpy()
    total = np.zeros((width, width))
    both_say, union = np.zeros((n, width)), np.zeros((n, width))
    for i, (said_i, truth_i) in enumerate(zip(outputs, target, strict=True)):
        cells = _confusion(said_i, truth_i, width)
        total += w[i] * cells
        both_say[i] = cells.diagonal()
        union[i] = cells.sum(0) + cells.sum(1) - both_say[i]
    with np.errstate(invalid="ignore", divide="ignore"):
        each = both_say / union  # NaN where neither says the class
    known = ~np.isnan(each)
    labelled = known.any(1)  # not where nobody labelled a pixel: nothing in it can be wrong
    mean = np.where(labelled, np.where(known, each, 0.0).sum(1) / np.maximum(known.sum(1), 1), 1.0)
    table = []
    hits, truth, said = total.diagonal(), total.sum(1), total.sum(0)
    for k, name in enumerate(goal.classes):
        both = truth[k] + said[k] - hits[k]
        table.append(
            {
                "class": name,
                "share": _over(truth[k], total.sum()),
                "iou": _over(hits[k], both),
                "recall": _over(hits[k], truth[k]),
                "precision": _over(hits[k], said[k]),
            }
        )
    words = []
    for scores, seen, m in zip(each, known, mean, strict=True):
        if not seen.any():
            words.append("no pixel is labelled in it")
            continue
        order = [k for k in np.argsort(np.where(seen, scores, np.inf)) if seen[k]][:3]
        weakest = ", ".join(f"{goal.classes[k]} {scores[k]:.0%}" for k in order)
        words.append(f"mean IoU {m:.0%} over the classes in it; weakest: {weakest}")
    facts = {"classes": list(goal.classes), "per_class": table, "unit": "pixels"}
    return Drawn(facts, 1 - mean, words, {"confusion": total})


def _confusion(said: Tensor, truth: Tensor, classes: int) -> np.ndarray:
    """Return (K, K) float64 pixels, true class by answered class."""
    t, s = truth.numpy().reshape(-1).astype(np.int64), said.numpy().reshape(-1).astype(np.int64)
    counted = t != paint.IGNORED
    cells = t[counted] * classes + s[counted]
    return np.bincount(cells, minlength=classes * classes).astype(np.float64).reshape(classes, -1)


# ---------------------------------------------------------------------------- boxes


def _boxes(outputs: Tensor, target: Tensor, weight: Tensor | None, goal: Field) -> Drawn:
    found = matches(outputs, target)
    sure = (found.scores >= SURE) & (found.classes >= 0)
    hit = (found.outcome[..., 0] == HIT) & sure
    wrong = sure & (found.outcome[..., 0] == 0)
    real = (target[..., 4] >= 0) & (target[..., 5] == 0)
    truths, hits, false = (x.sum(1).numpy() for x in (real, hit, wrong))
    missed = truths - hits
    exact = exact_scores(outputs, target, len(goal.classes))
    table = []
    for k, name in enumerate(goal.classes):
        n = int((real & (target[..., 4] == k)).sum())
        right = int((hit & (found.classes == k)).sum())
        bad = int((wrong & (found.classes == k)).sum())
        score = _class_ap(outputs, target, weight, k, len(goal.classes), exact)
        table.append(
            {
                "class": name, "rows": n, "ap50": score,
                "recall": _over(right, n), "precision": _over(right, right + bad),
            }
        )  # fmt: skip
    words = [
        f"{h} of {n} object{'s' * (n != 1)} found, {m} missed, {f} false alarm{'s' * (f != 1)}"
        for h, n, m, f in zip(*(x.tolist() for x in (hits, truths, missed, false)), strict=True)
    ]
    how = EXACT if exact is not None else BINNED
    facts = {"classes": list(goal.classes), "per_class": table, "unit": "boxes", "ap_from": how,
             "sure": SURE}  # fmt: skip
    if exact is not None:
        facts["exact"] = exact["scores"]
    return Drawn(facts, missed + 0.5 * false, words)


def exact_scores(outputs: Tensor, target: Tensor, classes: int) -> dict[str, Any] | None:
    """Return {"scores", "per_class50"} of the COCO package; None where it is not installed."""
    rows = [row[row[:, 5] >= 0] for row in outputs.double().numpy()]
    try:
        found = coco_scores(
            [r[:, :4] for r in rows], [r[:, 4] for r in rows],
            [r[:, 5].astype(np.int64) for r in rows],
            target=target.double().numpy(), classes=classes,
        )  # fmt: skip
    except MissingExtra:
        return None
    named = {k: found.scores[k] for k in ("ap", "ap50", "ap75", "ar100") if k in found.scores}
    return {"scores": named, "per_class50": found.per_class50.tolist()}


def final_metrics(
    judged: Evaluation, task: Task, schema: Schema
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics of an evaluation, and how the AP of boxes was measured.

    Boxes are scored by the COCO package where it is installed; the metrics of the run count scores
    in bins. Every other metric stays as it is.
    """
    goal = schema.target
    boxes = goal is not None and goal.kind == "boxes" and task.decode_original is not None
    if not boxes or judged.outputs is None or judged.target is None:
        return judged.metrics, {}
    exact = exact_scores(judged.outputs, judged.target, len(schema.classes))
    if exact is None:
        return judged.metrics, {"ap_from": BINNED}
    return {**judged.metrics, **exact["scores"]}, {"ap_from": EXACT}


def _class_ap(
    outputs: Tensor, target: Tensor, weight: Tensor | None, k: int, classes: int,
    exact: dict[str, Any] | None,
) -> float | None:  # fmt: skip
    """Return the AP50 of one class: the others are taken out of answers and truth."""
    if exact is not None:
        value = float(exact["per_class50"][k])
        return value if np.isfinite(value) else None
    said, truth = outputs.clone(), target.clone()
    said[..., 5][said[..., 5] != k] = -1
    truth[..., 4][truth[..., 4] != k] = -1
    metric = metrics.build("ap50", classes=classes)
    state = metric.init("cpu")
    metric.update(state, said, truth, weight)
    value = float(metric.compute(state))
    return value if np.isfinite(value) else None


# ---------------------------------------------------------------------------- points


def _points(outputs: Tensor, target: Tensor, weight: Tensor | None, goal: Field) -> Drawn:  # noqa: ARG001
    seen = (target[..., 2] > 0).numpy()
    apart = (outputs[..., :2].double() - target[..., :2].double()).norm(dim=2).numpy()
    apart = np.where(seen, apart, np.nan)
    counted = np.maximum(seen.sum(1), 1)
    mean = np.nansum(apart, 1) / counted
    names = goal.classes or tuple(f"point {k + 1}" for k in range(seen.shape[1]))
    table = []
    for k, name in enumerate(names):
        column = apart[:, k][seen[:, k]]
        table.append(
            {
                "class": name, "rows": len(column),
                "error": float(column.mean()) if len(column) else None,
                "error90": float(np.percentile(column, 90)) if len(column) else None,
            }
        )  # fmt: skip
    words = []
    for row, m in zip(apart, mean, strict=True):
        if np.isnan(row).all():
            words.append("no point is marked in it")
            continue
        k = int(np.nanargmax(row))
        words.append(f"mean error {m:.1f} px; largest: {names[k]} {row[k]:.1f} px")
    return Drawn({"classes": list(names), "per_class": table, "unit": "points"}, mean, words)


def _over(above: float, below: float) -> float | None:
    return float(above / below) if below else None


# ---------------------------------------------------------------------------- overlays


def overlays(
    order: Sequence[int],
    outputs: Tensor,
    target: Tensor,
    ids: np.ndarray,
    schema: Schema,
    rows: Rows,
) -> tuple[list[bytes], list[dict[str, str]]]:
    """Return one PNG for each place in `order`, and the legend: class and colour, of what is seen.

    Masks: truth left, answer right. Boxes: truth white, answers coloured. Points: rings and dots.
    """
    goal = schema.target
    image = next(f for f in schema.inputs if f.kind == "image")
    assert goal is not None
    size = (image.shape[2], image.shape[1])
    palette = paint.colours(max(len(goal.classes), 1))
    pictures, used = [], set[int]()
    for i in order:
        row = int(ids[i])
        picture = prepared(rows.picture(row), rows.placement(np.array([row]))[0], size)
        said, truth = outputs[i].numpy(), target[i].numpy()
        if goal.kind == "mask":
            used |= set(np.unique(truth).tolist()) | set(np.unique(said).tolist())
            drawn = paint.beside(
                paint.tinted(picture, truth, palette), paint.tinted(picture, said, palette)
            )
        elif goal.kind == "boxes":
            sure = [(r[:4].tolist(), int(r[5]), float(r[4])) for r in said
                    if r[5] >= 0 and r[4] >= SURE]  # fmt: skip
            real = [(r[:4].tolist(), int(r[4])) for r in truth if r[4] >= 0]
            used |= {k for _, k, _ in sure} | {k for _, k in real}
            drawn = paint.boxed(
                picture, truth=real, said=sure, classes=goal.classes, palette=palette
            )
        else:
            drawn = paint.pointed(picture, truth=truth, said=said)
        pictures.append(paint.png(drawn))
    legend = [
        {"class": goal.classes[k], "colour": paint.hex_colour(palette[k])}
        for k in sorted(used) if k < len(goal.classes)
    ]  # fmt: skip
    return pictures, legend


def prepared(picture: np.ndarray, placement: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an original picture as the model saw it: moved by `placement` into `size` (W, H)."""
    array = picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] < 3 else picture
    image = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    back = np.linalg.inv(placement)
    shrink = max(1, int(min(back[0, 0], back[1, 1])))
    if shrink > 1:  # an affine sampling of a large picture would pass over most of its pixels
        image = image.reduce(shrink)
        back[:2] /= shrink
    moved = image.transform(
        size, Image.Transform.AFFINE, tuple(back[:2].reshape(-1).tolist()),
        Image.Resampling.BILINEAR,
    )  # fmt: skip
    return np.asarray(moved)


# ---------------------------------------------------------------------------- evidence


def _fits(case: Case) -> bool:
    goal = case.schema.target
    return case.task.decode_original is not None and goal is not None and goal.dense


def _evidence(case: Case) -> Known:
    """Return figures, arrays and, with rows, overlays of the worst pictures."""
    judged = case.judged
    if judged.outputs is None or judged.target is None:
        return Known()
    found = judge(judged.outputs, judged.target, judged.weight, case.task, case.schema)
    facts, files = dict(found.facts), dict[str, bytes]()
    if case.shown is not None:
        ids = np.arange(len(found.cost)) if judged.ids is None else judged.ids.numpy()
        order = np.argsort(-np.nan_to_num(found.cost, nan=np.inf), kind="stable")[:WORST]
        pictures, facts["legend"] = overlays(
            order.tolist(), judged.outputs, judged.target, ids, case.schema, case.shown
        )
        names = case.shown.row_names(ids[order])
        facts["worst"] = []
        for place, i in enumerate(order.tolist()):
            name = f"worst-{place:02d}.png"
            files[name] = pictures[place]
            row = {"id": int(ids[i]), "name": str(names[place]), "picture": name,
                   "loss": float(found.cost[i]), "words": found.words[i]}  # fmt: skip
            facts["worst"].append(row)
    if "exact" in facts:  # the metrics of the run count scores in bins; this is the last word
        exact, primary = facts["exact"], case.summary["primary"]
        facts["metrics"] = {**case.summary["metrics"], **exact}
        if primary is not None:
            facts["primary"] = {**primary, "value": exact.get(primary["name"], primary["value"])}
    return Known(facts, found.arrays, files)


EVIDENCE = Evidence("answers on pictures", _fits, _evidence)
