"""A finished or broken run, looked at from its folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gipi.api.training import streams_of, train_layers
from gipi.core import resolve, rundir
from gipi.core.atomic import write_file
from gipi.core.device import pick_device
from gipi.core.errors import RequestError
from gipi.core.rows import read_rows
from gipi.doctor.attend import ROW_CODES
from gipi.doctor.causes import ranked, roots
from gipi.doctor.closures import can_step
from gipi.doctor.consult import REHEARSAL_STEPS, at_full_rate, rehearsed, steps_at_most
from gipi.doctor.copies import duplicate
from gipi.doctor.crawl import full_steps, full_steps_taken, has_learned
from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.facts import Facts
from gipi.doctor.hushed import hushed
from gipi.doctor.look import LEAST_PASSES, look_before, look_during
from gipi.doctor.own_run import opened, own_model, rules_for
from gipi.doctor.price import affordable
from gipi.doctor.rows import trace_of
from gipi.doctor.rules import RULES
from gipi.doctor.settings import changed_settings, in_settings
from gipi.train import checkpoint
from gipi.train.prepare import Own, prepare
from gipi.train.record import RESULT, check_own, check_same, read_start, read_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.api.run import Run
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding
    from gipi.train.prepare import Prepared


COST_S, COST_SHARE = 10.0, 0.5
"""What looking back may cost in passes: these seconds by their price, or this share of the run's
steps; counted as before a run, so that a busy machine changes nothing that is found."""


@dataclass(frozen=True)
class Examined:
    """What a look back at a run found.

    result    its diagnosis; prepared: its settings and data; folder: where it lies
    recorded  what was said while it trained and is not found now, as `findings.json` held it
    left_out  in words: what would have cost too much to be looked at
    refused   why it was refused before its first step; empty where it began
    """

    result: Diagnosis
    prepared: Prepared
    folder: Path
    recorded: tuple[dict[str, Any], ...]
    left_out: tuple[str, ...] = ()
    refused: str = ""


def examine(where: str | Path, *, own: Own | None = None) -> Examined:
    """Look at a run: its settings and data as before its first step, its rows, its weights.

    Findings are written to the run's findings.json; what was said while it trained stays there.
    Raises `RequestError` for a run whose steps are more than a model and one loss, and for data
    that has changed.
    """
    folder = rundir.resolve_run(where)
    own = own or Own()
    given, about = read_start(folder)
    check_own(own, about, do=OF_OBJECTS)
    prepared = prepare([given], own, again=True, tokenizer=read_tokenizer(folder))
    check_same(prepared, about)
    device = pick_device(prepared.config.device)
    train, val = streams_of(prepared, device)
    exp = opened(prepared, train, val, device=device)
    if exp is None:
        raise RequestError(
            f"{folder} is a run of the task '{prepared.task.name}'",
            "a task whose step is one loss and its gradient",
            f"read its rows and report: gipi report {folder}",
        )
    result, left_out = look_back(exp, folder, prepared, steps=train.steps)
    result.findings = [in_settings(f, prepared) for f in result.findings]
    found = [f.as_dict() for f in result.findings]
    recorded = _recorded(folder, {f["code"] for f in found})
    write_file(folder / rundir.FINDINGS, json.dumps([*found, *recorded], indent=1))
    refused = str(rundir.refusal_of(folder).get("found", ""))
    return Examined(result, prepared, folder, tuple(recorded), left_out, refused)


def _recorded(folder: Path, known: set[str]) -> list[dict[str, Any]]:
    """Return the findings that a run's folder holds, without codes that are known."""
    path = folder / rundir.FINDINGS
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [f for f in old if isinstance(f, dict) and f.get("code") and f["code"] not in known]


OF_OBJECTS = "in Python: gipi.diagnose(gipi.Experiment(model, train=..., loss=..., optimizer=...))"
_NOT_REHEARSED = (
    f"its first {REHEARSAL_STEPS} steps were not trained again, that would take longer than "
    f"{COST_SHARE:.0%} of the run: a learning rate that is too high, or a gradient that vanishes "
    "or explodes, may be missed"
)


_NO_STEP = (
    "its first steps were not trained again, its optimizer asks for the loss itself: a learning "
    "rate that is too high or too low may be missed"
)


def _ended(folder: Path, last: int) -> bool:
    """Whether a run ended, and was not resumed and stopped since."""
    path = folder / RESULT
    return path.exists() and last <= json.loads(path.read_text(encoding="utf-8")).get("steps", 0)


def _first_steps(
    facts: Facts, result: Diagnosis, *, plan: float | None, allowed: float
) -> list[Finding]:
    """Return what the first steps of a run say of it when they are trained again.

    plan  steps of a run that was stopped before its end, which is judged by what it was to be;
          None: it is judged by what it was
    """
    trace = result.trace
    assert trace is not None
    planned = full_steps_taken(trace, facts.exp) if plan is None else full_steps(plan, facts.exp)
    if has_learned(trace, nothing=facts.yardstick):
        planned = math.inf
    return rehearsed(at_full_rate(facts.exp), result, planned=planned, allowed=allowed)


@hushed()
def look_back(
    exp: Experiment, folder: Path, prepared: Prepared, *, steps: int
) -> tuple[Diagnosis, tuple[str, ...]]:
    """Return what is found before the first step, in the rows, and in the newest weights.

    And in words what is not looked at: trying things out may cost `COST_SHARE` of what the run took
    in steps, or what `COST_S` seconds pay for where that is more.
    """
    task = prepared.task
    facts, result, known = Facts(exp), Diagnosis(exp, []), rules_for(task)
    rows = read_rows(folder / rundir.ROWS)
    last = max((r["step"] for r in rows if "train/loss" in r), default=0)
    may_cost = min(LEAST_PASSES, max(COST_SHARE * last, affordable(COST_S, facts)))
    found = list(look_before(facts, known, result, allowed=may_cost))
    result.trace = trace_of(rows, planned=max(last, 1), steps=steps, primary=task.primary)
    if last:
        live = duplicate(exp)
        if checkpoint.list_checkpoints(folder):
            own_model(live).load_state_dict(checkpoint.newest_good(folder)[1]["model"])
        rules = tuple(rule for rule in known if rule.code in ROW_CODES)
        now = Facts(live, start=facts)
        found += look_during(now, rules, result.trace, result, allowed=may_cost)
    left_out = []
    if {f.code for f in roots(found)} <= {"nan_inf"}:  # what brings a run down shows at first
        if not can_step(exp):
            left_out.append(_NO_STEP)
        elif may_cost < REHEARSAL_STEPS:
            left_out.append(_NOT_REHEARSED)
        else:
            plan = None if _ended(folder, last) else steps_at_most(facts, prepared.config)
            more = _first_steps(facts, result, plan=plan, allowed=may_cost)
            codes = {f.code for f in more}
            found = [f for f in found if f.code not in codes] + more
    if result.unlooked:
        many = len(set(result.unlooked))
        left_out.append(f"left out, as longer than {COST_SHARE:.0%} of the run: looks of {many} "
                        f"rule{'s' * (many > 1)}")  # fmt: skip
    result.findings = ranked(found, RULES)
    return result, tuple(left_out)


def retrain(result: Diagnosis, prepared: Prepared, *, quiet: bool = False) -> Run | None:
    """Train the run again with what its diagnosis changes; None where no setting would cure it."""
    changed = changed_settings(result, prepared)
    if not changed.settings:
        return None
    kept = {**resolve.to_values(prepared.config), **changed.settings}
    kept.pop("out", None)
    origin = {k: "doctor" if k in changed.settings else "as before" for k in kept}
    layer = resolve.layer("run", [(k, v, origin[k]) for k, v in kept.items() if v is not None])
    if not quiet:
        print("\n".join(f"doctor: changed: {line}" for line in changed.said), flush=True)  # noqa: T201
    return train_layers([layer], quiet=quiet)
