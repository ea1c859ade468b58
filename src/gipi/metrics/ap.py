"""Average precision of detections, in a state of fixed size.

Detections are (B, D, 6): x0, y0, x1, y1, score in [0, 1], class, and class -1 where there is none;
targets (B, M, 6): x0, y0, x1, y1, class, crowd, and class -1 in unused rows.

T counts thresholds of IoU, K classes.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.boxes import iou, share_inside
from gipi.core.device import constants
from gipi.metrics.metric import Metric, State, accumulator

if TYPE_CHECKING:
    from torch import Tensor

FEWEST, MOST, CELLS = 1000, 10_000, 2_000_000  # bins of the score: CELLS for all classes and IoUs
RECALLS = 101
THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))

HIT, MISS, UNCOUNTED = 1, 0, -1


def ap50(classes: int = 0) -> Metric:
    """Return the average precision where an IoU of 0.5 is a hit, mean over classes; see `ap`."""
    return _average_precision("ap50", classes, THRESHOLDS[:1])


def ap(classes: int = 0) -> Metric:
    """Return the average precision of detections, mean over ten thresholds of IoU and all classes.

        AP = 1/101 Σ_{r = 0, 0.01, .. 1} max { precision at recall r' : r' >= r }

    averaged over IoU >= 0.50, 0.55 .. 0.95 and over the classes that occur (Lin et al. 2014,
    "Microsoft COCO", arXiv:1405.0312). In each picture detections take, best score first, the box
    of their class with the largest IoU that is still free; those on a crowd do not count.

    Hits and misses are counted in bins of the score (10,000; from 20 classes on fewer, 1,000 at
    least), so that the state has a fixed size and ranks can add theirs: scores in one bin count as
    equal, and equal ones are taken together, where COCO takes them in the order of the pictures.
    Without ties the value differs from that of `gipi.metrics.coco` by less than 0.005 in the
    tests; final evaluations use that one.
    """
    return _average_precision("ap", classes, THRESHOLDS)


def _average_precision(name: str, classes: int, thresholds: tuple[float, ...]) -> Metric:
    width, steps = max(classes, 1), len(thresholds)
    size = min(MOST, max(FEWEST, CELLS // (width * steps)))

    def init(device: torch.device | str) -> State:
        dtype = accumulator(device)
        counts = (width, steps, 2, size)
        return {
            "counts": torch.zeros(counts, dtype=dtype, device=device),
            "boxes": torch.zeros(width, dtype=dtype, device=device),
        }

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        counts, boxes = state["counts"], state["boxes"]
        w = torch.ones(len(outputs), device=outputs.device) if weight is None else weight
        w = w.to(counts.dtype)
        kind = target[..., 4].long()
        real = (kind >= 0) & (target[..., 5] == 0)
        boxes.index_add_(0, kind.clamp_min(0).flatten(), (real * w[:, None]).flatten())
        found = matches(outputs, target)
        outcome = found.outcome[..., :steps].long()
        counted = (outcome != UNCOUNTED) & (found.classes >= 0)[..., None]
        bins = (found.scores * size).long().clamp(0, size - 1)
        place = found.classes.clamp(0, width - 1)[..., None] * steps
        place = place + torch.arange(steps, device=outputs.device)
        index = (place * 2 + outcome.clamp_min(0)) * size + bins[..., None]
        counts.view(-1).index_add_(0, index.flatten(), (counted * w[:, None, None]).flatten())

    def compute(state: State) -> float:
        boxes = state["boxes"].cpu().double()
        known = boxes > 0
        if not known.any():
            return float("nan")
        counts = state["counts"].cpu().double()[known].flip(-1).cumsum(-1)
        misses, hits = counts.unbind(2)
        recall = hits / boxes[known][:, None, None]
        precision = hits / (hits + misses).clamp_min(1e-300)
        ceiling = precision.flip(-1).cummax(-1).values.flip(-1)
        # numpy's last bits, on which it depends whether 3 of 5 boxes reach a recall of 0.6
        at = torch.from_numpy(np.linspace(0, 1, RECALLS)).expand(*recall.shape[:2], -1)
        index = torch.searchsorted(recall.contiguous(), at.contiguous())
        reached = index < size
        values = ceiling.gather(-1, index.clamp_max(size - 1)) * reached
        return float(values.mean())

    return Metric(name, greater_is_better=True, init=init, update=update, compute=compute)


# ---------------------------------------------------------------------------- matching


@dataclass(frozen=True)
class Matches:
    """What became of each detection, best score of each picture first.

    scores   (B, D);  classes (B, D) int64, -1 where there is no detection
    outcome  (B, D, T) int8 for each of `THRESHOLDS`: HIT, MISS or UNCOUNTED (on a crowd)
    """

    scores: Tensor
    classes: Tensor
    outcome: Tensor


@dataclass(frozen=True)
class _Seen:
    """A tensor as it was: the object, and how often it was written to (0 where nobody counts)."""

    tensor: weakref.ref[Tensor]
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Seen:
        return cls(weakref.ref(tensor), _version(tensor))

    def still(self, tensor: Tensor) -> bool:
        return self.tensor() is tensor and self.version == _version(tensor)


def _version(tensor: Tensor) -> int:
    """Tensors of inference mode are not counted; nothing here writes to them twice."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001  torch has no other name


_last: list[tuple[_Seen, _Seen, Matches]] = []


def matches(outputs: Tensor, target: Tensor) -> Matches:
    """Return the outcome of the detections (B, D, 6) against the boxes (B, M, 6).

    The answer for the last pair of tensors is remembered: several metrics, and hundreds of
    resamples of an interval, ask for the same one.
    """
    if _last and _last[0][0].still(outputs) and _last[0][1].still(target):
        return _last[0][2]
    found = _match(outputs.detach(), target)
    _last[:] = [(_Seen.of(outputs), _Seen.of(target), found)]
    return found


def _match(outputs: Tensor, target: Tensor) -> Matches:
    scores = outputs[..., 4].masked_fill(outputs[..., 5] < 0, -1.0)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    outputs = outputs.gather(1, order[..., None].expand_as(outputs))
    kinds = outputs[..., 5].long()
    if outputs.device.type == "cpu":  # elsewhere this would wait for the device
        used = int((kinds >= 0).sum(1).max()) if kinds.numel() else 0
        outputs, kinds = outputs[:, :used], kinds[:, :used]
    target = target.flip(1)  # of equal overlaps the last box is taken, as pycocotools does
    true = target[..., 4].long()
    crowd = target[..., 5] != 0
    same = (kinds[..., None] == true[:, None, :]) & (true >= 0)[:, None, :]
    a, b = outputs[..., :4].float(), target[..., :4].float()
    free = same & ~crowd[:, None, :]
    overlap = torch.where(free, iou(a, b), -1.0)  # (B, D, M)
    inside = torch.where(same & crowd[:, None, :], share_inside(a, b), -1.0)
    steps = constants(THRESHOLDS, outputs.device)
    shape = (*kinds.shape, len(THRESHOLDS))
    outcome = torch.zeros(shape, dtype=torch.int8, device=outputs.device)
    if target.shape[1] and kinds.shape[1]:
        outcome[inside.amax(-1)[..., None] >= steps] = UNCOUNTED
        taken = torch.zeros(len(target), len(THRESHOLDS), target.shape[1], device=target.device)
        for d in range(kinds.shape[1]):  # best score first; all pictures and thresholds at once
            value, place = (overlap[:, d, None, :] - 2 * taken).max(-1)
            hit = value >= steps
            taken.scatter_add_(-1, place[..., None], hit[..., None].to(taken.dtype))
            outcome[:, d][hit] = HIT
    return Matches(outputs[..., 4], kinds, outcome)
