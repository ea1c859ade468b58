"""The doctor within `gipi.train`: a look before the first step, and a watch on the rows.

What the user gave by flag or file is never changed behind his back: it is reported, and a run that
it dooms is refused with the reason, unless `apply` says yes.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi import optim
from gipi.core import dist
from gipi.core.atomic import write_file
from gipi.core.batch import Batch
from gipi.core.device import pick_device
from gipi.core.errors import ConfigError, GipiError
from gipi.core.events import Action, Step
from gipi.core.rundir import FINDINGS
from gipi.doctor.causes import ranked
from gipi.doctor.copies import duplicate
from gipi.doctor.diagnose import Diagnosis, look_before, look_during
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding
from gipi.doctor.play import play
from gipi.doctor.rules import RULES
from gipi.doctor.trace import CHECKS, LayerLook, Look, Trace
from gipi.tasks import call_model
from gipi.train.begin import schedule_of
from gipi.train.lanes import build_optimizer
from gipi.train.look import first_look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from gipi.core.batch import Stream
    from gipi.core.config import Config
    from gipi.tasks import Task
    from gipi.train.prepare import Prepared

LOOK_S, LOOK_SHARE = 2.0, 0.02
"""The look before the first step takes at most these seconds, and this share of a time budget;
the rehearsal of the first steps twice as much again."""
WATCH_SHARE = 0.02
"""Counter-experiments while the run goes on take at most this share of its steps."""
KEYS: dict[str, tuple[str, ...]] = {
    "lr_too_high": ("lr",), "lr_too_low": ("lr",), "bad_init_symmetric": ("model.init",),
    "bad_init_scale": ("model.init",), "unnormalised_input": ("normalise",),
    "vanishing_gradient": ("model.activation", "model.widths"),
    "saturated_activation": ("model.activation", "model.init"), "dead_relu": ("model.activation",),
    "dropout_too_high": ("model.dropout",), "weight_decay_too_high": ("weight_decay",),
    "grad_clip_too_small": ("clip_norm",), "lr_decay_too_fast": ("schedule",),
    "bn_batch_too_small": ("batch_size",), "augmentation_destroys_signal": ("augment",),
    "overfit": ("epochs", "model"), "wrong_loss": ("task.loss",),
}  # fmt: skip
"""The settings that a problem hangs on: where one of them was given, it is the user's."""
DOOMS = frozenset(
    ("lr_too_high", "bad_init_symmetric", "bad_init_scale", "nan_in_data", "labels_misaligned",
     "vanishing_gradient", "unnormalised_input", "graph_detached", "wrong_loss",
     "wrong_output_activation", "batch_mixing", "exploding_gradient")
)  # fmt: skip
"""Problems with which a run is not worth its time."""
REHEARSED = ("nan_inf", "lr_too_high", "exploding_gradient", "vanishing_gradient")
"""Problems that the first steps show, before the run begins."""
REHEARSAL_STEPS, REHEARSAL_WARMUP = 24, 10
REHEARSAL_PASSES = 60
"""Passes that a rehearsal costs, and the shortest counter-experiment; else there is no time."""
ROW_CODES = ("nan_inf", "lr_too_high", "class_imbalance")
"""Problems that rows show, whose losses are means over many steps. A run that learns its rows by
heart ends with the weights of its best evaluation: that is said there, and is no problem."""
WATCHED = ("classify", "regress", "forecast")
"""Tasks whose targets the rules know how to read."""
MACHINE = ("recipe", "from the data", "doctor")
"""Origins of values that nobody gave."""


@dataclass
class Consultation:
    """What the look before the first step came to.

    findings  ranked; changes: what was changed, in words; settings: configuration keys and values
    refusal   why the run is not worth starting, or None
    """

    findings: list[Finding] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    refusal: GipiError | None = None
    seconds: float = 0.0
    unlooked: tuple[str, ...] = ()
    """Rules for which there was no time."""

    def lines(self) -> list[str]:
        """Return what people read of it: one line a finding, one a change."""
        said = [f"doctor: {f.severity}: {f.message}" for f in self.findings]
        return said + [f"doctor: changed: {c}" for c in self.changes]


class _Rows:
    """The batches of a stream's first epoch as (inputs, target).

    Every pass gives the same ones, so that two short trainings differ by their change alone.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return self.stream.steps

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for batch in self.stream.epoch(0):
            if batch.target is None:
                continue
            values = tuple(v.clone() for v in batch.inputs.values())
            yield values[0] if len(values) == 1 else values, batch.target.clone()


class _Said(nn.Module):
    """A model that says what it is given: a task's loss of outputs that are known."""

    def forward(self, said: Tensor) -> Tensor:
        return said


def as_experiment(
    model: nn.Module, task: Task, train: Stream, val: Stream | None, config: Config
) -> Experiment | None:
    """Return a run as an experiment; None where a step is more than a model and a loss of it."""
    if len(task.phases) != 1 or task.phases[0].closure or task.forward is not call_model:
        return None
    if task.name not in WATCHED:
        return None
    if not train.steps or not train.rows:
        return None
    phase, said = task.phases[0], _Said()

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        found = phase.loss(said, Batch({"said": outputs}, target, rows=len(target)))
        return found.total / found.count

    optimizer = build_optimizer(model, config)
    epochs = config.epochs or (config.steps or 10 * train.steps) / train.steps
    total, shape = max(1, round(epochs * train.steps)), schedule_of(config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: shape(min(i / total, 1.0)))
    return Experiment(
        model, train=_Rows(train), val=None if val is None else _Rows(val), loss=loss,
        optimizer=optimizer, epochs=epochs, batch_size=train.batch_size, scheduler=scheduler,
        scheduler_every="step", seed=config.seed,
        declared=_declared(task, config),
    )  # fmt: skip


def _declared(task: Task, config: Config) -> dict[str, Any]:
    """Return what a configuration says that the doctor cannot see."""
    found: dict[str, Any] = {"frozen": tuple(config.freeze)} if config.freeze else {}
    if task.name == "forecast" or config.time_column is not None:
        found["time_ordered"] = True  # the newest rows judge: they may differ from the oldest
    return found


def opened(
    prepared: Prepared, train: Stream, val: Stream | None, *, device: torch.device
) -> Experiment | None:
    """Return a run as it stands before its first step: model placed, first layer looked at data."""
    prepared.model.to(device)
    if getattr(train, "can_store", False):
        train.store(half=False, channels_last=False)  # type: ignore[attr-defined]
    first_look(prepared.model, train, device)
    return as_experiment(prepared.model, prepared.task, train, val, prepared.config)


def consulted(prepared: Prepared, train: Stream, val: Stream | None) -> Consultation:
    """Return what `consult` says; nothing where the doctor is off or several ranks train."""
    if prepared.config.doctor == "off" or dist.world() > 1:
        return Consultation()
    optim.spare_compiler()  # an optimizer would import it: seconds
    try:
        return consult(prepared, train, val, device=pick_device(prepared.config.device))
    finally:
        optim.allow_compiler()


def attending(
    folder: Path,
    prepared: Prepared,
    asked: Consultation | None,
    train: Stream,
    val: Stream | None,
) -> list[Attending]:
    """Return the observer of a run, in a list that is empty where the doctor is off.

    asked  what was said before the first step; None: it stands in the folder of a resumed run
    """
    if prepared.config.doctor == "off" or dist.world() > 1:
        return []
    if asked is None:
        asked = Consultation(findings=read_findings(folder))
    else:
        found = [f.as_dict() for f in asked.findings]
        write_file(folder / FINDINGS, json.dumps(found, indent=1))
    return [Attending(prepared, asked, train, val)]


def consult(
    prepared: Prepared, train: Stream, val: Stream | None, *, device: torch.device
) -> Consultation:
    """Look at a run before its first step; say what is wrong, and what may be changed.

    The model is changed only by repairs that act on its weights in place, and only where its
    initialisation was not given.
    """
    began, config = time.perf_counter(), prepared.config
    result = Consultation()
    exp = opened(prepared, train, val, device=device)
    if exp is None:
        return result
    seconds = LOOK_S if config.time is None else min(LOOK_S, LOOK_SHARE * config.time)
    peak = at_full_rate(exp)
    facts, diagnosis = Facts(peak), Diagnosis(exp, [])
    paper = tuple(rule for rule in RULES if rule.code == "lr_decay_too_fast")
    found = list(look_before(Facts(exp), paper, diagnosis))
    others = tuple(rule for rule in RULES if rule not in paper)
    pass_began = time.perf_counter()
    _ = facts.gradients
    pass_s = time.perf_counter() - pass_began
    found += look_before(facts, others, diagnosis, until=began + seconds, pass_s=pass_s)
    if not roots(found):
        if REHEARSAL_PASSES * pass_s < 2 * seconds:
            found += _rehearsed(peak, diagnosis)
        else:
            diagnosis.unlooked += [code for code in REHEARSED if code not in diagnosis.unlooked]
    result.findings = ranked(found, RULES)
    result.unlooked = tuple(diagnosis.unlooked)
    for finding in roots(result.findings):
        given = _given(finding, prepared)
        may = config.doctor == "repair" and (not given or config.apply)
        done = may and _changed(finding, exp, prepared, result, yes=config.apply)
        if not done and finding.code in DOOMS and config.doctor == "repair":
            result.refusal = _refusal(finding, given)
            break
    result.seconds = time.perf_counter() - began
    return result


def at_full_rate(exp: Experiment) -> Experiment:
    """Return a copy whose warm-up is cut short: counter-experiments have no time for a long one."""
    peak = duplicate(exp)
    for group in peak.optimizer.param_groups:
        group["lr"] = group.pop("initial_lr", group["lr"])
    peak.scheduler = torch.optim.lr_scheduler.LambdaLR(
        peak.optimizer, lambda i: min(1.0, (i + 1) / REHEARSAL_WARMUP)
    )
    return peak


def _rehearsed(peak: Experiment, diagnosis: Diagnosis) -> list[Finding]:
    """Return what the first steps at the full rate show, on a copy."""
    twin = duplicate(peak)
    trace = play(twin, steps=REHEARSAL_STEPS)
    rules = tuple(rule for rule in RULES if rule.code in REHEARSED)
    facts = Facts(twin, start=Facts(peak))
    return list(look_during(facts, rules, trace, diagnosis))


def _given(finding: Finding, prepared: Prepared) -> dict[str, str]:
    """Return the settings behind a finding that the user gave: key -> where."""
    found = {}
    for key in KEYS.get(finding.code, ()):
        origin = prepared.origins.get(key)
        if origin is not None and not origin.startswith(MACHINE):
            found[key] = origin
    return found


def _changed(
    finding: Finding, exp: Experiment, prepared: Prepared, result: Consultation, *, yes: bool
) -> bool:
    """Carry out the first repair that fits a run of gipi; return whether one did.

    yes  repairs that need a person's word may be made, too

    Repairs act on a copy; what they changed of the rate and the passes becomes a setting, and
    weights that were only drawn anew are taken over.
    """
    for repair in finding.repairs:
        if repair.change is None or not (repair.mode == "auto" or (yes and repair.mode == "ask")):
            continue
        trial = duplicate(exp)
        try:
            said = repair.change(trial)
        except CannotRepair:
            continue
        rate, old = trial.optimizer.param_groups[0]["lr"], exp.optimizer.param_groups[0]["lr"]
        same = [n for n, _ in trial.model.named_parameters()] == [
            n for n, _ in prepared.model.named_parameters()
        ]
        if rate != old and same:
            lower = float(f"{prepared.config.lr * rate / old:.3g}")
            result.settings["lr"] = lower
            said = f"lr {prepared.config.lr:g} -> {lower:g}"
        elif trial.epochs != exp.epochs and same:
            result.settings |= {"epochs": float(trial.epochs), "steps": None, "time": None}
        elif same and type(trial.model) is type(prepared.model) and "init" in finding.code:
            prepared.model.load_state_dict(trial.model.state_dict())
            options = {k: v for k, v in prepared.config.model_options.items() if k != "init"}
            result.settings["model_options"] = options
        else:
            continue
        result.changes.append(f"{said} ({finding.code})")
        return True
    return False


def changed_settings(diagnosis: Diagnosis, prepared: Prepared) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that the repairs of a diagnosis come to, and what they do in words."""
    result = Consultation()
    for finding in roots(diagnosis.findings):
        _changed(finding, diagnosis.experiment, prepared, result, yes=True)
    return result.settings, result.changes


def roots(findings: Sequence[Finding]) -> list[Finding]:
    """Return the confirmed problems that no other brings about."""
    return [f for f in findings if f.severity == "problem" and f.confirmed and not f.parents]


def _refusal(finding: Finding, given: Mapping[str, str]) -> GipiError:
    by = ", ".join(f"{key} ({where})" for key, where in given.items())
    can = finding.code.startswith("lr_") or "init" in finding.code  # what `_changed` can carry over
    apply = "--apply lets the doctor change it, " if given and can else ""
    tried = finding.evidence.get("loss_at")
    shown = ""
    if isinstance(tried, dict):
        shown = "; after as many steps at " + ", ".join(f"{k}: {v:.3g}" for k, v in tried.items())
    return ConfigError(
        f"{finding.message}{shown} [{finding.code}]",
        f"a run that can learn{'; this one is doomed by ' + by if by else ''}",
        f"{finding.advice}; {apply}--doctor advise trains all the same",
    )


class Attending:
    """Watches the rows of a run; its verdicts become notes, and the learning rate may be lowered.

    findings  what was found so far, ranked with those of the look before
    """

    def __init__(
        self, prepared: Prepared, before: Consultation, train: Stream, val: Stream | None
    ) -> None:
        self.prepared, self.before, self.train, self.val = prepared, before, train, val
        self.known: dict[str, Finding] = {}
        self.trace: Trace | None = None
        self.due = list(CHECKS)
        self.said: list[Action] = []

    @property
    def findings(self) -> list[Finding]:
        """What was found before and during the run."""
        return ranked([*self.before.findings, *self.known.values()], RULES)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run goes on with."""
        return {"due": list(self.due), "known": [f.as_dict() for f in self.known.values()]}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Go on where the run was left; what was found then stands in its rows."""
        self.due = list(saved["due"])
        self.known = {f["code"]: Finding.from_dict(f) for f in saved["known"]}

    def __call__(self, step: Step) -> Action | None:
        """Take a row into the trace; at the checks, look at it."""
        if step.when == "row" and "train/loss" in step.row:
            self._take(step)
        if step.when == "evaluate" and self.trace is not None:
            add_evaluation(self.trace, step.row, self.prepared.task.primary)
        if self.trace is None or not self.due or step.progress < self.due[0]:
            return None
        self.due = [share for share in self.due if share > step.progress]
        return self._look(step)

    def _take(self, step: Step) -> None:
        if self.trace is None:
            total = step.total_steps or max(1, round(step.step / max(step.progress, 1e-6)))
            self.trace = Trace(total, max(1, step.steps_per_epoch))
        add_row(self.trace, step.row)

    def _look(self, step: Step) -> Action | None:
        assert self.trace is not None
        config, task = self.prepared.config, self.prepared.task
        exp = as_experiment(step.model, task, self.train, self.val, config)
        if exp is None:
            return None
        facts, result = Facts(duplicate(exp)), Diagnosis(exp, [])
        allowed = int(WATCH_SHARE * self.trace.planned)
        rules = tuple(rule for rule in RULES if rule.code in ROW_CODES)
        for finding in look_during(facts, rules, self.trace, result, known=self.known,
                                   allowed=allowed):  # fmt: skip
            if not finding.confirmed:
                continue  # there was no time for the counter-experiment
            self.known[finding.code] = finding
            sure = finding.confirmed and finding.severity == "problem"
            given = _given(finding, self.prepared)
            if sure and finding.code == "lr_too_high" and config.doctor == "repair" and not given:
                return Action("scale_lr", f"{finding.code}: {finding.message}", 0.1)
            if sure:
                return Action("note", f"{finding.code}: {finding.message}; {finding.advice}")
        return None


def add_row(trace: Trace, row: Mapping[str, Any]) -> None:
    """Add a row of `rows.jsonl` to a trace: its loss is the mean of the steps since the last."""
    missing = row["step"] - trace.step
    trace.losses += [row["train/loss"]] * missing
    trace.norms += [row.get("grad_norm", math.nan)] * missing
    last = trace.rates[-1] if trace.rates else math.nan
    trace.rates += [row.get("lr", last)] * missing
    if "layers" in row:
        looked = {
            name: LayerLook(v["grad_norm"], 1.0, v["update_ratio"])
            for name, v in row["layers"].items()
        }
        trace.looks.append(Look(row["step"], looked, {}))


def add_evaluation(trace: Trace, row: Mapping[str, Any], primary: str) -> None:
    """Add the row of an evaluation; the training loss beside it is that of the last steps."""
    if "val/loss" not in row or row.get("event"):
        return
    last = trace.losses[-1] if trace.losses else math.nan
    trace.epochs.append(
        {"epoch": round(row["step"] / trace.per_epoch, 2), "step": row["step"], "train": last,
         "train_eval": last, "val": row["val/loss"],
         "val_score": row.get(f"val/{primary}", -row["val/loss"])}
    )  # fmt: skip


def trace_of(rows: Sequence[Mapping[str, Any]], *, planned: int, steps: int, primary: str) -> Trace:
    """Return the trace that the rows of a run folder make; `steps` is those of one pass."""
    trace = Trace(planned, max(1, steps))
    for row in rows:
        if "train/loss" in row:
            add_row(trace, row)
        elif "val/loss" in row:
            add_evaluation(trace, row, primary)
    bad = [i for i, v in enumerate(trace.losses) if not math.isfinite(v)]
    trace.broken = bad[0] if bad else None
    return trace


def with_settings(prepared: Prepared, settings: Mapping[str, Any]) -> Prepared:
    """Return the run with settings that the doctor chose; their origin says so."""
    if not settings:
        return prepared
    config = prepared.config.model_copy(update=dict(settings))
    origins = {**prepared.origins, **dict.fromkeys(settings, "doctor")}
    return replace(prepared, config=config, origins=origins)


def read_findings(folder: Path) -> list[Finding]:
    """Return the findings that a run folder holds; none where there is no such file."""
    place = folder / FINDINGS
    if not place.exists():
        return []
    return [Finding.from_dict(one) for one in json.loads(place.read_text())]
