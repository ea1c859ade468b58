"""A plain loop that knows nothing of gipi, watched from beside.

    with gipi.watch(model, optimizer, loss_fn) as doctor:
        for xb, yb in loader:
            ...
    doctor.findings

Two hooks on the optimizer, and torch's two ways backward, see every step; nothing waits for the
device. At few steps, close together at first, what the model was given and what the loss compared
is kept as well, by listening to torch's own functions. From that an `Experiment` is made, and the
same rules judge it as any other.
"""

from __future__ import annotations

import copy
import math
import time
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from gipi.core.errors import ConfigError, RequestError
from gipi.core.memory import keep_freed_pages
from gipi.doctor.causes import ranked
from gipi.doctor.closures import with_closure
from gipi.doctor.compared import carried
from gipi.doctor.copies import duplicate, on_cpu
from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.ear import Ear, Heard
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts, Moved
from gipi.doctor.followed import as_heard, experiment_of, why_not
from gipi.doctor.gradients import norm_of, norms_of, whole_of
from gipi.doctor.heldback import once
from gipi.doctor.hushed import hushed
from gipi.doctor.look import look_before, look_during
from gipi.doctor.rules import RULES
from gipi.doctor.rules.eval_in_train_mode import RESTING, resting
from gipi.doctor.rules.exploding_gradient import clipped_at
from gipi.doctor.rules.grad_clip_too_small import tight
from gipi.doctor.rules.params_not_in_optimizer import cleared
from gipi.doctor.trace import LayerLook, Look, Loop, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.doctor.finding import Finding

EARLY = 3
"""Steps from the first that are listened to whole."""
GROWTH = 1.5
"""Each later look comes after this many times the steps of the one before."""
SHARE = 0.01
"""Later looks wait until all of them have taken less than this share of the time."""
GATHERED = 7
"""Further batches of one early step whose gradients are gathered, at most."""
BATCHES = 32
"""Batches that are kept for counter-experiments, at most."""
BETWEEN, ENOUGH = 8, 512
"""Steps after which a batch is only heard, not looked at, until so many rows are known: a few
microseconds a call of torch, and no copy of anything."""
USUAL = ("oscillating_loss", "plateau")
"""What the losses of training batches alone do not show of a loop that may go on."""
IDLE = ("lr_decay_too_fast",)
"""Late findings that stay problems: they say what the steps that were taken came to."""


class Watch:
    """What `watch` gives: `findings` says what came of the steps, when it is asked.

    passes  forward and backward passes that looking and confirming cost
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
        self.losses: list[Tensor | float] = []
        self.rates: list[float] = []
        self.norms: dict[int, Tensor] = {}
        self.between: list[Tensor] = []
        self.heard: dict[int, Heard] = {}
        self.looks: list[tuple[int, dict[str, int], Tensor]] = []
        self.early: list[
            tuple[Heard, dict[str, Tensor], dict[str, Tensor | None], dict[str, Tensor]]
        ] = []
        self.looking_s = 0.0
        self._began = time.perf_counter()
        self.step = 0
        self.next_look = 0
        self.names = {id(p): n for n, p in model.named_parameters()}
        self._ear: Ear | None = None
        self._left: list[Ear] = []
        self.called = False
        self._handles: list[Any] = []
        self._loss_now: Tensor | float | None = None
        self._before: dict[str, Tensor] = {}
        self._grads: dict[str, Tensor | None] = {}
        self._ways: tuple[Any, Any] = torch.Tensor.backward, torch.autograd.backward
        self._put: tuple[Any, Any] = self._ways
        self._within, self._over = False, False
        self._start: Experiment | None = None
        self._look_began = 0.0
        self._end: dict[str, Tensor] = {}
        self._end_of_optimizer: dict[str, Any] = {}
        self.backwards = self.rows = self.cleared = 0
        self.reached = False
        self._looking, self._light, self.evaluating = True, True, 0
        self.resting: tuple[str, ...] = ()
        self._result: Diagnosis | None = None

    # ------------------------------------------------------------------ the loop goes on within

    def __enter__(self) -> Self:
        self._start = duplicate(self._plain)
        keep_freed_pages()  # what is kept here would shape the heap, and steps fault on fresh pages
        self._handles = [
            self.optimizer.register_step_pre_hook(self._called_to_step),
            self.optimizer.register_step_post_hook(self._stepped),
        ]
        self._over = False
        self._ways = torch.Tensor.backward, torch.autograd.backward
        self._put = tuple(map(self._heard_way, self._ways))
        torch.Tensor.backward, torch.autograd.backward = self._put  # type: ignore[method-assign]
        self._listen()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._deafen()
        self._over = True  # what another watch put over it forwards from now on
        if torch.Tensor.backward is self._put[0]:
            torch.Tensor.backward = self._ways[0]  # type: ignore[method-assign]
        if torch.autograd.backward is self._put[1]:
            torch.autograd.backward = self._ways[1]
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if error is None:
            try:  # not on the device, which may be full, and never at the price of the loop
                self._end = on_cpu(self.model.state_dict())
                self._end_of_optimizer = on_cpu(self.optimizer.state_dict())
            except Exception:  # noqa: BLE001  what they are when the findings are asked must do
                self._end, self._end_of_optimizer = {}, {}

    def _heard_way(self, original: Any) -> Any:
        """Return a way backward that is noted; within another it is none of the loop's own."""

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if self._within or self._over:
                original(tensors, *args, **kwargs)
                return
            self._about_to_go_back(tensors)
            self._within = True
            try:
                original(tensors, *args, **kwargs)
            finally:
                self._within = False
            if not self.step:
                self.reached = self.backwards < EARLY and any(
                    p.grad is not None for p in self.model.parameters()
                )

        return backward

    def _about_to_go_back(self, tensors: Any) -> None:
        self._loss_now = _noted(tensors)
        if self.reached:
            self.cleared += cleared(self.model)
        self.backwards += 1
        if self._ear is not None:
            self._close_ear(self._ear)

    def _close_ear(self, ear: Ear) -> None:
        """Where no step follows, nothing must listen on; but early, gradients may be gathered."""
        heard = ear.heard
        if not heard.whole:
            return
        if heard.loss is None:
            heard.loss = self._loss_now
        first = self.heard[self.step]
        if self.step < EARLY and len(first.more) < GATHERED:
            first.more.append(more := Heard())
            ear.hear(more)
        else:
            ear.close()

    def _listen(self, *, light: bool = False) -> None:
        self.heard[self.step] = heard = Heard()
        self._ear = Ear(self.model, heard, self.loss, light=light)
        self._ear.open()

    def _deafen(self) -> None:
        if self._left:  # heard later, and left first
            self._left = [ear for ear in self._left if not ear.leave()]
        if self._ear is None:
            return
        self._ear.close()
        if not self._ear.leave():
            self._left.insert(0, self._ear)
        heard = self.heard[self.step]
        heard.more = [h for h in heard.more if h.whole]
        if heard.whole and heard.target is not None:
            self.rows += len(heard.target)
        else:
            self.called |= heard.called
            del self.heard[self.step]
            self._light &= self._ear.loss is None  # what is heard so is not enough here
        self._ear = None

    def _called_to_step(self, _: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Note the step before it is taken: where it asks for the loss, once it has been told."""
        wrapped = with_closure(args, kwargs, self._about_to_step)
        if wrapped is None:
            self._about_to_step()
        return wrapped

    def _about_to_step(self) -> None:
        self.rates.append(float(self.optimizer.param_groups[0]["lr"]))
        self.losses.append(math.nan if self._loss_now is None else self._loss_now)
        self.evaluating = 0 if self.model.training else self.evaluating + 1
        if self.evaluating == RESTING:
            self.resting = resting(self.model)
        if self._ear is None:
            return
        if not self._looking:
            self._deafen()
            if (norm := self._norm()) is not None:
                self.between.append(norm)
            return
        self._look_began = time.perf_counter()
        heard = self.heard[self.step]
        heard.loss = self._loss_now if heard.loss is None else heard.loss
        self._deafen()
        if (norm := self._norm()) is not None:
            self.norms[self.step] = norm
        self._before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self._grads = {n: None if p.grad is None else whole_of(p.grad.detach()).clone()
                       for n, p in self.model.named_parameters()}  # fmt: skip

    def _norm(self) -> Tensor | None:
        grads = [p.grad for g in self.optimizer.param_groups for p in g["params"]
                 if p.grad is not None]  # fmt: skip
        if not grads:
            return None
        return norm_of(grads)

    def _stepped(self, *_: Any) -> None:
        if self._before:
            self._look()
            self._before, self._grads = {}, {}
        self.step += 1
        self._loss_now, self.reached = None, False
        if self._look_began:
            self.looking_s += time.perf_counter() - self._look_began
            self._look_began = 0.0
        due = self.step >= self.next_look and len(self.heard) < BATCHES
        if due and self.step >= EARLY:  # a listened step costs about as much again as its look
            elapsed = time.perf_counter() - self._began
            due = 2 * self.looking_s <= SHARE * elapsed
        if self.step < EARLY or due:
            self.next_look = max(self.step + 1, int(self.step * GROWTH))
            self._looking = True
            self._listen()
        elif self.step % BETWEEN == 0 and self.rows < ENOUGH and len(self.heard) < BATCHES // 2:
            self._looking = False
            self._listen(light=self._light)

    def _look(self) -> None:
        """Note what the step changed; of the first steps also whether the gradient was fresh."""
        now = {n: p.detach() for n, p in self.model.named_parameters()}
        names = [n for n, old in self._before.items() if old.numel() and old.is_floating_point()]
        if not names:
            return
        old = [self._before[n] for n in names]
        moves = list(torch._foreach_sub([now[n] for n in names], old))  # noqa: SLF001
        known = [self._grads[n] for n in names]
        grads = [w.new_zeros(()) if g is None else g for g, w in zip(known, old, strict=True)]
        norms = [n.float() for each in (grads, old, moves) for n in norms_of(each)]
        sizes = {n: w.numel() for n, w in zip(names, old, strict=True)}
        self.looks.append((self.step, sizes, torch.stack(norms).view(3, -1)))
        heard = self.heard.get(self.step)
        if heard is not None and heard.whole and len(self.early) < EARLY:
            most = torch._foreach_norm(moves, math.inf)  # noqa: SLF001
            moved = dict(zip(names, most, strict=True))
            self.early.append((heard, self._before, self._grads, moved))

    def _moves(self, start: Experiment) -> list[Moved]:
        """Return the first steps, each beside what a fresh gradient of its rows would have been."""
        found = []
        for heard, before, grads, moved in self.early:
            fresh = self._fresh(start, heard, before)
            if fresh is not None:
                loss = math.nan if heard.loss is None else float(heard.loss)
                found.append(Moved(loss, grads, fresh, {n: float(v) for n, v in moved.items()}))
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

    # ------------------------------------------------------------------ what it comes to

    def __str__(self) -> str:
        return str(self.diagnosis) if self._end else repr(self)

    def __repr__(self) -> str:
        model, seen = type(self.model).__name__, f"{self.step} steps"
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
        start, taken = as_heard(self._start, [*self.heard.values()])
        if not taken:
            heard, called = [*self.heard.values()], self.called
            why = why_not(start, heard, self.step, self.backwards, called=called)
            return Diagnosis(self._start, [], why_not=why, unseen=why)
        exp = experiment_of(start, taken, self.val, self.declared)
        exp.train = once(exp.train)
        exp.epochs = max(1.0, self.step / len(exp.train))
        facts, result = Facts(exp, loop=self.counted), Diagnosis(exp, [])
        moves = self._moves(start)
        if moves:
            facts.__dict__["moves"] = moves  # as the loop did them, not as we would
            clip = tight(moves)
            if clip is not None:
                clipped_at(clip)(exp)
        found = list(look_before(facts, RULES, result))
        if self.step:
            result.trace = self.trace
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
        felt = any(bool(norm) for norm in (*self.norms.values(), *self.between))
        return Loop(self.step, self.backwards, self.evaluating, self.resting, moved,
                    len(self.norms) + len(self.between), felt, self.cleared)  # fmt: skip

    @property
    def trace(self) -> Trace:
        """The steps so far, read from the device."""
        trace = Trace(self.step, max(1, len(self.heard)), open=True)
        trace.losses = [float(v) for v in self.losses]  # sync
        trace.rates = list(self.rates)
        dims = {n: p.ndim for n, p in self.model.named_parameters()}
        last = math.nan
        for step in range(self.step):
            last = float(self.norms[step]) if step in self.norms else last
            trace.norms.append(last)
        trace.looks = []
        for step, sizes, norms in self.looks:
            table = (norms.cpu() / torch.tensor([*sizes.values()]).sqrt()).T.tolist()
            rows = zip(sizes, table, strict=True)
            looks = {n: LayerLook(g, w, moved, dims.get(n, 2)) for n, (g, w, moved) in rows}
            trace.looks.append(Look(step, looks, {}))
        bad = [i for i, v in enumerate(trace.losses) if not math.isfinite(v)]
        trace.broken = bad[0] if bad else None
        return trace


def _noted(tensors: Any) -> Tensor | float:
    """Return a loss to be read later; a number at once where nothing has to be waited for."""
    if isinstance(tensors, Tensor) and tensors.numel() == 1:
        return tensors.item() if tensors.is_cpu else tensors.detach()
    parts = [tensors] if isinstance(tensors, Tensor) else [*tensors]
    known = [p.detach().sum() for p in parts if isinstance(p, Tensor)]
    return torch.stack(known).sum() if known and len(known) == len(parts) else math.nan


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
