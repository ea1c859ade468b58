"""The running statistics of a batch norm are not those of the batches it is trained on."""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import batches, call, tensors, whole
from gipi.doctor.facts import first_rows
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.probes import after_steps, compared, first_batches, horizon, loss_on
from gipi.doctor.proof import compare
from gipi.doctor.rule import Rule
from gipi.doctor.seeded import seeded
from gipi.doctor.sheet import origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

OLD = 0.05
"""Share of a running mean that may still be its first value when the run ends."""
FAST = 0.8
"""Momentum at which a running mean is hardly more than the last batch."""
USUAL = 0.1
TIMES = 1.5
MISSED, LATE_MISSED = 0.3, 0.05
"""Share of all progress that statistics must cost: in a short trial, whose own end is not yet that
of the run; and at the end of one that a short trial has left in doubt, where the same weights tell
validation rows better, beyond noise, with statistics of now."""
LAGS = "running statistics that lag"
RENEWED = 16
"""Batches from which statistics are taken anew."""
LUCK, LEAST_LUCK, BY_LUCK, SURE = 24, 8, 0.02, 2.4
"""Batches each of which might have been the last one where that alone is remembered, and how many
there must be; the share of the progress that they must cost in the mean, and how many of its
standard errors: the 97.5 % point of Student's t of 7 degrees of freedom is 2.36. What a few rows
cost is mostly little and now and then much: of a few batches the mean hardly exceeds its error."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a momentum so small that the run ends first, or so large that nothing is averaged."""
    total = facts.exp.total_steps
    odd = {}
    for name, m in norms(facts.exp.model).items():
        if m.momentum is None:
            continue
        old = (1 - m.momentum) ** total
        if old > OLD or m.momentum > FAST:
            odd[name] = float(m.momentum)
    if not odd or not facts.tape.of({"batch_norm"}):
        return
    worst = next(iter(odd.values()))
    old = (1 - worst) ** total
    yield _finding(
        tuple(odd),
        f"the momentum of {len(odd)} batch norms is {worst:g}: after {total} steps "
        + (f"{old:.0%} of their running means is still what they began with" if old > OLD
           else "they remember the last batch alone"),
        "before",
        {"momentum": worst, "steps": total, "old": old},
        strength=max(old / OLD / 10, worst),
    )  # fmt: skip


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where training rows are judged much worse in evaluation than in training mode."""
    found = norms(facts.exp.model)
    doubt: Finding | None = origin(facts).notes.get(LAGS)
    if doubt is not None and trace.done >= 1 and trace.broken is None:
        told = {**doubt.evidence, "first_loss": trace.scale}
        yield replace(doubt, phase="epoch", evidence=told)
        return
    rows = [r for r in trace.epochs if math.isfinite(r.get("train_eval", math.nan))][-2:]
    if not found or len(rows) < 2 or trace.done < 0.2 or trace.broken is not None:
        return
    slow = min((m.momentum for m in found.values() if m.momentum is not None), default=1.0)
    if slow * trace.step < 10:
        return
    if any(r["train_eval"] < TIMES * r["train"] + 0.1 * abs(trace.scale) for r in rows):
        return
    last = rows[-1]
    yield _finding(
        tuple(found),
        f"training rows have loss {last['train']:.4g} in training mode and "
        f"{last['train_eval']:.4g} in evaluation mode",
        "epoch",
        {"training_mode": last["train"], "evaluation_mode": last["train_eval"], "momentum": slow,
         "first_loss": trace.scale},
        strength=last["train_eval"] / max(last["train"], 1e-9) / TIMES,
    )  # fmt: skip


def _finding(
    where: tuple[str, ...], message: str, phase: str, evidence: dict[str, float], *, strength: float
) -> Finding:
    return Finding(
        "bn_stats_mismatch",
        message,
        "momentum 0.1, batches of 16 rows or more, and statistics taken anew before evaluation",
        where=where,
        evidence=evidence,
        phase="before" if phase == "before" else "epoch",
        strength=strength,
        repairs=(
            Repair("momentum 0.1", usual, edit="nn.BatchNorm2d(channels, momentum=0.1)"),
            Repair("momentum 0.03", slower, edit="momentum=0.03"),
        ),
    )


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Judge with the statistics as they are, and with those of usual momentum or taken anew."""
    exp = facts.exp
    rows = whole(exp.train, 512, exp.device)
    if rows is None:
        return None
    if finding.phase == "before":
        begin = loss_on(exp, *rows)
        steps = horizon(exp, low=50)
        if finding.evidence["momentum"] > FAST:
            facts.passes += steps + 2 * LUCK + RENEWED + 2
            # Nothing else of training depends on running statistics: one trial gives the weights.
            twin = after_steps(exp, steps)[1]
            found = _by_luck(finding, twin, rows, begin)
            if found is None:  # a net that knows little yet loses little
                facts.notes[LAGS] = finding
            return found
        try:
            trial = compared(exp, {"own": None, "usual": usual}, steps=steps)
        except CannotRepair:
            return None
        facts.passes += 2 * steps + 3
        own, other = (loss_on(trial.twins[n], *rows) for n in ("own", "usual"))
    else:
        begin = float(finding.evidence["first_loss"])
        if _was_in_doubt(finding) and finding.evidence["momentum"] > FAST:
            facts.passes += 2 * LUCK + RENEWED + 2
            return _by_luck(finding, exp, rows, begin)
        own, other = loss_on(exp, *rows), loss_on(renewed_statistics(exp), *rows)
        facts.passes += RENEWED + 2
    if not math.isfinite(other):
        return None
    missed = (own - other) / max(begin - other, 0.2 * abs(begin), 1e-12)
    late = _was_in_doubt(finding)
    if not missed > (LATE_MISSED if late else MISSED):
        if finding.phase == "before":
            facts.notes[LAGS] = finding
        return None
    if late:
        facts.passes += RENEWED + 2
        if not compare(exp, renewed_statistics(exp)).holds("better"):
            return None
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_as_is": own, "loss_right_statistics": other},
    )


def _was_in_doubt(finding: Finding) -> bool:
    """Whether it is asked at the end of a run, a short trial having left it open."""
    return finding.phase != "before" and "old" in finding.evidence


def cost(_: Facts, finding: Finding) -> int:
    """Return the passes of `confirm`: weights that are there are only judged twice."""
    luck = 2 * LUCK + RENEWED + 2
    if finding.phase == "before":
        return 120 + luck
    fast = _was_in_doubt(finding) and finding.evidence["momentum"] > FAST
    return luck if fast else 2 * (RENEWED + 2)


def _by_luck(
    finding: Finding, exp: Experiment, rows: tuple[Any, Any], begin: float
) -> Finding | None:
    """Return the finding where the last batch, whichever it is, costs much of the progress.

    Held against statistics of many batches: usual momentum lags behind in a short trial.
    """
    losses = torch.tensor(_last_batches(exp, rows), dtype=torch.float64)
    other = loss_on(renewed_statistics(exp), *rows)
    if len(losses) < LEAST_LUCK or not math.isfinite(other) or not bool(losses.isfinite().all()):
        return None
    mean, se = float(losses.mean()), float(losses.std()) / math.sqrt(len(losses))
    progress = max(begin - other, 0.2 * abs(begin), 1e-12)
    if mean - other <= max(BY_LUCK * progress, SURE * se):
        return None
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_as_is": mean, "loss_right_statistics": other},
    )


def _last_batches(exp: Experiment, rows: tuple[Any, Any]) -> list[float]:
    """Return the loss of some rows after each of a few batches has left its statistics.

    Each is as large as the last batch of an epoch, which may be the rest of the rows: that one
    stands before every evaluation. Where an epoch has fewer batches, those of the next ones come.
    """
    twin, found, rest = duplicate(exp), list[float](), _rest(exp)
    with seeded(twin), torch.no_grad():
        for xb, _ in islice(first_batches(twin, LUCK), LUCK):
            given = twin.transform(xb) if twin.transform is not None else xb
            for part in (given, first_rows(given, rest))[: 2 if rest else 1]:
                twin.model.train()
                call(twin.model, part)
            found.append(loss_on(twin, *rows))
    return found


def _rest(exp: Experiment) -> int:
    """Return the rows of an epoch's last batch where it is not a full one; 0 where it is."""
    pair, loader = tensors(exp.train), exp.train
    if pair is not None:
        return len(pair[0]) % exp.batch_size
    if not isinstance(loader, DataLoader) or loader.drop_last or loader.batch_size is None:
        return 0
    rows = len(loader.sampler) if isinstance(loader.sampler, Sized) else 0
    return rows % loader.batch_size


def norms(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms that keep running statistics and may change."""
    return {
        n: m for n, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001
        and m.track_running_stats and all(p.requires_grad for p in m.parameters(recurse=False))
    }  # fmt: skip


def renewed_statistics(exp: Experiment) -> Experiment:
    """Return a copy whose batch norms have the mean statistics of the first batches."""
    twin = duplicate(exp)
    for m in norms(twin.model).values():
        m.reset_running_stats()
        m.momentum = None
    with seeded(twin), torch.no_grad():
        twin.model.train()
        for number, (xb, _) in enumerate(batches(twin, 0)):
            if number >= RENEWED:
                break
            call(twin.model, twin.transform(xb) if twin.transform is not None else xb)
    return twin


def usual(exp: Experiment) -> str:
    """Set the momentum of all batch norms to 0.1."""
    return _set(exp, USUAL)


def slower(exp: Experiment) -> str:
    """Set the momentum of all batch norms to 0.03: smoother statistics."""
    return _set(exp, 0.03)


def _set(exp: Experiment, momentum: float) -> str:
    found = norms(exp.model)
    old = next((m.momentum for m in found.values()), momentum)
    if all(m.momentum == momentum for m in found.values()):
        message = f"momentum is {momentum:g} already"
        raise CannotRepair(message)
    for m in found.values():
        m.momentum = momentum
    return f"momentum of {len(found)} batch norms {old} -> {momentum:g}"


RULE = Rule(
    code="bn_stats_mismatch",
    title="running statistics of batch norms are off",
    looks="training goes well, evaluation is far worse, on the training rows as well",
    why="in evaluation a batch norm uses running means; where they have not caught up with the "
    "net, or are those of one odd batch, it computes another function than the trained one",
    do="momentum 0.1, larger batches, statistics taken anew before evaluation",
    source="Ioffe and Szegedy 2015, arXiv:1502.03167; Wu and Johnson 2021, arXiv:2105.07576",
    before=before,
    during=during,
    confirm=confirm,
    passes=120 + 2 * LUCK + RENEWED + 2,
    cost=cost,
    weak=_was_in_doubt,
    causes=("underfit",),
)
