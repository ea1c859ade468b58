"""The graph is cut: the loss depends on weights that no gradient reaches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.experiment import batches, call
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.knowledge import PASSES, judged_still, matrices
from gipi.doctor.reach import unreached
from gipi.doctor.rewire import Edited, KeepGraph
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.spoken import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect weights that matter for the loss and get no gradient in the first batches.

    Also a loop of somebody's own that throws gradients away before they are used.
    """
    lost = list(_thrown_away(facts))
    if lost:
        yield from lost
        return
    names = unreached(facts).cut
    if not names:
        return
    places = sorted({op.module for op in facts.tape.of({"detach"})})
    at = f"; detach() is called in {', '.join(p or 'the model itself' for p in places[:3])}"
    trained = [n for n, p in facts.exp.model.named_parameters() if p.requires_grad]
    alone = len(names) == len(trained)
    found = Finding(
        "graph_detached",
        f"the loss depends on {counted(len(names), 'parameter')} that no gradient reaches "
        f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): between them and the loss "
        f"the graph is cut{at if places else ''}",
        "take detach(), no_grad(), .data, .item() and numpy out of the way from them to the loss",
        where=names,
        evidence={"parameters": len(names), "detach_in": places},
        strength=EXACT,
        confirmed=alone and not facts.moves,
        repairs=(
            Repair("keep the graph", keep_graph, mode="ask",
                   edit="delete .detach() / torch.no_grad() in the forward pass"
                   + (f" of {places[0] or 'the model'}" if places else "")),
        ),
    )  # fmt: skip
    yield found.but(severity="problem" if alone or matrices(facts, names) else "hint")


def _thrown_away(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where backward gives gradients and no step of a loop sees any."""
    loop, moves = facts.loop, facts.moves
    if loop is None or len(moves) < 2 or loop.backwards < loop.steps:
        return
    steered = [n for n, p in facts.exp.model.named_parameters() if id(p) in facts.in_optimizer]
    if not steered:
        return  # an optimizer of another model sees no gradient of this one in any order of calls
    given = [[g for n in steered if (g := m.grads.get(n)) is not None] for m in moves]
    if any(bool(g.any()) for grads in given for g in grads):
        return
    # Later steps may see some. An optimizer that steps within backward, and forgets, moves the
    # weights; so does weight decay, where every gradient that was ever looked at was zero.
    if loop.felt or (loop.moved and not (all(given) and loop.looks > len(moves))):
        return
    fresh = [
        math.sqrt(sum(float(g.float().square().sum()) for g in m.fresh.values() if g is not None))
        for m in moves
    ]
    if not all(math.isfinite(f) and f > 0 for f in fresh):
        return
    what = "was None" if not any(given) else "was zero"
    yield Finding(
        "graph_detached",
        f"loss.backward() gives a gradient of norm {fresh[0]:.3g}, but when optimizer.step() was "
        f"called every .grad {what}: gradients are set to zero between backward() and step(), and "
        f"{loop.steps} steps have taught the model nothing",
        "call optimizer.zero_grad() before loss.backward(), not between it and optimizer.step()",
        where=tuple(steered),
        evidence={"norm": fresh[0], "steps": loop.steps, "backwards": loop.backwards},
        confirmed=True,
        strength=EXACT,
        repairs=(Repair("zero gradients first", None, mode="advise",
                        edit="optimizer.zero_grad(); loss.backward(); optimizer.step()"),),
    )  # fmt: skip


def keep_graph(exp: Experiment) -> str:
    """Let detach() and no_grad() within the forward pass do nothing."""
    kept = Edited(exp.model, KeepGraph())
    before_count = _reached(exp, exp.model)
    if _reached(exp, kept) <= before_count:
        message = "the graph is cut by something else, such as a way through numpy"
        raise CannotRepair(message)
    exp.model = kept
    return "detach() and no_grad() within the forward pass do nothing"


def _reached(exp: Experiment, model: Any) -> int:
    """Return how many parameters the outputs' graph reaches, for one batch."""
    params = [p for p in model.parameters() if p.requires_grad]
    try:
        xb, yb = next(iter(batches(exp, 0)))
        with torch.random.fork_rng(devices=[]):
            loss = exp.loss(call(model, xb), yb)
        if not loss.requires_grad:
            return 0
        grads = torch.autograd.grad(loss.mean(), params, allow_unused=True)
    except (RuntimeError, TypeError, StopIteration):
        return 0
    return sum(g is not None for g in grads)


RULE = Rule(
    code="graph_detached",
    title="the gradient does not get through",
    looks="the loss falls a little and stops; weights before the cut stay as they were",
    why="detach(), no_grad(), .item() and numpy give numbers without their history: nothing can "
    "be derived through them",
    do="compute the loss from tensors that never left the graph; set gradients to zero before "
    "backward, not between it and the step",
    source="PyTorch documentation, Autograd mechanics",
    before=before,
    confirm=judged_still,
    passes=PASSES,
    causes=(*DYNAMICS, "unused_parameters"),
)
