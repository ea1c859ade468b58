"""The net does not even learn its training rows as well as a simple learner tells new ones."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean, variance
from typing import TYPE_CHECKING

from torch import Tensor

from gipi.doctor.copies import duplicate
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.follows import loss_of_table
from gipi.doctor.kept import share_kept, told_by_kept
from gipi.doctor.leftover import leftover
from gipi.doctor.middles import least_known
from gipi.doctor.play import play
from gipi.doctor.reference import Bar, Code, bar, code, is_linear, reached, scores_classes
from gipi.doctor.rule import Rule
from gipi.doctor.wider import LOWER, MATTERS, TIMES, may_be_small, wider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

ACCURACY, EXPLAINED = 0.15, 0.2
"""How much better a simple learner must be, on rows that it never saw, than the net on its own."""
SURE, ENDS = 3.0, ("train_eval", "val")
EDGE = 0.02
"""By how much a simple learner must be better than a small net for width to be what it lacks."""
KEPT = 0.5
"""Share of the weights above which a net is mostly what it was before the run."""
FLAT = 0.03
"""Fall of the loss over the last quarter of the steps, as a share of the first, that is nothing."""
FALLS = 2.0
"""Standard errors of that fall from which on a loop that may go on is still learning."""
HAD = 0.5
"""Share of its last loss down to which a net that came there before is not too small: what it had
learned it has lost again."""
LITTLE_LEFT = 2 * MATTERS
"""Share of a loss that means nothing is known below which next to nothing is left undone."""
OF_ALL, OF_ITS_OWN = 0.1, 0.5
"""Share of a loss that means nothing is known that is much; or, of numbers, of the loss at the end:
there is none so low that half of it is nothing."""
QUARTERS = 4
MORE, CLOSED = 160, 1 / 3
"""Steps by which such a loop is gone on with, at most as many as it took; and the share of what is
missing that they must bring where steps were all it lacked."""


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where the net is linear and the best linear function is not enough."""
    xb = facts.batch[0]
    if facts.inputs not in ("table", "image", "sequence") or len(xb) < 4:
        return
    if len(facts.tape.of({"relu", "tanh", "sigmoid", "gelu", "silu", "attention", "lstm", "gru",
                          "rnn"})):  # fmt: skip
        return
    if not is_linear(facts, xb):
        return
    found = bar(facts)
    if found is None or not _beaten(found, found.linear, facts, times=1.5):
        return
    yield _finding(found, found.linear, facts, "the best linear function of the inputs reaches",
                   phase="before", confirmed=True)  # fmt: skip


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where a simple learner tells new rows better than the net its own.

    Where none does, or none is known for such answers, look in what the net leaves undone; and ask
    of a net of few weights whether several of it do better.
    """
    first = facts.start or facts
    told = list(_beaten_by_simple(facts, trace)) or list(_left_undone(facts, trace))
    yield from told
    if told or facts.exp.declared.get("frozen") or first.kind == "reconstruct":
        return
    if facts.start is not None and may_be_small(facts, trace) and _more_to_tell(facts.exp, first):
        ends = trace.epochs[-1]
        weights = sum(p.numel() for p in facts.exp.model.parameters())
        yield Finding(
            "underfit",
            f"{weights} weights end at a loss of {ends['train_eval']:.4g} on training rows and "
            f"{ends['val']:.4g} on validation rows",
            "a wider or deeper net",
            evidence={"weights": weights, "train": ends["train_eval"], "val": ends["val"]},
            phase="epoch",
        )


def _more_to_tell(exp: Experiment, first: Facts) -> bool:
    """Whether a simple learner tells new rows better than the net its own, or cannot be asked.

    Where it does not, what the net lacks is most likely noise: no width tells that.
    """
    found = bar(first)
    return found is None or found.best - reached(exp, first) > max(EDGE, found.se)


def _left_undone(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where a simple learner finds much in what a trained net leaves undone.

    It must come lower on rows that it never saw than the net on either split: what a net learned by
    heart it was able to learn.
    """
    exp, first = facts.exp, facts.start or facts
    if trace.done < 1 or trace.open or trace.broken is not None or not trace.epochs:
        return
    if exp.transform is not None or exp.declared.get("frozen") or _repeats(first):
        return
    high, ends = least_known(first), [trace.epochs[-1].get(k, math.nan) for k in ENDS]
    # What is never negative has no more to lose than it is.
    least = OF_ALL if first.loss.name != "other" and first.kind != "numbers" else LITTLE_LEFT
    if not all(map(math.isfinite, ends)) or 0 <= min(ends) < least * high:
        return
    if _had_learned(trace) or share_kept(facts) > KEPT or not scores_classes(first):
        return
    found = leftover(facts)
    if found is None:
        return
    now, learned = min(found.train, found.val), max(0.0, found.blind - found.then)
    great = OF_ALL * high
    if first.kind == "numbers":
        great = min(great, max(OF_ITS_OWN * abs(now), MATTERS * high))
    if not found.gain > max(LOWER * min(abs(now), learned), great, SURE * found.se):
        return
    if QUARTERS * trace.fall() > found.gain:
        return  # as many steps again, at the pace of the last ones, would bring as much
    yield Finding(
        "underfit",
        f"the net ends at a loss of {found.train:.4g} on training rows and {found.val:.4g} on "
        f"validation rows; with what a simple learner finds in what it leaves undone there it is "
        f"{found.then:.4g} on validation rows, which that never saw",
        "a wider or deeper net with activations between its layers, that sees all of the input and "
        "passes on enough of it; a higher rate or a longer run",
        evidence={"train": found.train, "val": found.val, "with_what_is_left": found.then,
                  "se": found.se, "blind": found.blind},
        severity="hint",
        confirmed=True,
        phase="epoch",
        strength=found.gain / (MATTERS * high + 1e-12),
        repairs=(
            Repair("train three times as long", _longer, mode="ask", edit="epochs x 3",
                   setting="epochs"),
        ),
    )  # fmt: skip


def _repeats(first: Facts) -> bool:
    """Whether answers are inputs, or inputs without noise: a narrow code may be on purpose."""
    X, y = first.batch
    alike = isinstance(X, Tensor) and isinstance(y, Tensor) and X.shape == y.shape
    return first.kind == "reconstruct" or (first.kind == "numbers" and alike)


def _beaten_by_simple(facts: Facts, trace: Trace) -> Iterator[Finding]:
    if trace.done < 0.5 or trace.broken is not None or facts.exp.declared.get("frozen"):
        return
    first = facts.start or facts
    # A net that learned something else before begins far above a loss that means nothing is known.
    high = min(abs(trace.scale), least_known(first))
    falling = trace.fall() > FLAT * high
    if (trace.done < 1 and falling) or (trace.open and (falling or _falls(trace))):
        return
    if _had_learned(trace):
        return
    if first.kind == "tokens":
        yield from _beaten_by_table(facts, trace)
        return
    now = reached(facts.exp, first)
    margin = EXPLAINED if first.kind in ("numbers", "reconstruct") else ACCURACY
    if not math.isfinite(now) or now > 1 - margin:
        return  # nobody can be better by the margin
    if first.kind == "reconstruct":
        yield from _gives_back(first, now, ended=trace.done >= 1)
        return
    found = bar(first)
    if found is None or not _beaten(found, now, first, times=1.0 if trace.done >= 1 else 2.0):
        return
    told = _finding(found, now, first, "the net reaches", phase="epoch", confirmed=True)
    # Augmented rows are more than the simple learner was asked: a net that still learns from them
    # is not too small, and stands where its planned end has found it.
    late = facts.exp.transform is not None and falling
    told = _of_kept(told, found, now, facts) if share_kept(facts) > KEPT else told
    # How long a watched loop is to go on is not known: it is asked whether steps are all it lacks.
    told = told.but(confirmed=False) if trace.open else told
    yield told.but(severity="hint") if late else told


def _beaten_by_table(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where a table of single tokens is far better than a net of sequences."""
    first = facts.start or facts
    if trace.done < 1 or trace.open or facts.exp.transform is not None or not trace.epochs:
        return
    ends = [trace.epochs[-1].get(k, math.nan) for k in ("train_eval", "val")]
    if not all(map(math.isfinite, ends)) or share_kept(facts) > KEPT:
        return
    simple, now = loss_of_table(first), min(ends)
    if not now - simple > max(LOWER * abs(now), MATTERS * first.yardstick):
        return
    yield Finding(
        "underfit",
        f"the net ends at a loss of {ends[0]:.4g} on its own training rows; a table of the answers "
        f"beside every token, which sees no other place, reaches {simple:.4g} on rows it never saw",
        "a wider or deeper net, a higher rate or a longer run",
        evidence={"train": ends[0], "val": ends[1], "table_on_new_rows": simple},
        confirmed=True,
        phase="epoch",
        strength=now / max(abs(simple), 1e-12),
        repairs=(
            Repair("train three times as long", _longer, mode="ask", edit="epochs x 3",
                   setting="epochs"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Go on with a watched loop: where that brings it well on its way, steps are all it lacks.

    A net that may be too small is trained several times over, side by side.
    """
    if "weights" in finding.evidence:
        return _several(facts, finding)
    twin = duplicate(facts.exp)
    play(twin, steps=_more(finding), quiet=True)
    facts.passes += _more(finding)
    net, simple = (finding.evidence[k] for k in ("net_on_training_rows", "simple_on_new_rows"))
    if reached(twin, facts.start or facts) - net > CLOSED * (simple - net):
        return None
    return finding.but(confirmed=True)


def _several(facts: Facts, finding: Finding) -> Finding | None:
    found = wider(facts)
    if found is None:
        return None
    return replace(
        finding,
        confirmed=True,
        message=f"{finding.message}; {TIMES} such nets side by side reach {found.copies[0]:.4g} "
        f"and {found.copies[1]:.4g} after {found.steps} steps",
        evidence={**finding.evidence, "train_of_several": found.copies[0],
                  "val_of_several": found.copies[1], "steps_of_several": found.steps},
        strength=found.net[1] / max(abs(found.copies[1]), 1e-12),
    )  # fmt: skip


def _cost(_: Facts, finding: Finding) -> int:
    # Several nets keep by themselves within what is left: where they cannot, nothing is said.
    return 0 if "weights" in finding.evidence else _more(finding)


def _more(finding: Finding) -> int:
    return min(MORE, max(1, finding.step))


def _had_learned(trace: Trace) -> bool:
    """Whether the loss of training rows was far lower before: at least the net is able to."""
    known = [row.get("train_eval", math.nan) for row in trace.epochs]
    known = [loss for loss in known if math.isfinite(loss)]
    return bool(known) and 0 <= min(known) < HAD * known[-1]


def _falls(trace: Trace) -> bool:
    """Whether the mean loss of the last quarter is below that of the one before, beyond noise."""
    quarter = trace.step // 4
    parts = [trace.losses[trace.step - 2 * quarter : trace.step - quarter],
             trace.losses[trace.step - quarter :]]  # fmt: skip
    if quarter < 2 or not all(map(math.isfinite, parts[0] + parts[1])):
        return False
    noise = math.sqrt(sum(variance(part) / len(part) for part in parts))
    return fmean(parts[0]) - fmean(parts[1]) > FALLS * noise


def _of_kept(told: Finding, found: Bar, now: float, facts: Facts) -> Finding:
    """Return the finding for a net that is mostly what it was before the run.

    Features that were learned elsewhere are worth what they are worth: the net is not too small for
    that. But where a linear function of them tells new rows as well as the simple learner does, and
    better than the net its own, what reads them was trained badly: it stays a problem.
    """
    able = told_by_kept(facts)
    if math.isnan(able):
        return told.but(
            severity="hint", repairs=(),
            message=f"{told.message}; most weights stay as they are",
        )  # fmt: skip
    said = told.but(evidence={**told.evidence, "linear_on_kept_layers": able})
    first = facts.start or facts
    if not _beaten(found, able, first) and _beaten(replace(found, best=able), now, first):
        return replace(
            said,
            message=f"{told.message}; the layers that stay as they are hold what is needed: a "
            f"linear function of what they make of the inputs reaches {able:.1%}",
            advice="a higher learning rate or a longer run for the layers that are trained",
        )
    return replace(
        said, severity="hint", repairs=(),
        message=f"{told.message}; the layers you froze lose what is needed: a linear function of "
        f"what they make of the inputs reaches {able:.1%}",
        advice="train more of them: requires_grad_(True), and give them to the optimizer; or take "
        "layers that were trained on data like these",
    )  # fmt: skip


def _gives_back(first: Facts, now: float, *, ended: bool) -> Iterator[Finding]:
    """Yield the finding where a linear code tells new rows better than the net its own.

    Behind a code of the same width the net was trained badly. Where only a wider one is better the
    width may be as it is on purpose: a hint.
    """
    if first.loss.name not in ("mse", "mae", "huber", "bce", "bce_logits"):
        return
    found = code(first)
    if found is None:
        return
    edge = max(EXPLAINED, SURE * found.se)
    if found.own - now > edge:
        yield _of_code(found, now, min(found.width, found.wide), found.own)
    elif ended and found.wide > found.width and found.explained - now > edge:
        yield _of_code(found, now, found.wide, found.explained)


def _of_code(found: Code, now: float, numbers: int, explained: float) -> Finding:
    narrow = numbers > found.width
    repair = Repair("train three times as long", _longer, mode="ask", edit="epochs x 3",
                    setting="epochs")  # fmt: skip
    return Finding(
        "underfit",
        f"the net gives back {now:.1%} of the variance of its own training data, through a layer "
        f"of {found.width} numbers; the first {numbers} principal components give back "
        f"{explained:.1%} of rows they never saw",
        f"a code of more than {found.width} numbers, unless it is that narrow on purpose"
        if narrow else "other weights or rates, activations, width, and a longer run",
        severity="hint" if narrow else "problem",
        evidence={"net_on_training_rows": now, "simple_on_new_rows": explained,
                  "components": numbers, "narrowest": found.width},
        confirmed=True,
        phase="epoch",
        strength=(explained - now) / EXPLAINED,
        repairs=() if narrow else (repair,),
    )  # fmt: skip


def _beaten(found: Bar, now: float, facts: Facts, *, times: float = 1.0) -> bool:
    margin = EXPLAINED if facts.kind == "numbers" else ACCURACY
    return found.best - now > max(times * margin, SURE * found.se)


def _finding(
    found: Bar, now: float, facts: Facts, what: str, *, phase: str, confirmed: bool
) -> Finding:
    measure = "of the variance" if facts.kind == "numbers" else "of the rows"
    return Finding(
        "underfit",
        f"{what} {now:.1%} {measure} of its own training data; neighbours or random features reach "
        f"{found.best:.1%} on rows they never saw",
        "a wider or deeper net with activations between its layers, and a longer run",
        evidence={"net_on_training_rows": now, "simple_on_new_rows": found.best,
                  "linear_on_training_rows": found.linear},
        confirmed=confirmed,
        phase="before" if phase == "before" else "epoch",
        strength=(found.best - now) / ACCURACY,
        repairs=(
            Repair("train three times as long", _longer, mode="ask", edit="epochs x 3",
                   setting="epochs"),
        ),
    )  # fmt: skip


def _longer(exp: Experiment) -> str:
    old, exp.epochs = exp.epochs, exp.epochs * 3
    return f"epochs {old:g} -> {exp.epochs:g}"


def outgrown(facts: Facts, trace: Trace, finding: Finding) -> bool:
    """Whether the net tells its rows at the end as well as the simple learner does new ones."""
    return "simple_on_new_rows" in finding.evidence and not list(_beaten_by_simple(facts, trace))


RULE = Rule(
    code="underfit",
    title="the net learns less than the data hold",
    looks="training loss and validation loss are alike, and both are high",
    why="a net that tells its own rows worse than a simple learner tells new ones is too small, "
    "linear where the data are not, or was stopped too early",
    do="activations, width, depth, more steps; first the other findings, which may be the cause",
    source="Goodfellow, Bengio and Courville 2016, section 5.2; Karpathy 2019 (a recipe)",
    before=before,
    during=during,
    confirm=confirm,
    passes=MORE,
    cost=_cost,
    outgrown=outgrown,
)
