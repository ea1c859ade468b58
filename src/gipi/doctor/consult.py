"""The doctor before a run of `gipi train`: what is wrong, what was changed, what is refused.

What the user gave by flag or file is never changed behind his back: it is reported, and a run that
it dooms is refused with the reason, unless `apply` says yes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gipi import optim
from gipi.core import dist
from gipi.core.device import pick_device
from gipi.core.errors import ConfigError, GipiError
from gipi.doctor.causes import ranked, roots
from gipi.doctor.copies import duplicate
from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.facts import Facts
from gipi.doctor.look import look_before, look_during
from gipi.doctor.own_run import opened, rules_for
from gipi.doctor.play import play
from gipi.doctor.rules import RULES
from gipi.doctor.settings import Changed, can_change, change, given

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.core.batch import Stream
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding
    from gipi.train.prepare import Prepared

LOOK_S, LOOK_SHARE = 2.0, 0.02
"""The look before the first step takes at most these seconds, and this share of a time budget;
the rehearsal of the first steps twice as much again."""
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

NAMED = 4
"""Rules for which there was no time that are all written out."""


@dataclass
class Consultation:
    """What the look before the first step came to.

    findings  ranked; changed: settings with their new values, and what was changed in words
    refusal   why the run is not worth starting, or None
    unlooked  rules for which there was no time
    """

    findings: list[Finding] = field(default_factory=list)
    changed: Changed = field(default_factory=Changed)
    refusal: GipiError | None = None
    seconds: float = 0.0
    unlooked: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what people read of it: one line a finding, one a change."""
        said = [f"doctor: {f.severity}: {f.message}" for f in self.findings]
        said += [f"doctor: changed: {c}" for c in self.changed.said]
        skipped = [code for code in self.unlooked if code not in REHEARSED]  # the run shows those
        if skipped:
            which = ", ".join(skipped)
            if len(skipped) > NAMED:
                first = ", ".join(skipped[:NAMED])
                which = f"{len(skipped)} rules ({first}, ...); `gipi doctor RUN` looks again"
            said.append(f"doctor: no time before the first step for {which}")
        return said


def consulted(prepared: Prepared, train: Stream, val: Stream | None) -> Consultation:
    """Return what `consult` says; nothing where the doctor is off or several ranks train."""
    if prepared.config.doctor == "off" or dist.world() > 1:
        return Consultation()
    optim.spare_compiler()  # an optimizer would import it: seconds
    try:
        return consult(prepared, train, val, device=pick_device(prepared.config.device))
    finally:
        optim.allow_compiler()


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
    rules = rules_for(prepared.task)
    paper = tuple(rule for rule in rules if rule.code == "lr_decay_too_fast")
    found = list(look_before(Facts(exp), paper, diagnosis))
    others = tuple(rule for rule in rules if rule not in paper)
    pass_began = time.perf_counter()
    _ = facts.gradients
    pass_s = time.perf_counter() - pass_began
    found += look_before(facts, others, diagnosis, until=began + seconds, pass_s=pass_s)
    if not roots(found):
        if REHEARSAL_PASSES * pass_s < 2 * seconds:
            found += rehearsed(peak, diagnosis)
        else:
            diagnosis.unlooked += [code for code in REHEARSED if code not in diagnosis.unlooked]
    result.findings = ranked(found, RULES)
    result.unlooked = tuple(diagnosis.unlooked)
    for finding in roots(result.findings):
        his = given(finding, prepared)
        may = config.doctor == "repair" and (not his or config.apply)
        done = may and change(finding, exp, prepared, result.changed, yes=config.apply)
        if not done and finding.code in DOOMS and config.doctor == "repair":
            result.refusal = refusal(finding, his)
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


def rehearsed(peak: Experiment, diagnosis: Diagnosis) -> list[Finding]:
    """Return what the first steps at the full rate show, on a copy."""
    twin = duplicate(peak)
    trace = play(twin, steps=REHEARSAL_STEPS)
    rules = tuple(rule for rule in RULES if rule.code in REHEARSED)
    facts = Facts(twin, start=Facts(peak))
    return list(look_during(facts, rules, trace, diagnosis))


def refusal(finding: Finding, his: Mapping[str, str]) -> GipiError:
    """Return the error that refuses a run; `his`: settings behind it that the user gave."""
    by = ", ".join(f"{key} ({where})" for key, where in his.items())
    apply = "--apply lets the doctor change it, " if his and can_change(finding, yes=True) else ""
    tried = finding.evidence.get("loss_at")
    shown = ""
    if isinstance(tried, dict):
        shown = "; after as many steps at " + ", ".join(f"{k}: {v:.3g}" for k, v in tried.items())
    return ConfigError(
        f"{finding.message}{shown} [{finding.code}]",
        f"a run that can learn{'; this one is doomed by ' + by if by else ''}",
        f"{finding.advice}; {apply}--doctor advise trains all the same",
    )
