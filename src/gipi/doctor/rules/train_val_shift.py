"""Validation rows come from elsewhere than training rows, and the net answers worse there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.arranged import by_a_clock, in_time_order
from gipi.doctor.drift import REFUTED, domain, domain_within, mismatch
from gipi.doctor.edits import at_hand, replaced, stored
from gipi.doctor.experiment import outputs, tensors
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.named import called
from gipi.doctor.regain import regained
from gipi.doctor.rule import Rule
from gipi.doctor.sequences import is_asked_for_next
from gipi.doctor.sheet import classes_of, columns, cpu, linear_answer, origin, sheet
from gipi.doctor.told import told_of_val
from gipi.doctor.trials import trial
from gipi.doctor.twins import training_copies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

AUC, FAR = 0.7, 0.9
LEAST = 50
DROP, PART = 0.05, 0.1
"""The explained share must fall by this, and by this part of itself: little, for splits that can be
told apart beyond chance are no random ones."""
WITHIN = 0.5
STEPS = 80
UNSEEN, APART = 0.01, 0.5
"""Share of validation rows of unknown classes; total variation of the shares of classes."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect splits that a simple classifier tells apart, and classes that one of them lacks."""
    exp = facts.exp
    if facts.val is None or facts.train is None or exp.declared.get("time_ordered"):
        return
    apart = _classes_apart(facts)
    if apart is not None:
        what, classes, share = apart
        yield Finding(
            "train_val_shift",
            what,
            "divide the rows anew, with every class in both splits",
            where=classes,
            evidence={"share": share},
            confirmed=True,
            strength=share / UNSEEN,
            repairs=(RESPLIT,),
        )
        return
    other = mismatch(facts) is not None or regained(facts) is not None
    if other and REFUTED not in origin(facts).notes:
        return
    told = domain(facts)
    if told is None or told[0] < AUC or not told[1]:
        return
    where, numbers = _columns_apart(facts)
    yield Finding(
        "train_val_shift",
        f"a simple classifier tells validation rows from training rows with an area under the "
        f"curve of {told[0]:.2f} (0.5 where they come from the same place)"
        + (f"; most apart: {', '.join(where[:4])}" if where else ""),
        "divide all rows anew at random (by groups, by classes), or judge by rows that are like "
        "those in use",
        where=tuple(where),
        evidence={"auc": told[0], **numbers},
        strength=(told[0] - 0.5) / (AUC - 0.5),
        repairs=(RESPLIT,),
    )


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Compare answers to training rows that were left out with answers to validation rows.

    First those of a ridge regression, then those of the net after a short training.
    """
    apart = finding.evidence.get("auc", 0.0) > FAR
    text = not apart and facts.inputs == "tokens" and is_asked_for_next(facts)
    if text and _goes_on_changing(facts, finding.evidence["auc"]):
        return None
    train, val = sheet(facts), sheet(facts, "val")
    hurt, numbers = False, dict[str, float]()
    if train is not None and val is not None and len(val.F) >= LEAST:
        own = linear_answer(facts).score
        told, Y = told_of_val(facts), val.Y.double()
        base = (Y - train.Y.double().mean(0)).square().sum().clamp_min(1e-12)
        there = float(1 - (Y - told).square().sum() / base)
        numbers = {"explained_train": own, "explained_val": there}
        hurt = own - there > max(DROP, PART * own) and own > 0.1
    if not hurt:
        ends = _net(facts)
        if ends is not None:
            first, left_out, on_val = ends
            numbers |= {"loss_left_out": left_out, "loss_val": on_val}
            gain = first - left_out
            hurt = gain > 0.05 * abs(first) and on_val - left_out > PART * gain
    evidence = {**finding.evidence, **numbers}
    # A training row that is left out has its neighbours in training; no validation row has.
    hurt = hurt and not training_copies(origin(facts)).windows
    # Parts of one text, divided at a place of it, differ in what they speak of: of shuffled rows
    # nobody can say whether they are that, or of another source.
    known = not text and not facts.exp.declared.get("groups")
    ordered = (hurt or apart) and in_time_order(facts)
    if hurt and known and not ordered:
        return finding.but(confirmed=True, evidence=evidence)
    # Neighbours are alike, and no clock is among the columns: nobody can say whether it is the
    # time, but that validation lies beyond is worth to be known.
    if ordered and by_a_clock(facts):
        return None
    return finding.but(severity="hint", evidence=evidence) if hurt or apart else None


def _goes_on_changing(facts: Facts, area: float) -> bool:
    """Whether training rows change as they go on, half as much as validation differs from them.

    Of what moves evenly, four fifths for training, the halves of those are 0.8 as far from each
    other as validation is from all of them.
    """
    within = domain_within(facts)
    return within is not None and within[1] and within[0] - 0.5 >= WITHIN * (area - 0.5)


def resplit(exp: Experiment) -> str:
    """Put all rows together and divide them anew at random, in the same sizes."""
    train, val = stored(exp.train), stored(exp.val)
    if train is None or val is None:
        message = "rows of a stream are divided elsewhere"
        raise CannotRepair(message)
    if train[0].shape[1:] != val[0].shape[1:] or exp.declared.get("groups"):
        message = "the rows cannot be put together"
        raise CannotRepair(message)
    X, y = torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]])
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(exp.seed))
    n = len(train[0])
    exp.train = replaced(exp.train, X[order[:n]], y[order[:n]])
    exp.val = replaced(exp.val, X[order[n:]], y[order[n:]])
    return f"divided {len(X)} rows anew at random: {n} for training, {len(X) - n} for validation"


RESPLIT = Repair(
    "divide anew", resplit, mode="ask", proof="exact",
    edit="train, val = train_test_split(rows, stratify=y, shuffle=True)",
)  # fmt: skip


def _classes_apart(facts: Facts) -> tuple[str, tuple[str, ...], float] | None:
    """Return what is wrong with the classes of validation, which, and the share of rows; or None.

    Classes that training has not, or shares that have little to do with those of training, unless
    validation was given all classes alike on purpose.
    """
    if facts.val is None or facts.y is None or not isinstance(facts.val[1], Tensor):
        return None
    pair = at_hand(facts.exp.train)
    y = pair[1] if pair is not None and pair[1].ndim == facts.y.ndim else facts.y
    a, b = classes_of(facts, cpu(y)), classes_of(facts, cpu(facts.val[1]))
    if a is None or b is None:
        return None
    a, b = a[a >= 0], b[b >= 0]
    old = tensors(facts.exp.declared.get("old_task"))  # what is judged is that it is not forgotten
    was = classes_of(facts, cpu(old[1])) if old is not None else None
    if was is not None and bool(torch.isin(b, torch.cat([a, was])).all()):
        return None
    new = ~torch.isin(b, a)
    count = int(new.sum())
    # Classes that came once say how many were never met (Good 1953).
    alone = float((torch.unique(a, return_counts=True)[1] == 1).sum()) / max(len(a), 1)
    if count >= max(3, UNSEEN * len(b), 3 * alone * len(b)) and len(a) >= LEAST:
        where = tuple(f"class {int(c)}" for c in torch.unique(b[new])[:6])
        what = f"{count} validation rows ({count / len(b):.0%}) are of classes that no training row"
        return f"{what} has: {', '.join(where)}", where, count / len(b)
    if len(b) < LEAST or len(a) < LEAST:
        return None
    ids = torch.unique(torch.cat([a, b]))
    p, q = (_shares(x, ids) for x in (a, b))
    apart = float((p - q).abs().sum() / 2)
    if apart <= APART or float(q.max()) < 1.5 * float(q.min()) or apart <= 2 * _by_chance(a, b):
        return None
    worst = (p - q).abs().argsort(descending=True)[:3].tolist()
    where = tuple(f"class {int(ids[i])}" for i in worst)
    shares = ", ".join(f"{w}: {float(p[i]):.0%} and {float(q[i]):.0%}"
                       for w, i in zip(where, worst, strict=True))  # fmt: skip
    return f"classes have other shares in training and validation ({shares})", where, apart


def _by_chance(a: Tensor, b: Tensor) -> float:
    """Return how far the shares of classes are apart where the rows are divided at random."""
    both = torch.cat([a, b])
    order = torch.randperm(len(both), generator=torch.Generator().manual_seed(0))
    ids = torch.unique(both)
    p, q = (_shares(x, ids) for x in (both[order[: len(a)]], both[order[len(a) :]]))
    return float((p - q).abs().sum() / 2)


def _shares(label: Tensor, ids: Tensor) -> Tensor:
    """Return the share of rows of every class, classes ascending."""
    counts = torch.bincount(torch.searchsorted(ids, label), minlength=len(ids))
    return counts.double() / len(label)


def _columns_apart(facts: Facts) -> tuple[list[str], dict[str, float]]:
    """Return the columns whose means are furthest apart, in deviations of the training rows."""
    facts = origin(facts)
    X, V = facts.X, facts.val[0] if facts.val is not None else None
    if X is None or not isinstance(V, Tensor) or facts.inputs not in ("table", "sequence"):
        return [], {}
    a, b = columns(facts, X), columns(facts, V)
    if a.shape[1] != b.shape[1]:
        return [], {}
    off = (b.mean(0) - a.mean(0)).abs() / a.std(0).clamp_min(1e-12)
    off = torch.where(a.std(0) > 0, off, torch.zeros_like(off))
    names = called(facts.exp, a.shape[1])
    worst = [i for i in off.argsort(descending=True)[:4].tolist() if float(off[i]) > 0.25]
    named = [names[i] for i in worst]
    return named, {n: float(off[i]) for n, i in zip(named, worst, strict=True)}


def _net(facts: Facts) -> tuple[float, float, float] | None:
    """Return first loss, loss of training rows left out, and of validation rows, after training.

    A quarter of the training rows is left out of a short training.
    """
    if facts.train is None or facts.X is None or facts.y is None or len(facts.X) < 4 * LEAST:
        return None
    X, y = facts.X, facts.y
    n = len(X)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(5)).to(X.device)
    used, out = order[: 3 * n // 4], order[3 * n // 4 :][:1024]
    size = max(1, min(len(facts.batch[1]), len(used)))
    given = [(X[c], y[c]) for c in used.split(size)]
    steps = max(20, min(STEPS, facts.exp.total_steps // 2))
    seen = trial(
        facts, steps, on=(given * (steps // len(given) + 1))[:steps], rows=(X[out], y[out])
    )
    loss = facts.exp.judge or facts.exp.loss
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        left_out = float(loss(outputs(seen.exp, X[out]), y[out]))
    if not (math.isfinite(left_out) and math.isfinite(seen.val)):
        return None
    return seen.first, left_out, seen.val


RULE = Rule(
    code="train_val_shift",
    title="validation rows come from elsewhere",
    looks="training goes well, validation is worse from the start, and no regularisation helps",
    why="a net knows the region that its rows come from. Where validation lies elsewhere its score "
    "tells of the distance, not of the net",
    do="divide all rows at random, by groups and classes; where the future is asked for, divide by "
    "time and say time_ordered",
    source="Rabanser, Günnemann and Lipton 2019, Failing loudly, arXiv:1810.11953",
    before=before,
    confirm=confirm,
    passes=STEPS + 4,
    causes=("overfit", "class_imbalance", "label_noise", "bn_stats_mismatch"),
)
