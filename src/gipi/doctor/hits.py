"""Which rows a net recognises, class by class, and whether one net recognises clearly more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.experiment import outputs
from gipi.doctor.sheet import classes_of, origin

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

GAIN = 0.04
"""Mean recall that must be won."""


@dataclass(frozen=True)
class Hits:
    """Rows of a split: the class of each, and whether it was recognised."""

    split: str
    label: Tensor
    hit: Tensor


def hits_of(
    facts: Facts, exp: Experiment, *, adjusted: bool = False, only: Any = None
) -> list[Hits]:
    """Return which rows of validation, then of training, are recognised.

    adjusted  the frequency of the classes in training is taken out of the answers
    only      other rows that are asked instead
    """
    counts, found = counts_of(facts), list[Hits]()
    for split in ("val", "train") if only is None else ("left out",):
        data = getattr(origin(facts), split) if only is None else only
        if data is None or counts is None or not isinstance(data[1], Tensor):
            continue
        X, y = data
        label = classes_of(facts, y)
        if label is None:
            return []
        with torch.random.fork_rng(devices=[]):
            told = answers_of(outputs(exp, X), y, facts, counts if adjusted else None)
        if told is None or told.shape != label.shape:
            return []
        found.append(Hits(split, label.cpu(), (told == label).cpu().double()))
    return found


def joined(parts: list[Hits]) -> Hits:
    """Return the rows of several splits as those of one."""
    label, hit = torch.cat([p.label for p in parts]), torch.cat([p.hit for p in parts])
    return Hits(parts[0].split, label, hit)


def raised(old: list[Hits], new: list[Hits], facts: Facts) -> dict[str, float] | None:
    """Return the mean recalls and their error where the new one is clearly better, else None.

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
        classes = [c for c in counts[0].tolist() if bool((label == c).any())]
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
    """Return the classes of the training rows and how many rows each has."""
    y = origin(facts).y
    if y is None:
        return None
    label = classes_of(facts, y.detach().cpu())
    if label is None:
        return None
    ids, number = torch.unique(label[label >= 0], return_counts=True)
    return (ids, number.double()) if 2 <= len(ids) <= 1000 else None


def answers_of(
    said: Any, y: Tensor, facts: Facts, counts: tuple[Tensor, Tensor] | None
) -> Tensor | None:
    """Return the class that outputs stand for: the largest, or above even odds.

    counts  classes and their rows, whose frequency is taken out; None: the answers as they are
    """
    if not isinstance(said, Tensor) or not said.is_floating_point():
        return None
    if y.is_floating_point() or (said.ndim == y.ndim and said.shape == y.shape):
        flat = said.reshape(len(said), -1)
        if flat.shape[1] != 1:
            return None
        middle = 0.5 if facts.loss.of_probabilities else 0.0
        if counts is not None:
            share = float(counts[1][-1] / counts[1].sum())
            middle = share if facts.loss.of_probabilities else math.log(share / (1 - share))
        return (flat[:, 0] > middle).long()
    if said.ndim != 2:
        return None
    if counts is not None and int(counts[0].max()) < said.shape[1]:
        shift = torch.full_like(said[0], torch.inf)
        shift[counts[0].to(said.device)] = counts[1].log().to(said)
        said = said - shift
    largest: Tensor = said.argmax(1)
    return largest
