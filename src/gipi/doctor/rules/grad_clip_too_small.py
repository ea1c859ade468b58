"""The gradient is clipped to so little that the learning rate means nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.probes import compared, horizon
from gipi.doctor.rates import times_lr
from gipi.doctor.rule import Rule
from gipi.doctor.rules.exploding_gradient import clipped_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts, Moved

RATIO = 0.05
"""Norm that the optimizer sees over the norm of the gradient."""
SCALED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam,
          torch.optim.Adamax, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta,
          torch.optim.Rprop)  # fmt: skip
"""Optimizers whose steps do not depend on the size of gradients, as long as it is above eps."""
EPS = 1e-7
MISSED = 0.3
FASTER = 8.0
"""Times the rate at which clipping is tried where the run's own is too slow to tell."""
ALONG = 0.9
"""Cosine between both gradients from which one is the other, made shorter."""
CUT = 1e-3
"""How far what the optimizer sees may be off the gradient cut value by value, over its largest."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect where the optimizer sees less than a twentieth of the gradient, twice in a row."""
    if facts.exp.step is None:
        return  # the plain step clips nothing
    seen = [_clip(m) for m in facts.moves]
    if len(seen) < 2 or any(s is None for s in seen):
        return
    (whole, left, along, size), (whole2, left2, along2, _) = seen[0], seen[1]  # type: ignore[misc]
    if max(left / whole, left2 / whole2) >= RATIO or min(along, along2) < ALONG:
        return
    if isinstance(facts.exp.optimizer, SCALED) and left > EPS * math.sqrt(size):
        return
    alike = abs(left - left2) < 0.01 * left
    yield Finding(
        "grad_clip_too_small",
        f"the gradient of the first batch has norm {whole:.3g}; the optimizer sees {left:.3g}"
        + (", and as much in the second step" if alike else ""),
        f"clip at the size that gradients have, about {whole:.2g}, so that only spikes are cut",
        evidence={"norm": whole, "seen": left, "ratio": left / whole},
        strength=RATIO * whole / left,
        repairs=(
            Repair("clip at the usual norm", unclipped(2 * max(whole, whole2)),
                   edit=f"clip_grad_norm_(model.parameters(), {2 * whole:.2g})"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with the gradient as it is clipped, and with it whole.

    Where the rate is slow as well a few steps show nothing: then both at a higher one.
    """
    steps = horizon(facts.exp)
    change = finding.repairs[0].change
    assert change is not None
    for factor in (1.0, FASTER):
        faster = times_lr(factor)

        def whole(exp: Experiment, faster: Change = faster) -> None:
            change(exp), faster(exp)

        if factor > 1 and facts.passes + 2 * steps > facts.allowed:
            return None
        try:
            trial = compared(facts.exp, {"own": faster, "whole": whole}, steps=steps)
        except CannotRepair:
            return finding.but(severity="hint")
        facts.passes += 2 * steps
        if trial.missed("own", "whole") >= MISSED and trial.sure("own", "whole"):
            break
    else:
        return None
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_as_is": trial.end("own"),
                  "loss_unclipped": trial.end("whole")},
    )  # fmt: skip


def tight(moves: Sequence[Moved]) -> float | None:
    """Return the norm to which steps were clipped, where that is next to nothing; else None."""
    seen = [_clip(m) for m in moves]
    known = [s for s in seen if s is not None]
    if len(known) < 2 or len(known) < len(seen):
        return None
    norms = [left for _, left, _, _ in known]
    little = all(left < RATIO * whole and along >= ALONG for whole, left, along, _ in known)
    return norms[0] if little and max(norms) < 1.01 * min(norms) else None


def unclipped(norm: float) -> Change:
    """Return the change to the plain step with the gradient's norm clipped at `norm`.

    It fits a step that is the plain one but for its clipping: the finding saw that gradients point
    the same way, or that they are the fresh ones cut value by value.
    """

    def change(exp: Experiment) -> str:
        exp.step = None
        clipped_at(norm)(exp)
        return f"the gradient's norm is clipped at {norm:.3g}, as large as it usually is"

    return change


def _clip(moved: Moved) -> tuple[float, float, float, int] | None:
    """Return the norm of a fresh gradient, that of what the optimizer saw, their cosine, size.

    The cosine of a gradient that is cut value by value is 1: it is shorter, and nothing else.
    """
    pairs = [
        (moved.fresh[n].float().flatten(), g.float().flatten())  # type: ignore[union-attr]
        for n, g in moved.grads.items()
        if g is not None and isinstance(moved.fresh.get(n), Tensor)
    ]
    if not pairs:
        return None
    fresh, seen = torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
    whole, left = float(fresh.norm()), float(seen.norm())
    if not (math.isfinite(whole) and math.isfinite(left)) or whole <= 0 or left <= 0:
        return None
    along = 1.0 if _is_cut(fresh, seen) else float(fresh @ seen) / (whole * left)
    return whole, left, along, fresh.numel()


def _is_cut(fresh: Tensor, seen: Tensor) -> bool:
    """Whether what the optimizer saw is the gradient with every value cut at the largest one."""
    most = float(seen.abs().max())
    return bool((fresh.clamp(-most, most) - seen).abs().max() <= CUT * most)


RULE = Rule(
    code="grad_clip_too_small",
    title="the gradient is clipped to almost nothing",
    looks="the loss falls evenly and very slowly, however high the learning rate",
    why="clipping is for spikes; clipped at a small part of the usual norm every step is as long "
    "as the clip and the rate allow, which is next to nothing",
    do="clip at about the 90th percentile of the norms that the run has",
    source="Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063",
    before=before,
    confirm=confirm,
    passes=120,
    causes=("lr_too_low", "plateau", "underfit"),
)
