"""Training rows come sorted by their target: each batch tells of one kind only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from gipi.doctor.edits import shuffled
from gipi.doctor.experiment import batches, tensors
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import classes_of
from gipi.doctor.trials import trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts

Z = 6.0
ROWS, NUMBERS = 10_000, 20_000_000
"""Rows that are collected in the order in which they come, and numbers that they may hold."""
BATCHES = 50
PASSES = 2
BLOCKS = 0.9
HARM = 0.1
"""Sorted rows must cost this share of what shuffled ones gain."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect targets that stand beside their like far more often than chance has it."""
    exp = facts.exp
    if exp.declared.get("time_ordered") or facts.kind not in ("classes", "binary", "numbers"):
        return
    if tensors(exp.train) is not None and exp.shuffle:
        return
    if isinstance(exp.train, DataLoader) and isinstance(exp.train.sampler, RandomSampler):
        return
    order = _in_order(facts)
    if order is None:
        return
    y = order[1]
    z, alike, expected = runs(facts, y)
    if z < Z:
        return
    yield Finding(
        "data_not_shuffled",
        f"{alike:.1%} of the training rows follow one of their own kind, {expected:.1%} would by "
        "chance: the rows come sorted by their target",
        "shuffle the training rows anew for every epoch (shuffle=True)",
        evidence={"alike": alike, "expected": expected, "z": z},
        strength=z / Z,
        repairs=(Repair("shuffle", shuffled, proof="not worse", edit="shuffle=True"),),
    )


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train for two short passes in the order given and in random order, on the same rows."""
    order = _in_order(facts)
    if order is None:
        return None
    y = order[1]
    size = min(facts.exp.batch_size if tensors(facts.exp.train) is not None else
               len(facts.batch[1]), len(y))  # fmt: skip
    rows = min(len(y), BATCHES * size)
    steps = PASSES * -(-rows // size)
    harmed, numbers = _compared(facts, order, rows, size, PASSES)
    # What has learned nothing in any order yet cannot tell them apart: it is given twice the time.
    if harmed is None and facts.passes + 4 * steps + 4 <= facts.allowed:
        harmed, numbers = _compared(facts, order, rows, size, 2 * PASSES)
    evidence = {**finding.evidence, **numbers}
    if harmed:
        return finding.but(confirmed=True, evidence=evidence)
    if classes_of(facts, y) is not None and finding.evidence["alike"] > BLOCKS:
        return finding.but(severity="hint", evidence=evidence)
    return None


def _compared(
    facts: Facts, order: tuple[Tensor, Tensor], rows: int, size: int, passes: int
) -> tuple[bool | None, dict[str, float]]:
    """Return whether sorted rows do harm, and both losses; None where neither order learned."""
    X, y = order
    chosen = torch.arange(rows, device=y.device) * len(y) // rows
    mixed = chosen[torch.randperm(rows, generator=torch.Generator().manual_seed(1)).to(y.device)]
    steps = passes * -(-rows // size)
    given = [(X[c], y[c]) for c in chosen.split(size)] * passes
    other = [(X[c], y[c]) for c in mixed.split(size)] * passes
    seen = (X[chosen], y[chosen])
    as_is = trial(facts, steps, on=given, rows=seen)
    better = trial(facts, steps, on=other, rows=seen)
    numbers = {"loss_sorted": as_is.train, "loss_shuffled": better.train}
    learned, harmed = [], []
    for split in ("train", "val"):
        end, other_end = getattr(as_is, split), getattr(better, split)
        if math.isnan(other_end) and split == "val":
            continue
        gain = better.gain(split)
        worse = end - other_end if math.isfinite(end) else math.inf
        learned.append(gain > 0.02 * abs(better.first))
        harmed.append(learned[-1] and worse > HARM * gain)
    if harmed and all(harmed):
        return True, numbers
    return (False if all(learned) else None), numbers


def runs(facts: Facts, y: Tensor) -> tuple[float, float, float]:
    """Return how far equal neighbours exceed chance, their share and the share by chance.

    Numbers are cut at their median first (Wald and Wolfowitz 1940).
    """
    y = y.detach().cpu()
    kind = classes_of(facts, y)
    if kind is None:
        flat = y.reshape(len(y), -1)[:, 0].double()
        kind = (flat > flat.median()).long()
    n = len(kind)
    if n < 20:
        return 0.0, 0.0, 0.0
    _, inverse, counts = torch.unique(kind, return_inverse=True, return_counts=True)
    share = counts.double() / n
    expected = float(((counts * (counts - 1)).double() / (n * (n - 1))).sum())
    alike = float((inverse[1:] == inverse[:-1]).double().mean())
    # Neighbouring pairs overlap: their covariance vanishes for equal classes and is small else.
    variance = expected * (1 - expected) + 2 * (float(share.pow(3).sum()) - expected**2)
    return (alike - expected) / math.sqrt(max(variance, 1e-12) / (n - 1)), alike, expected


def _in_order(facts: Facts) -> tuple[Tensor, Tensor] | None:
    """Return training rows in the order in which the first epoch brings them."""
    key = "rows in order"
    if key in facts.notes:
        found: tuple[Tensor, Tensor] | None = facts.notes[key]
        return found
    facts.notes[key] = None
    xs: list[Any] = []
    ys: list[Tensor] = []
    seen = numbers = 0
    pair = tensors(facts.exp.train)
    if pair is not None and facts.X is not None and facts.y is not None:
        facts.notes[key] = (facts.X, facts.y)
        return facts.X, facts.y
    for xb, yb in batches(facts.exp, 0):
        if not isinstance(xb, Tensor) or not isinstance(yb, Tensor):
            return None
        if xs and xb.shape[1:] != xs[0].shape[1:]:
            return None
        xs.append(xb)
        ys.append(yb)
        seen, numbers = seen + len(yb), numbers + xb.numel()
        if seen >= ROWS or numbers >= NUMBERS:
            break
    if not xs:
        return None
    facts.notes[key] = torch.cat(xs), torch.cat(ys)
    return torch.cat(xs), torch.cat(ys)


RULE = Rule(
    code="data_not_shuffled",
    title="training rows come sorted",
    looks="the loss falls within a block of like rows and jumps where the next one begins; the net "
    "answers with the kind that it saw last",
    why="a gradient step is right where a batch stands for all rows. A batch of one kind pulls "
    "every weight towards that kind, and the next block undoes it",
    do="shuffle the rows anew for every epoch; leave time series alone and say time_ordered",
    source="Bottou 2012, Stochastic gradient descent tricks; Wald and Wolfowitz 1940 (runs)",
    before=before,
    confirm=confirm,
    passes=2 * PASSES * BATCHES + 6,
    causes=("oscillating_loss", "plateau", "underfit", "overfit", "lr_too_high", "lr_too_low",
            "bn_stats_mismatch", "class_imbalance", "catastrophic_forgetting", "dead_relu"),
)  # fmt: skip
