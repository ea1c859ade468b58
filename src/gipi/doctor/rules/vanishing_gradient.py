"""Gradients shrink on their way down until the first layers learn nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.flow import flow, know_nothing, places, renewed
from gipi.doctor.late import Question, leave_open
from gipi.doctor.own_weights import recurrences
from gipi.doctor.probes import TAIL, Trial, after_steps, compared, end_of, horizon
from gipi.doctor.reference import bar, code, reached
from gipi.doctor.reinit import rectified, renew
from gipi.doctor.rule import Rule
from gipi.doctor.schedules import other_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.trace import Trace

OVER_TIME = 1e-4
"""Gradient at the first quarter of a row over the largest."""
FORGETS = 0.2
"""Size of recurrent matrices, 1 for an orthogonal one, below which a gated net is suspected."""
NEVER = 1e-7
"""Relative gradient below the precision of weights in float32."""
DEEP = 4
"""Matrices on the way that a net must have."""
AT_START, IN_RUN = 1e-4, 1e-3
"""Relative gradient of the lower layers over that of the upper ones."""
FROM = 0.2
"""Share of the run before which a slow beginning is only that."""
LATE = 0.5
"""Share of the run from which on a counter-experiment may last as long as the run so far."""
STUCK = 0.97
"""Share of its first value above which a loss has not fallen."""
MISSED = 0.5
"""Share of the progress with new weights that must be missing."""
REST = 0.5
"""Share of the passes that are left which longer trials may take, all together."""
FELL = 0.15
"""Share of the loss of a net that knows nothing by which the other must have come down."""
OTHERS: dict[str, Callable[[Experiment], object]] = {"renewed": renew, "relu": rectified}
"""Starts that may learn where a run does not."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect where the relative gradient at the bottom is a ten-thousandth of that at the top."""
    layers = flow(facts)
    if len(layers) >= DEEP:
        yield from _suspected(layers, AT_START, "before")
    yield from _over_time(facts)


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where the loss has not moved and the gradient shrinks on its way down.

    A loss that came down to that of one answer for all rows has not moved either: so far the
    last layer's bias alone can bring it.
    """
    if not trace.looks or not math.isfinite(trace.scale) or trace.done < FROM:
        return
    recent = trace.mean_loss(trace.step - max(5, trace.step // 3), trace.step)
    nothing = know_nothing(facts)
    if not recent > STUCK * min(trace.scale, nothing if math.isfinite(nothing) else math.inf):
        return
    facts.notes["stuck"] = trace
    layers = [
        (n, v.grad / v.weight) for n, v in trace.looks[-1].params.items()
        if v.dims > 1 and v.weight > 0 and v.grad > 0
    ]  # fmt: skip
    if len(layers) >= DEEP:
        yield from _suspected(layers, IN_RUN, "steps")


def _over_time(facts: Facts) -> Iterator[Finding]:
    """Suspect a recurrent net whose first places get no gradient to speak of.

    Gated nets forget by design: they are only suspected where their recurrent weights are next to
    nothing.
    """
    matrices, plain = recurrences(facts)
    if not matrices:
        return
    radius = max(
        float(p.detach().norm()) / p.shape[1] ** 0.5 * (p.shape[1] / p.shape[0]) ** 0.5
        for p in matrices
    )
    if not plain and radius > FORGETS:
        return
    sizes = places(facts)
    if len(sizes) < DEEP or max(sizes) <= 0:
        return
    early, top = max(sizes[: max(1, len(sizes) // 4)]), max(sizes)
    if early >= OVER_TIME * top:
        return
    yield Finding(
        "vanishing_gradient",
        f"the gradient at the first places of a row is {early / top:.1e} of the largest one: what "
        "stands there cannot be learned",
        "an LSTM or GRU, or orthogonal recurrent matrices; shorter rows",
        evidence={"gradient_by_place": [float(f"{v:.3g}") for v in sizes[:64]], "radius": radius},
        strength=min(100.0, math.log10(OVER_TIME * top / max(early, 1e-30)) + 1),
        repairs=(
            Repair("draw the weights anew, orthogonal", renew,
                   edit="nn.init.orthogonal_(rnn.weight_hh_l0)"),
        ),
    )  # fmt: skip


def _suspected(layers: list[tuple[str, float]], edge: float, phase: str) -> Iterator[Finding]:
    third = max(1, len(layers) // 3)
    low = median(v for _, v in layers[:third])
    top = max(v for _, v in layers[-third:])
    if not 0 < low < edge * top:
        return
    ratio = low / top
    yield Finding(
        "vanishing_gradient",
        "the gradient hardly reaches the first layers: relative to the weights, that of "
        f"{layers[0][0]} is {ratio:.1e} of that of {layers[-1][0]}",
        "use ReLU or a relative, draw the weights so that signals keep their size, or add "
        "normalisation or residual connections; in recurrent nets use an LSTM or GRU, or "
        "orthogonal matrices",
        where=(layers[0][0], layers[-1][0]),
        evidence={"relative_gradient": {n: float(f"{v:.3g}") for n, v in layers}, "ratio": ratio},
        phase="before" if phase == "before" else "steps",
        strength=min(100.0, math.log10(edge / max(ratio, 1e-30)) + 1),
        repairs=(
            Repair("draw the weights anew", renew,
                   edit="nn.init.orthogonal_(layer.weight, gain) for every layer, so that its "
                   "outputs have standard deviation 1 (LSUV)"),
            Repair("draw the weights anew, and lr / 3", slower,
                   edit="the same, and a third of the learning rate, falling as a cosine"),
            Repair("ReLU instead of sigmoid or tanh", rectified, mode="ask",
                   edit="nn.ReLU() in place of nn.Sigmoid()/nn.Tanh() between the layers"),
        ),
    )  # fmt: skip


def slower(exp: Experiment) -> str:
    """Draw the weights anew and train at a third of the rate.

    Where no gradient came through, a rate that is too high did no harm before.
    """
    return f"{renew(exp)}; {other_rate(1 / 3)(exp)}"


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little as it is, and with weights drawn anew: one learns, the other does not.

    What stands at the first of many places takes most of a run to be learned, however it begins:
    where a short training tells nothing the end of the run is asked.
    """
    told = _tried(facts, finding)
    if told is None and "gradient_by_place" in finding.evidence:
        leave_open(facts, Question(finding, renew))
    return told


def _tried(facts: Facts, finding: Finding) -> Finding | None:
    first = (facts.start or facts).exp
    nothing = know_nothing(facts)
    other = "renewed"
    if facts.passes + _due(facts) > facts.allowed:
        return _never(facts, finding) or finding.but(severity="hint")
    try:
        trial = renewed(facts, own=_own(facts))
        if not _learns(trial, other, nothing):
            other = "relu"
            if _is_dear(facts):
                return _never(facts, finding) or finding.but(severity="hint")
            trial = _with_relu(facts, first)
    except CannotRepair:
        return None
    if not _learns(trial, other, nothing):
        unasked = finding.phase == "steps" and _is_open(facts, trial)
        late = longer(facts, trial, nothing=nothing) if finding.phase == "steps" else None
        if late is None:
            never = _never(facts, finding, tried=trial)
            if never is not None:
                return never
            return finding.but(severity="hint") if unasked else None
        trial, other = late
    elif nothing - trial.end("own") > FELL * abs(nothing):
        slow = _is_slow(facts, trial, other)
        if slow is None:
            return finding.but(severity="hint")
        if slow:
            return None
    repairs = finding.repairs
    if other == "relu":  # the change that was seen to help comes first
        repairs = (repairs[-1], *repairs[:-1])
    return finding.but(
        confirmed=True,
        repairs=repairs,
        evidence={**finding.evidence, "loss_before": trial.begin, "loss_as_is": trial.end("own"),
                  f"loss_{other}": trial.end(other), "loss_knowing_nothing": nothing},
    )  # fmt: skip


def _never(facts: Facts, finding: Finding, *, tried: Trial | None = None) -> Finding | None:
    """Return the finding as sure where no gradient reaches the first layers at all.

    No short training learns through so many layers, with weights drawn anew or with ReLUs: that
    they do not says nothing then. What a gradient of less than the precision of the weights says,
    beside a loss that stands where nothing is known and a simple learner that tells rows which it
    never saw, needs no more proof.
    """
    gone = _gone(facts, finding)
    now = facts.exp if gone else _unmoved(facts, finding, tried)
    if now is None:
        return None
    first = facts.start or facts
    asked = tuple(replace(r, mode="ask") for r in reversed(finding.repairs))
    coded = code(facts) if first.kind == "reconstruct" else None
    able = bar(facts) if coded is None else None
    if coded is not None:
        best, se, least = coded.own, coded.se, 0.0  # what the mean of all rows explains
    elif able is not None:
        best, se, least = able.best, able.se, -math.inf
    else:  # of inputs that no simple learner reads it is known at least that nothing can come up
        return None if gone else finding.but(confirmed=True, repairs=asked)
    net = reached(now, first)
    if not best - max(net, least) > 3 * se:
        return None
    return finding.but(
        confirmed=True, repairs=asked,
        evidence={**finding.evidence, "simple_learner": best, "net": net},
    )  # fmt: skip


def _unmoved(facts: Facts, finding: Finding, tried: Trial | None) -> Experiment | None:
    """Return the copy that was trained a little as it is, where no gradient comes through still.

    What its first layers are cannot change then, however long it is trained.
    """
    twin = None if tried is None else tried.twins.get("own")
    if twin is None or finding.phase != "before" or finding.evidence.get("ratio", 1.0) >= NEVER:
        return None
    layers = flow(Facts(twin, start=facts))
    facts.passes += 2
    again = next(_suspected(layers, AT_START, "before"), None) if len(layers) >= DEEP else None
    return None if again is None or again.evidence["ratio"] >= NEVER else twin


def cost(facts: Facts, finding: Finding) -> int:
    """Return the passes of the trainings that were not made yet, at their beginning."""
    if _gone(facts, finding):
        return 0  # it can be told without a training, where none can be afforded
    return _due(facts)


def _due(facts: Facts) -> int:
    start = facts.start or facts
    steps = horizon(start.exp)
    return (2 - (_own(facts) is not None)) * steps * ("renewed" not in start.notes)


def _gone(facts: Facts, finding: Finding) -> bool:
    """Whether a loss stands still, and gradients below are smaller than what weights can hold."""
    return finding.evidence.get("ratio", 1.0) < NEVER and "stuck" in facts.notes


def _own(facts: Facts) -> list[float] | None:
    """Return the losses of the run so far, where it is one that stands still and they compare.

    A loop of somebody's own had other rows than the few batches of it that copies are trained on,
    and some of its losses may be none.
    """
    trace: Trace | None = facts.notes.get("stuck")
    steps = horizon((facts.start or facts).exp)
    if trace is None or trace.open or trace.step < steps:
        return None
    return trace.losses if all(map(math.isfinite, trace.losses[:steps])) else None


def _is_dear(facts: Facts) -> bool:
    """Whether a training with ReLUs, at the beginning of the run, cannot be afforded."""
    start = facts.start or facts
    return "rectified" not in start.notes and facts.passes + horizon(start.exp) > facts.allowed


def _with_relu(facts: Facts, first: Experiment) -> Trial:
    """Return how the run goes at its beginning with ReLUs; asked once."""
    start = facts.start or facts
    if "rectified" not in start.notes:
        steps = horizon(first)
        seen = compared(first, {"relu": rectified}, steps=steps)
        start.notes["rectified"] = renewed(facts).and_also(seen)  # as it is, it was trained there
        facts.passes += steps
    found: Trial = start.notes["rectified"]
    return found


def longer(facts: Facts, tried: Trial, *, nothing: float) -> tuple[Trial, str] | None:
    """Return a trial in which another start learns, longer than `tried`; late in a run only.

    What the run itself did so far is known: a net of twenty layers needs many steps to show that it
    can learn, however it begins. So many steps as the run has taken are given where they can be
    afforded, else what can be: who learns in fewer steps what the run did not learn in more has
    shown it as well.
    """
    trace: Trace = facts.notes["stuck"]
    first = (facts.start or facts).exp
    names = _late(trace)
    steps = min(trace.step, _share(facts, names))
    size = max(1, round(TAIL * steps))
    known = not trace.open and all(map(math.isfinite, trace.losses[-size:]))
    if not names or not known or steps <= _length(tried):
        return None
    for name in names:
        try:
            seen = compared(first, {name: OTHERS[name]}, steps=steps)
        except CannotRepair:
            continue
        facts.passes += steps
        own = Trial(seen.begin, {"own": trace.losses[-size:]}, {"own": trace.losses[0]}, {})
        if _learns(both := own.and_also(seen), name, nothing):
            return both, name
    return None


def _is_open(facts: Facts, tried: Trial) -> bool:
    """Whether a trial as long as the run so far would be due, and cannot be made."""
    trace: Trace = facts.notes["stuck"]
    names = _late(trace)
    if not names or trace.step <= _length(tried):
        return False
    return trace.open or _share(facts, names) < trace.step


def _late(trace: Trace) -> tuple[str, ...]:
    """Return the starts that are worth a trial as long as the run so far."""
    return () if trace.done < LATE else ("renewed",) if trace.done < 1 else tuple(OTHERS)


def _share(facts: Facts, names: tuple[str, ...]) -> int:
    """Return the steps that each of some trials may take: other rules have questions as well."""
    return int(min(REST * (facts.allowed - facts.passes) / max(1, len(names)), 1e9))


def _length(tried: Trial) -> float:
    return len(tried.tails["own"]) / TAIL


def _is_slow(facts: Facts, trial: Trial, other: str) -> bool | None:
    """Whether our own run makes up most of what it lacks in as many steps again.

    None where that cannot be asked. A run that is well below what knows nothing may be a slow one.
    But one that learns what stands at the last places of its rows, and never what stands at the
    first, is as far below.
    """
    now, steps = trial.twins.get("own"), round(_length(trial))
    if now is None or facts.passes + steps > facts.allowed:
        return None
    losses, _ = after_steps(now, steps)
    facts.passes += steps
    own, end = trial.end("own"), trial.end(other)
    later = end_of(losses[-len(trial.tails["own"]) :], 1.0)
    return later - end < MISSED * (own - end)


def _learns(trial: Trial, other: str, nothing: float) -> bool:
    """Whether the other run learns in that time and our own does not."""
    known = [v for v in (trial.begin, trial.firsts[other], nothing) if math.isfinite(v)]
    own, end = trial.end("own"), trial.end(other)
    if not known or not math.isfinite(end):
        return False
    fell = min(known) - end
    return fell > FELL * abs(min(known)) and own - end > MISSED * fell


RULE = Rule(
    code="vanishing_gradient",
    title="gradients vanish on their way to the first layers",
    looks="the loss stays near its first value; only the last layers' weights move",
    why="the gradient of a layer is a product over all layers above it; with slopes below one, as "
    "a sigmoid's quarter, the product falls exponentially with depth",
    do="ReLU family, weights that keep the size of signals, normalisation, residual connections",
    source="Hochreiter 1991; Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852",
    before=before,
    during=during,
    confirm=confirm,
    passes=3 * 120,
    cost=cost,
    causes=("plateau", "underfit", "lr_too_low"),
)
