"""The loss or a gradient is not a number any more."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gipi.doctor.copies import restore, untouched
from gipi.doctor.edits import finite_rows
from gipi.doctor.experiment import call, take_step
from gipi.doctor.finding import Change, Finding, Repair
from gipi.doctor.guard import FiniteSteps, finite_steps, what_is_left
from gipi.doctor.hushed import hushed
from gipi.doctor.rates import times_lr
from gipi.doctor.rule import Rule
from gipi.doctor.rules.exploding_gradient import clipped_at
from gipi.doctor.tape import entered, left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

MASKS = {
    "masked_fill",
    "masked_fill_",
    "full",
    "full_like",
    "where",
    "triu",
    "tril",
    "tensor",
    "fill_",
    "new_full",
    "__setitem__",
    "expand",
    "to",
    "clone",
    "unsqueeze",
    "__getitem__",
}
"""Functions that write minus infinity on purpose, or hand it on."""
ROWS = 256
STABLE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "F.cross_entropy on logits": F.cross_entropy,
    "F.nll_loss of clamped log-probabilities":
        lambda o, y: F.nll_loss(o.clamp_min(1e-7).log(), y),
    "F.binary_cross_entropy": lambda o, y: F.binary_cross_entropy(o, y.to(o.dtype)),
    "F.binary_cross_entropy_with_logits":
        lambda o, y: F.binary_cross_entropy_with_logits(o, y.to(o.dtype)),
    "F.mse_loss": lambda o, y: (o - y).square().mean(),
    "the root of the squared error, plus 1e-8":
        lambda o, y: ((o - y).square().mean() + 1e-8).sqrt(),
}  # fmt: skip
CLOSE = 2e-3
TELLS = 5
"""Steps without a finite loss after which a run is not waited for any more."""
FEW = 0.05
"""Share of steps left out on purpose up to which nothing is said of them."""
WENT_ON = " and reached no weight, the run went on without it"


@dataclass
class Culprit:
    """Where numbers stopped being finite.

    made     name of the function that first made one out of finite numbers
    place    the module within which it was called; "" for the loss
    low, high  range of what went into it
    rows     rows of the batch whose loss is not finite
    backward  the forward pass was sound, its gradient is not
    """

    made: str = ""
    place: str = ""
    low: float = math.nan
    high: float = math.nan
    rows: list[int] = field(default_factory=list)
    backward: bool = False

    def __str__(self) -> str:
        if not self.made:
            return "no single operation could be named"
        where = f"in '{self.place}'" if self.place else "in the loss"
        if self.backward:
            return f"first in the gradient of {self.made}"
        return f"first in {self.made} {where}, given values from {self.low:.3g} to {self.high:.3g}"


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where a loss or a gradient was not finite."""
    if trace.broken is None:
        return
    if trace.kept is None and all(math.isnan(v) for v in trace.losses):
        return  # seen from beside, and no loss was ever heard
    passed = passed_over(facts.exp, trace)
    if passed is None and trace.done < 1:
        return
    step, share = facts.exp.step, 0.0
    message = f"at step {trace.broken} loss or gradient was not finite"
    if passed is not False and isinstance(step, FiniteSteps):
        if trace.done < 1 or step.left_out <= FEW * step.taken:
            return  # that is what it is for: the treatment said how many steps it costs
        passed, share = True, step.left_out / step.taken
        message += f", as in {step.left_out} of {step.taken} steps ({share:.0%}), and is left out"
    facts.notes["broken"] = trace
    usual = [n for n in trace.norms[: trace.broken] if math.isfinite(n)]
    yield Finding(
        "nan_inf",
        message,
        "find the operation that is named; keep logarithms, roots and divisions away from 0",
        evidence={"step": trace.broken, "passed_over": bool(passed), "left_out": share,
                  "last_losses": trace.losses[max(0, trace.broken - 5) : trace.broken + 1],
                  "last_norms": usual[-5:]},
        phase="steps",
        step=trace.broken,
        strength=10.0,
    )  # fmt: skip


def passed_over(exp: Experiment, trace: Trace) -> bool | None:
    """Whether the broken step reached no weight and the run went on without it.

    So loss scaling does, and a guard around the step. None where nothing tells yet: the step was
    the last one, or those after it were no better.
    """
    assert trace.broken is not None
    if not all(bool(torch.isfinite(p).all()) for p in exp.model.parameters()):
        return False
    if any(math.isfinite(v) for v in trace.losses[trace.broken + 1 :]):
        return True
    return None if trace.step - trace.broken < TELLS else False


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Replay the last whole steps and look for the first operation that breaks."""
    trace: Trace = facts.notes["broken"]
    assert trace.broken is not None
    found = culprit(facts.exp, trace) if trace.kept is not None else Culprit()
    facts.passes += 8
    rows = _numbers(facts, trace, found.rows)
    grown = trace.diverged
    norms = sorted(n for n in trace.norms[: trace.broken] if math.isfinite(n)) or [1.0]
    usual = norms[int(0.9 * (len(norms) - 1))] or 1.0
    calm = [
        Repair("leave out steps that are not finite", finite_steps,
               edit="if not torch.isfinite(loss): optimizer.zero_grad(); continue"),
    ]  # fmt: skip
    tame = [
        Repair("lr / 10", times_lr(0.1), setting="lr"),
        Repair(f"clip the gradient's norm at {usual:.3g}", clipped_at(usual),
               edit=f"clip_grad_norm_(model.parameters(), {usual:.3g})"),
    ]  # fmt: skip
    if found.rows and found.place and not found.backward:
        # Without its rows nothing is left to pass over, and no batch is lost for one of them.
        calm.insert(0, Repair("leave out the rows whose answer is no number", finite_rows,
                              edit="keep = model(X).isfinite().all(1); X, y = X[keep], y[keep]; or "
                              "keep the operation that is named away from 0"))  # fmt: skip
    stable = _stable(facts) if not found.place else None
    first = [stable] if stable is not None else []
    passed = finding.evidence["passed_over"]
    went_on = WENT_ON if passed and not finding.evidence["left_out"] else ""
    grew = [abs(v) for v in trace.losses[: trace.broken + 1] if math.isfinite(v)]
    return finding.but(
        severity="hint" if passed else None,
        message=f"{finding.message}{went_on}: {found}"
        + (f"; the loss had grown to {max(grew):.3g} before" if grown and grew else ""),
        confirmed=True,
        where=(found.place,) if found.place else (),
        rows=rows,
        evidence={**finding.evidence, "made_by": found.made, "in_gradient": found.backward,
                  "input": [found.low, found.high], "batch_rows": found.rows[:32],
                  "grew_before": grown},
        repairs=(*first, *tame, *calm) if grown else (*first, *calm, *tame),
        restored=what_is_left(str(found)),
    )  # fmt: skip


# ---------------------------------------------------------------------- looking for it


class _Finder(TorchFunctionMode):
    """Notes the functions that make infinities, and NaN, of what had none."""

    def __init__(self, place: Callable[[], str]) -> None:
        super().__init__()
        self.place = place
        self.infinite: Culprit | None = None
        self.nan: Culprit | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.nan is not None or not _floating(result):
            return result
        name = getattr(func, "__name__", "")
        given = [a for a in _flat((*args, *(kwargs or {}).values())) if _floating(a)]
        with torch._C.DisableTorchFunction():  # noqa: SLF001
            if bool(torch.isnan(result).any()):
                if not any(bool(torch.isnan(a).any()) for a in given):
                    self.nan = self._culprit(name, given)
            elif (
                self.infinite is None
                and name not in MASKS
                and bool(torch.isinf(result).any())
                and not any(bool(torch.isinf(a).any()) for a in given)
            ):
                self.infinite = self._culprit(name, given)
        return result

    def _culprit(self, name: str, given: list[Tensor]) -> Culprit:
        first = next((a.detach() for a in given if a.numel()), None)
        low, high = (0.0, 0.0) if first is None else (float(first.min()), float(first.max()))
        return Culprit(name, self.place(), low, high)


def culprit(exp: Experiment, trace: Trace) -> Culprit:
    """Replay the steps since the state that was kept and return what broke first."""
    kept = trace.kept
    assert kept is not None and trace.broken is not None  # noqa: PT018
    with untouched(exp):
        restore(exp, kept.saved)
        for step, (xb, yb) in enumerate(kept.batches, kept.step):
            if step == trace.broken:
                return _searched(exp, xb, yb)
            take_step(exp, xb, yb)
            if exp.scheduler is not None and exp.scheduler_every == "step":
                with hushed():
                    exp.scheduler.step()
    return Culprit()


def _searched(exp: Experiment, xb: Any, yb: Any) -> Culprit:
    exp.model.train()
    if exp.transform is not None:
        xb = exp.transform(xb)
    state = torch.get_rng_state()
    stack: list[str] = []
    handles = []
    for name, module in exp.model.named_modules():
        handles += [
            module.register_forward_pre_hook(entered(stack, name or "the model")),
            module.register_forward_hook(left(stack), always_call=True),
        ]
    finder = _Finder(lambda: stack[-1] if stack else "")
    try:
        with finder:
            said = call(exp.model, xb)
            loss = exp.loss(said, yb)
    finally:
        for handle in handles:
            handle.remove()
    if not bool(torch.isfinite(loss).all()):
        found = finder.infinite or finder.nan or Culprit()
        found.rows = _rows(exp, said, yb)
        return found
    torch.set_rng_state(state)
    found = Culprit(backward=True)
    try:
        with hushed(), torch.autograd.set_detect_anomaly(True):
            exp.loss(call(exp.model, xb), yb).backward()
    except RuntimeError as error:
        name = re.search(r"'(\w+?)Backward\d*'", str(error))
        found.made = name.group(1).lower() if name else ""
    return found


def _rows(exp: Experiment, said: Any, yb: Any) -> list[int]:
    if not isinstance(said, Tensor) or not isinstance(yb, Tensor) or len(said) != len(yb):
        return []
    bad = []
    with torch.no_grad():
        for i in range(min(len(yb), ROWS)):
            try:
                if not bool(torch.isfinite(exp.loss(said[i : i + 1], yb[i : i + 1])).all()):
                    bad.append(i)
            except (RuntimeError, ValueError, IndexError):
                return []
    return bad


def _numbers(facts: Facts, trace: Trace, rows: list[int]) -> tuple[int, ...]:
    """Return the numbers of a batch's rows among the training rows, by their values."""
    kept, X = trace.kept, (facts.start or facts).X
    if kept is None or trace.broken is None or X is None:
        return ()
    at = trace.broken - kept.step
    xb = kept.batches[at][0] if at < len(kept.batches) else None
    if not isinstance(xb, Tensor) or xb.shape[1:] != X.shape[1:]:
        return ()
    found: list[int] = []
    for i in rows[:8]:
        same = (torch.nan_to_num(X) == torch.nan_to_num(xb[i])).reshape(len(X), -1).all(1)
        found += [int(n) for n in same.nonzero().flatten()[:1]]
    return tuple(sorted(set(found)))


# ---------------------------------------------------------------------- repairs


def _stable(facts: Facts) -> Repair | None:
    """Return the repair to a loss of torch's own that gives the same numbers where ours gives any.

    It is told by its values at the first outputs, and at others.
    """
    first = facts.start or facts
    said, y, loss = first.outputs, first.batch[1], first.exp.loss
    if not isinstance(said, Tensor) or type(loss).__module__.startswith("torch.nn"):
        return None
    trials = [said, 0.25 + 0.5 * said if bool(((said >= 0) & (said <= 1)).all()) else 0.5 * said]
    for name, form in STABLE.items():
        try:
            with torch.no_grad():
                pairs = [(float(loss(o, y)), float(form(o, y))) for o in trials]
        except (RuntimeError, ValueError, IndexError, TypeError):
            continue
        if all(math.isfinite(a) and abs(a - b) <= CLOSE * (abs(b) + 0.1) for a, b in pairs):
            return Repair(f"the loss as {name}", _with_loss(form, name), edit=f"loss = {name}")
    return None


def _with_loss(form: Callable[[Tensor, Tensor], Tensor], name: str) -> Change:
    def change(exp: Experiment) -> str:
        exp.judge = exp.judge or exp.loss
        exp.loss = form
        exp.judge = form  # the same numbers, but for those that were none
        return f"the loss is computed as {name}, which does not leave finite numbers"

    return change


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not value.is_sparse


def _flat(values: tuple[Any, ...]) -> Iterator[Any]:
    for v in values:
        if isinstance(v, (tuple, list)):
            yield from _flat(tuple(v))
        else:
            yield v


RULE = Rule(
    code="nan_inf",
    title="loss or gradient is not a number",
    looks="the loss prints nan or inf, and the net says nan of every row from then on",
    why="one NaN in a gradient is one in every weight after the step; nothing brings it back",
    do="go back before it, take the operation that made it in a form that is stable, leave out the "
    "rows that provoke it, or lower the rate where numbers had grown before",
    source="Goodfellow, Bengio and Courville 2016, section 4.1; Higham 2002",
    during=during,
    confirm=confirm,
    passes=8,
    causes=("plateau", "underfit"),
)
