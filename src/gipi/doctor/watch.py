"""A plain loop that knows nothing of gipi, watched from beside.

    with gipi.watch(model, optimizer, loss_fn) as doctor:
        for xb, yb in loader:
            ...
    doctor.findings

From what is noted beside the loop (`record`) an `Experiment` is made, and the same rules judge it
as any other.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from gipi.core.errors import ConfigError, RequestError
from gipi.doctor.causes import ranked
from gipi.doctor.compared import carried
from gipi.doctor.copies import duplicate, on_cpu
from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts, Moved
from gipi.doctor.followed import as_heard, experiment_of, why_not
from gipi.doctor.heldback import once
from gipi.doctor.hushed import hushed
from gipi.doctor.look import look_before, look_during
from gipi.doctor.record import Record
from gipi.doctor.rules import RULES
from gipi.doctor.rules.exploding_gradient import clipped_at
from gipi.doctor.rules.grad_clip_too_small import tight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.doctor.ear import Heard
    from gipi.doctor.finding import Finding
    from gipi.doctor.trace import Loop

USUAL = ("oscillating_loss", "plateau")
"""What the losses of training batches alone do not show of a loop that may go on."""
IDLE = ("lr_decay_too_fast",)
"""Late findings that stay problems: they say what the steps that were taken came to."""


class Watch:
    """What `watch` gives: `findings` says what came of the steps, when it is asked.

    record  what was noted of the loop
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Any,
        *,
        val: Any = None,
        declared: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module) or not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError(
                f"watch({type(model).__name__}, {type(optimizer).__name__}, ...)",
                "a module, then the optimizer of its parameters",
                "gipi.watch(model, optimizer, loss)",
            )
        self.model, self.optimizer, self.loss = model, optimizer, loss or carried
        self.val, self.declared = val, {} if declared is None else declared
        self._plain = Experiment(
            model, train=[], val=val, loss=self.loss, optimizer=optimizer, declared=self.declared
        )
        self.record = Record(model, optimizer, self.loss)
        self._start: Experiment | None = None
        self._end: dict[str, Tensor] = {}
        self._end_of_optimizer: dict[str, Any] = {}
        self._result: Diagnosis | None = None

    def __enter__(self) -> Self:
        self._start = duplicate(self._plain)
        self.record.open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.record.close()
        if error is None:
            try:  # not on the device, which may be full, and never at the price of the loop
                self._end = on_cpu(self.model.state_dict())
                self._end_of_optimizer = on_cpu(self.optimizer.state_dict())
            except Exception:  # noqa: BLE001  what they are when the findings are asked must do
                self._end, self._end_of_optimizer = {}, {}

    def _moves(self, start: Experiment) -> list[Moved]:
        """Return the first steps, each beside what a fresh gradient of its rows would have been."""
        found = []
        for step in self.record.early:
            fresh = self._fresh(start, step.heard, step.weights)
            if fresh is not None:
                loss = math.nan if step.heard.loss is None else float(step.heard.loss)
                moved = {n: float(v) for n, v in step.moved.items()}
                found.append(Moved(loss, step.grads, fresh, moved))
        return found

    def _fresh(
        self, start: Experiment, heard: Heard, before: dict[str, Tensor]
    ) -> dict[str, Tensor | None] | None:
        """Return the gradient of the step's own rows from zero, at the weights it was taken at.

        None where the model cannot be called again in that way: the loop must go on.
        """
        twin = duplicate(start)
        with torch.no_grad():
            for name, p in twin.model.named_parameters():
                p.copy_(before[name])
        total: dict[str, Tensor | None] = {}
        for part in (heard, *heard.more):
            exp = experiment_of(twin, [part], self.val, self.declared)
            try:
                with torch.random.fork_rng(devices=[]):
                    if part.rng is not None:
                        torch.set_rng_state(part.rng)  # dropout drops what it dropped then
                    fresh = Facts(exp).gradients
            except Exception:  # noqa: BLE001  a doctor must not kill the patient
                return None
            for name, g in fresh.items():
                old = total.get(name)
                total[name] = old if g is None else g if old is None else old + g
        return total

    def __str__(self) -> str:
        return str(self.diagnosis) if self._end else repr(self)

    def __repr__(self) -> str:
        model, seen = type(self.model).__name__, f"{self.record.step} steps"
        if self._result is not None:
            return f"<Watch of {model}, {seen}: {repr(self._result)[len('<Diagnosis: ') : -1]}>"
        return f"<Watch of {model}, {seen}; .findings says what came of them>"

    @property
    def diagnosis(self) -> Diagnosis:
        """What the rules make of it, with counter-experiments on copies; the last word is kept."""
        if self._result is not None:
            return self._result
        result = self._judge()
        if self._end:
            self._result = result
        return result

    @property
    def findings(self) -> list[Finding]:
        """The findings, ranked: roots before what they cause."""
        return self.diagnosis.findings

    @hushed()
    def _judge(self) -> Diagnosis:
        if self._start is None:
            raise RequestError(
                "the doctor has watched nothing",
                "the loop within the watch",
                "with gipi.watch(model, optimizer, loss) as doctor: and the loop indented below",
            )
        record = self.record
        heard = [*record.heard.values()]
        start, taken = as_heard(self._start, heard)
        if not taken:
            why = why_not(start, heard, record.step, record.backwards, called=record.called)
            return Diagnosis(self._start, [], why_not=why, unseen=why)
        exp = experiment_of(start, taken, self.val, self.declared)
        exp.train = once(exp.train)
        exp.epochs = max(1.0, record.step / len(exp.train))
        facts, result = Facts(exp, loop=self.counted), Diagnosis(exp, [])
        moves = self._moves(start)
        if moves:
            facts.__dict__["moves"] = moves  # as the loop did them, not as we would
            clip = tight(moves)
            if clip is not None:
                clipped_at(clip)(exp)
        found = list(look_before(facts, RULES, result))
        if record.step:
            result.trace = record.trace
            # How long the loop was to go on is not known: not to have learned all is no problem.
            found += [
                f.but(severity="hint") if f.phase == "epoch" and f.code not in IDLE else f
                for f in look_during(
                    Facts(self._live(exp), start=facts), RULES, result.trace, result
                )
            ]
        # Tuning a trained net looks like this: a word only where something else says so too.
        result.findings = [f for f in ranked(found, RULES)
                           if f.code not in USUAL or f.parents
                           or (f.confirmed and self.val is not None)]  # fmt: skip
        result.passes = facts.passes
        return result

    def _live(self, exp: Experiment) -> Experiment:
        """Return a copy of the experiment with weights, moments and rates as they are by now."""
        live = duplicate(exp)
        live.model.load_state_dict(self._end or self.model.state_dict())
        state = self._end_of_optimizer or copy.deepcopy(self.optimizer.state_dict())
        sizes = [[len(g["params"]) for g in groups] for groups in (
            state["param_groups"], live.optimizer.param_groups)]  # fmt: skip
        if sizes[0] == sizes[1]:  # a loop may add groups as it goes
            live.optimizer.load_state_dict(state)
        return live

    @property
    def counted(self) -> Loop:
        """What the loop did so far, in numbers that need no device but for the weights."""
        assert self._start is not None
        now = self._end or self.model.state_dict()
        moved = any(n in now and not torch.equal(p.detach().to(now[n].device), now[n])
                    for n, p in self._start.model.named_parameters())  # sync  # fmt: skip
        return self.record.counted(moved=moved)


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Any,
    *,
    val: Any = None,
    declared: Mapping[str, Any] | None = None,
) -> Watch:
    """Return a context in which a training loop of your own is watched.

    loss      the function or module that the loop calls with (outputs, target); None where it is
              one of `torch.nn`, or where the model makes it itself
    val       (X, y) that the findings may be judged by
    declared  what you know and the doctor cannot see, see `Experiment`

    The loop is not changed, nor what it computes; `findings` of what it gives are ranked.
    """
    return Watch(model, optimizer, loss, val=val, declared=declared)
