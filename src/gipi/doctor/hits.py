"""Which rows a net recognises, class by class, and whether one net recognises clearly more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.experiment import outputs
from gipi.doctor.labels import answers_of, labels_of, tags_of
from gipi.doctor.sheet import origin

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

GAIN = 0.04
"""Mean recall that must be won."""


@dataclass(frozen=True)
class Hits:
    """Rows of a split: the class of each, and whether it was recognised.

    Of a row that has a class at every place: a row of its own for every class that it has, and the
    share of its places that was recognised. Places of a row are no trials of their own.
    """

    split: str
    label: Tensor
    hit: Tensor


def hits_of(
    facts: Facts, exp: Experiment, *, adjusted: bool = False, only: Any = None
) -> list[Hits]:
    """Return which rows of validation, then of training, are recognised.

    adjusted  the frequency of the classes in training is taken out of the answers; where outputs
              need not be odds, by the place to cut that tells the classes of training rows best
    only      other rows that are asked instead
    """
    counts, found = counts_of(facts), list[Hits]()
    cut = _cut(facts, exp) if adjusted and counts is not None else None
    for split in ("val", "train") if only is None else ("left out",):
        data = getattr(origin(facts), split) if only is None else only
        if data is None or counts is None or not isinstance(data[1], Tensor):
            continue
        X, y = data
        label = labels_of(facts, y)
        if label is None:
            return []
        with torch.random.fork_rng(devices=[]):
            said = outputs(exp, X)
            told = answers_of(said, y, facts, counts if adjusted else None, cut=cut)
        if told is None or told.shape != label.shape:
            return []
        found.append(_by_rows(split, label.cpu(), (told == label).cpu().double()))
    return found


def _by_rows(split: str, label: Tensor, hit: Tensor) -> Hits:
    if label.ndim == 1:
        return Hits(split, label, hit)
    labels, hits = list[Tensor](), list[Tensor]()
    for kind in torch.unique(label[label >= 0]):
        there = (label == kind).double()
        has = there.sum(1) > 0
        labels.append(kind.expand(int(has.sum())))
        hits.append((hit * there).sum(1)[has] / there.sum(1)[has])
    return Hits(split, torch.cat(labels), torch.cat(hits))


def _cut(facts: Facts, exp: Experiment) -> float | None:
    """Return where to cut a single number that is no odds, so that both classes are told alike."""
    if facts.loss.name in ("bce", "bce_logits", "mse") or tags_of(facts):
        return None
    data = origin(facts).train
    label = labels_of(facts, data[1]) if data is not None else None
    if data is None or label is None or label.ndim > 1:
        return None
    with torch.random.fork_rng(devices=[]):
        said = outputs(exp, data[0])
    if not isinstance(said, Tensor) or said.numel() != len(label):
        return None
    said, order = said.reshape(-1).cpu().double().sort()
    yes = label.cpu()[order].double()
    told = (1 - yes).cumsum(0) / (1 - yes).sum() - yes.cumsum(0) / yes.sum()
    return float(said[told.argmax()])


def joined(parts: list[Hits]) -> Hits:
    """Return the rows of several splits as those of one."""
    label, hit = torch.cat([p.label for p in parts]), torch.cat([p.hit for p in parts])
    return Hits(parts[0].split, label, hit)


def raised(
    old: list[Hits], new: list[Hits], facts: Facts, *, kinds: tuple[int, ...] = ()
) -> dict[str, float] | None:
    """Return the mean recalls and their error where the new one is clearly better, else None.

    kinds  classes whose recalls are asked; none: all

    The same rows are answered both times: the error is that of the differences. Where validation
    holds too few rare rows to tell, those of training are asked as well.
    """
    counts = counts_of(facts)
    if counts is None or len(old) != len(new):
        return None
    for number in range(1, len(old) + 1):
        label = torch.cat([h.label for h in old[:number]])
        hits = [torch.cat([h.hit for h in some[:number]]) for some in (old, new)]
        means, gain, var = [0.0, 0.0], 0.0, 0.0
        asked = kinds or counts[0].tolist()
        classes = [c for c in asked if bool((label == c).any())]
        for kind in classes:
            rows = label == kind
            change = (hits[1] - hits[0])[rows]
            gain += float(change.mean())
            # Half a row more of spread: that all of few rows changed alike is no certainty.
            var += (float((change - change.mean()).square().sum()) + 0.5) / len(change) ** 2
            means = [m + float(h[rows].mean()) for m, h in zip(means, hits, strict=True)]
        n = max(1, len(classes))
        se = math.sqrt(var) / n
        if gain / n > max(GAIN, 2 * se):
            return {"mean_recall_as_is": means[0] / n, "mean_recall_weighted": means[1] / n,
                    "se": se}  # fmt: skip
    return None


def at_most(hits: int, rows: int, share: float) -> float:
    """Return the probability of at most so many hits: Σ_{i ≤ hits} C(n, i) pⁱ (1 − p)ⁿ⁻ⁱ."""
    whole = math.lgamma(rows + 1)
    return sum(
        math.exp(whole - math.lgamma(i + 1) - math.lgamma(rows - i + 1)
                 + i * math.log(share) + (rows - i) * math.log1p(-share))
        for i in range(hits + 1)
    )  # fmt: skip


def counts_of(facts: Facts) -> tuple[Tensor, Tensor] | None:
    """Return the classes of the training rows and how many answers each has."""
    y = origin(facts).y
    if y is None:
        return None
    label = labels_of(facts, y.detach().cpu())
    if label is None:
        return None
    ids, number = torch.unique(label[label >= 0], return_counts=True)
    return (ids, number.double()) if 2 <= len(ids) <= 1000 else None
