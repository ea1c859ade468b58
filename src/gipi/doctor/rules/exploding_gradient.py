"""Gradients grow until one step throws the weights far away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.begun import so_far
from gipi.doctor.experiment import plain_step
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.flow import renewed
from gipi.doctor.probes import compared, horizon
from gipi.doctor.rates import times_lr
from gipi.doctor.reinit import renew
from gipi.doctor.rule import Rule
from gipi.doctor.rules.bad_init_symmetric import LAYERS, drawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.probes import Trial
    from gipi.doctor.trace import Trace

LARGE = 100.0
"""Norm of the gradient over that of the weights, at the start, for outputs of size one."""
GROWN = 20.0
"""Spread of the last hidden layer, or place, over that of the first."""
WORSE = 3.0
"""Times the loss of a blind guess: outputs are too large where signals grew and it costs that."""
SPIKE = 100.0
"""A norm this many times the running median is a spike."""
MISSED = 0.3
AROUND = 8
"""Steps whose mean loss says where a run stands."""
LOST = 0.1
"""Share of a run that it may take to make up for all spikes: clipping could save no more."""
SEEN = "steps whose gradients were looked at"


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect outputs far too large: by a gradient beyond the weights, or layers that each grow."""
    grads = [g for g in facts.gradients.values() if g is not None]
    weights = [p.detach() for p in facts.exp.model.parameters() if p.requires_grad]
    said = facts.outputs
    if not grads or not weights or not isinstance(said, Tensor) or said.numel() < 2:
        return
    norm, size, unit = _norm(grads), _norm(weights), _unit(facts)
    spread = float(said.float().std())
    worse = facts.first_loss > WORSE * facts.blind_loss > 0
    if size <= 0 or not (worse or spread > 10 * max(1.0, unit)):
        return
    ratio = norm / size / max(1.0, unit**2)
    grown = growth(facts)
    if grown < GROWN and (ratio < LARGE or spread <= 10 * max(1.0, unit)):
        return
    yield _finding(
        f"outputs spread by {spread:.3g} before the first step; from the first layer to the last "
        f"but one signals grow {grown:.3g} times, and the gradient's norm is {norm:.3g}, "
        f"{norm / size:.3g} times that of the weights",
        "before",
        {"norm": norm, "weights": size, "outputs": spread, "growth": grown},
        max(ratio / LARGE, grown / GROWN) if math.isfinite(norm) else 10.0,
        clip=size,
    )


def growth(facts: Facts) -> float:
    """Return how much signals grow: over layers but for the last, or over the places of a row."""
    ops = facts.tape.of({"linear", "conv", "rnn", "lstm", "gru"})
    spreads = [float(op.output.detach().float().std()) for op in ops if op.output.numel() > 1]
    layers = max(spreads[:-1], default=0.0) / spreads[0] if spreads and spreads[0] > 0 else 0.0
    places = 0.0
    for op in ops:
        if op.kind == "rnn" and op.output.ndim == 3 and min(op.output.shape) > 1:
            for h in (op.output.detach(), op.output.detach().transpose(0, 1)):
                first = float(h[0].float().std())
                places = max(places, float(h[-1].float().std()) / first if first > 0 else 0.0)
    return max(layers, places)


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect a gradient a hundred times the median of those before, after which the loss rose."""
    norms = [n for n in trace.norms if math.isfinite(n) and n > 0]
    if len(norms) < 10:
        return
    if len(norms) == len(trace.norms) and max(norms) < SPIKE * min(norms):
        return  # no step can be that far above a median
    for spike in _spikes(trace, begin=facts.notes.get(SEEN, 0)):
        step, now, usual = spike.step, spike.norm, spike.usual
        facts.notes[SEEN] = step + 1
        yield _finding(
            f"at step {step} the gradient's norm was {now:.3g}, {now / usual:.3g} times the "
            f"median of the steps before ({usual:.3g}), and the loss rose",
            "steps",
            {"step": step, "norm": now, "median": usual},
            now / usual / SPIKE if math.isfinite(now) else 10.0,
            clip=spike.high,
        )
        return


@dataclass(frozen=True)
class _Spike:
    """A step whose gradient was far above those before, after which the loss rose.

    usual, high  median of the norms before, and their ninth decile; level: loss before it
    """

    step: int
    norm: float
    usual: float
    high: float
    level: float


def _spikes(trace: Trace, *, begin: int = 0) -> Iterator[_Spike]:
    for step in range(max(AROUND, begin), len(trace.norms)):
        past = [n for n in trace.norms[max(0, step - 50) : step] if math.isfinite(n) and n > 0]
        if len(past) < 8:
            continue
        usual, now = median(past), trace.norms[step]
        if math.isfinite(now) and now < SPIKE * usual:
            continue
        ahead = [v for v in trace.losses[step + 1 : step + 6] if math.isfinite(v)]
        level = trace.mean_loss(step - AROUND, step)
        if ahead and max(ahead) < 1.5 * level + 0.1 * abs(trace.scale):
            continue  # it passed without harm
        yield _Spike(step, now, usual, sorted(past)[int(0.9 * (len(past) - 1))], level)


def outgrown(_: Facts, trace: Trace, __: Finding) -> bool:
    """Whether the run soon came back, after every spike, to where it had been before.

    What clipping could have saved is the steps that this took.
    """
    lost = back = 0
    for spike in _spikes(trace):
        if spike.step < back:
            continue
        ends = range(spike.step + 1, len(trace.losses) - AROUND + 1)
        found = next((t for t in ends if trace.mean_loss(t, t + AROUND) <= spike.level), None)
        if found is None:
            return False
        lost, back = lost + found - spike.step, found
    return lost <= LOST * len(trace.losses)


def _finding(
    message: str, phase: str, evidence: dict[str, float], strength: float, *, clip: float
) -> Finding:
    clipped = Repair(
        f"clip the gradient's norm at {clip:.3g}",
        clipped_at(clip),
        edit=f"torch.nn.utils.clip_grad_norm_(model.parameters(), {clip:.3g})",
    )
    anew = Repair(
        "draw the weights anew",
        renew,
        edit="nn.init.orthogonal_ for recurrent, kaiming_normal_ for other weights",
    )
    return Finding(
        "exploding_gradient",
        message,
        "draw the weights so that signals keep their size, and clip the gradient's norm at about "
        f"{clip:.3g}",
        evidence={**evidence, "clip": clip},
        phase="before" if phase == "before" else "steps",
        step=int(evidence.get("step", 0)),
        strength=strength,
        repairs=(anew, clipped) if phase == "before" else
        (clipped, Repair("lr / 3", times_lr(1 / 3), setting="lr")),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train as it is and changed: new weights at the start, a clipped gradient in the run."""
    first = (facts.start or facts).exp
    try:
        if finding.phase == "before":
            trial, other = renewed(facts), "renewed"
            if not _saved(trial, other):
                steps, other = horizon(first), "drawn"
                trial = trial.and_also(compared(first, {"drawn": as_torch_draws}, steps=steps))
                facts.passes += steps
                finding = finding.but(repairs=(DRAWN, *finding.repairs))
        else:
            repair = finding.repairs[0].change
            assert repair is not None
            steps = finding.step + 20
            if steps > horizon(first, 0.5, low=60, high=200):
                return None
            other = "clipped"
            trial = compared(first, {"own": None, other: repair}, steps=steps, own=so_far(facts))
            facts.passes += 2 * steps
    except CannotRepair:
        return finding.but(severity="hint")
    if _saved(trial, other):
        return finding.but(
            confirmed=True,
            evidence={**finding.evidence, "loss_as_is": trial.end("own"),
                      f"loss_{other}": trial.end(other)},
        )  # fmt: skip
    return None


def _saved(trial: Trial, other: str) -> bool:
    return trial.missed("own", other) > MISSED and trial.sure("own", other)


def as_torch_draws(exp: Experiment) -> str:
    """Draw the layers anew as torch does: branches are quiet then, and a sum of many of them too.

    Raises `CannotRepair` where there is no layer.
    """
    layers = [n for n, m in exp.model.named_modules() if isinstance(m, LAYERS)
              and all(p.requires_grad for p in m.parameters())]  # fmt: skip
    if not layers:
        message = "no layer can be drawn anew"
        raise CannotRepair(message)
    return drawn([f"{n}.weight" for n in layers])(exp)


DRAWN = Repair("draw the weights as torch does", as_torch_draws,
               edit="for m in model.modules(): m.reset_parameters()")  # fmt: skip


def clipped_at(norm: float) -> Change:
    """Return the change after which every optimizer step sees a gradient of at most `norm`."""

    def change(exp: Experiment) -> str:
        own = exp.step or plain_step

        def step(now: Experiment, xb: object, yb: object) -> Tensor:
            def clip(optimizer: torch.optim.Optimizer, *_: object) -> None:
                params = [p for g in optimizer.param_groups for p in g["params"]]
                torch.nn.utils.clip_grad_norm_(params, norm)

            handle = now.optimizer.register_step_pre_hook(clip)
            try:
                return own(now, xb, yb)
            finally:
                handle.remove()

        exp.step = step
        return f"the gradient's norm is clipped at {norm:.3g}"

    return change


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(t.float().square().sum()) for t in tensors))


def _unit(facts: Facts) -> float:
    """Return the size of targets that are numbers; 1 for classes."""
    y = facts.y
    if y is None or not y.is_floating_point() or y.numel() < 2:
        return 1.0
    return float(y.float().square().mean().sqrt())


RULE = Rule(
    code="exploding_gradient",
    title="gradients explode",
    looks="now and then the gradient is a hundred times as large, and the loss jumps; or NaN",
    why="the gradient of a layer, or of an early time step, is a product over all above it; with "
    "factors beyond one it grows exponentially",
    do="weights that keep the size of signals (orthogonal in recurrent nets), and clipping",
    source="Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063",
    before=before,
    during=during,
    confirm=confirm,
    passes=120,
    causes=("nan_inf", "plateau", "underfit"),
    outgrown=outgrown,
)
