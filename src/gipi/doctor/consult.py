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
from gipi.doctor.crawl import crawling, dooms, full_steps
from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.facts import Facts
from gipi.doctor.hushed import hushed
from gipi.doctor.look import LEAST_PASSES, look_before, look_during
from gipi.doctor.own_run import opened, rules_for
from gipi.doctor.play import play
from gipi.doctor.price import affordable
from gipi.doctor.rules import RULES
from gipi.doctor.settings import Changed, can_change, change, given, in_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.core.batch import Stream
    from gipi.core.config import Config
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding
    from gipi.train.prepare import Prepared

LOOK_S, LOOK_SHARE = 2.0, 0.02
"""The look before the first step may cost as many passes as take these seconds by their price (see
`price`), or this share of a time budget; the rehearsal of the first steps twice as many again."""
HARD_STOP = 10.0
"""Times as many seconds by the clock after which it ends in any case: prices are estimates. Rules
that ask whether a run is worth starting are not cut short by it, or a busy machine would decide."""
FASTER = 3.0
"""Times as many steps as their price says that a machine may take in a time budget."""
DOOM_SHARE, REHEARSAL_SHARE = 0.1, 0.02
"""Shares of the planned steps that it may cost at any rate to be sure of what dooms the run, and to
look at all else or rehearse the first steps."""
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
"""Passes that a rehearsal costs, and the shortest counter-experiment."""


@dataclass
class Consultation:
    """What the look before the first step came to.

    findings  ranked; changed: settings with their new values, and what was changed in words
    refusal   why the run is not worth starting, or None
    unlooked  rules that were too dear; unrehearsed: the first steps were too dear to be rehearsed
    """

    findings: list[Finding] = field(default_factory=list)
    changed: Changed = field(default_factory=Changed)
    refusal: GipiError | None = None
    seconds: float = 0.0
    unlooked: tuple[str, ...] = ()
    unrehearsed: bool = False

    @property
    def asks_for_columns(self) -> bool:
        """Whether other columns are to be read: the net must be made anew for them."""
        return "schema_overrides" in self.changed.settings

    def after(self, earlier: Consultation) -> Consultation:
        """Return both: what was found and changed before the columns were chosen anew, and this."""
        self.findings = [*earlier.findings, *self.findings]
        self.changed.said = [*earlier.changed.said, *self.changed.said]
        self.seconds += earlier.seconds
        return self

    def lines(self) -> list[str]:
        """Return what people read of it: two lines a finding, one a change.

        What another problem brings about stands in the report.
        """
        said = [line for f in self.findings if not f.parents for line in spoken(f)]
        said += [f"doctor: changed: {c}" for c in self.changed.said]
        skipped = [code for code in self.unlooked if code not in REHEARSED]
        if skipped:
            many = "1 look" if len(skipped) == 1 else f"{len(skipped)} looks"
            said.append(f"doctor: {many} did not fit into the time before the first step: "
                        "`gipi doctor RUN`")  # fmt: skip
        if self.unrehearsed:
            said.append("doctor: the first steps take too long to be tried out before: a learning "
                        "rate that is too high shows as the run goes on")  # fmt: skip
        return said


def spoken(finding: Finding) -> list[str]:
    """Return the lines in which a run says a finding: what is wrong, and what to do."""
    return [f"doctor: {finding.severity}: {finding.message} [{finding.code}]",
            f"    do: {finding.advice}"]  # fmt: skip


def consulted(prepared: Prepared, train: Stream, val: Stream | None) -> Consultation:
    """Return what `consult` says; nothing where the doctor is off or several ranks train."""
    if prepared.config.doctor == "off" or dist.world() > 1:
        return Consultation()
    optim.spare_compiler()  # an optimizer would import it: seconds
    try:
        return consult(prepared, train, val, device=pick_device(prepared.config.device))
    finally:
        optim.allow_compiler()


@hushed()
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
    peak = at_full_rate(exp)
    facts, diagnosis = Facts(peak), Diagnosis(exp, [])
    may_cost = allowance(facts, config)
    rules = rules_for(prepared.task)
    paper = tuple(rule for rule in rules if rule.code == "lr_decay_too_fast")
    found = list(look_before(Facts(exp), paper, diagnosis))
    others = tuple(rule for rule in rules if rule not in paper)
    first = dict.fromkeys(DOOMS, may_cost.of_doom)
    until = began + HARD_STOP * look_seconds(config)  # the rehearsal asks for what dooms
    found += look_before(facts, others, diagnosis, allowed=may_cost.passes, first=first,
                         until=until)  # fmt: skip
    if not roots(found):
        if may_cost.rehearsal:
            planned = full_steps(steps_at_most(facts, config), exp)
            found += rehearsed(peak, diagnosis, planned=planned)
        else:
            result.unrehearsed = True
    result.findings = [in_settings(f, prepared) for f in ranked(found, RULES)]
    result.unlooked = tuple(diagnosis.unlooked)
    for finding in roots(result.findings):
        his = given(finding, prepared)
        may = config.doctor == "repair" and (not his or config.apply)
        done = may and change(finding, exp, prepared, result.changed, yes=config.apply)
        if "schema_overrides" in result.changed.settings:  # all else is looked at anew without them
            wanted = {"schema_overrides": result.changed.settings["schema_overrides"]}
            result.findings, result.changed = [finding], Changed(wanted, result.changed.said[-1:])
            break
        doomed = finding.code in DOOMS or (dooms(finding) and config.pretrained is None)
        if not done and doomed and config.doctor == "repair":
            result.refusal = refusal(finding, his)
            break
    result.seconds = time.perf_counter() - began
    return result


@dataclass(frozen=True)
class Allowance:
    """What a look before the first step may cost, whatever else the machine does.

    passes     of rules; of_doom: of each rule that asks whether the run is worth starting
    rehearsal  whether the first steps may be rehearsed
    """

    passes: float
    of_doom: float
    rehearsal: bool


def allowance(facts: Facts, config: Config) -> Allowance:
    """Return what the price of a pass and the length of the run allow."""
    passes = affordable(look_seconds(config), facts)
    planned = 0 if config.time is not None else facts.exp.total_steps
    return Allowance(
        min(max(passes, REHEARSAL_SHARE * planned), LEAST_PASSES),
        min(max(passes, DOOM_SHARE * planned), LEAST_PASSES),
        2 * passes > REHEARSAL_PASSES or REHEARSAL_SHARE * planned > REHEARSAL_STEPS,
    )


def look_seconds(config: Config) -> float:
    """Return the seconds that a look should take."""
    return LOOK_S if config.time is None else min(LOOK_S, LOOK_SHARE * config.time)


def at_full_rate(exp: Experiment) -> Experiment:
    """Return a copy whose warm-up is cut short: counter-experiments have no time for a long one.

    Its rate is the highest of the schedule, which a cycle reaches in its middle.
    """
    peak = duplicate(exp)
    for group in peak.optimizer.param_groups:
        known = [group.pop("initial_lr", group["lr"]), group.pop("max_lr", 0.0)]
        group["lr"] = max(float(rate) for rate in known)
    peak.scheduler = torch.optim.lr_scheduler.LambdaLR(
        peak.optimizer, lambda i: min(1.0, (i + 1) / REHEARSAL_WARMUP)
    )
    return peak


def steps_at_most(facts: Facts, config: Config) -> float:
    """Return the steps of a run, those that a time budget may come to at most."""
    if config.time is None:
        return facts.exp.total_steps
    return FASTER * affordable(config.time, facts)


def rehearsed(
    peak: Experiment, diagnosis: Diagnosis, *, planned: float, allowed: float = LEAST_PASSES
) -> list[Finding]:
    """Return what the first steps at the full rate show, on a copy.

    planned  steps of the run
    allowed  passes of counter-experiments where something is suspected
    """
    twin = duplicate(peak)
    trace = play(twin, steps=REHEARSAL_STEPS)
    rules = tuple(rule for rule in RULES if rule.code in REHEARSED)
    facts = Facts(twin, start=Facts(peak))
    found = list(look_during(facts, rules, trace, diagnosis, allowed=allowed))
    if roots(found):
        return found
    left = allowed - facts.passes
    return found + crawling(peak, trace, diagnosis, planned=planned, allowed=left)


def refusal(finding: Finding, his: Mapping[str, str]) -> GipiError:
    """Return the error that refuses a run; `his`: settings behind it that the user gave."""
    by = ", ".join(f"{key} ({where})" for key, where in his.items())
    apply = "--apply lets the doctor change it, " if his and can_change(finding, yes=True) else ""
    tried = finding.evidence.get("loss_at")
    shown = ""
    if isinstance(tried, dict):
        falling = sorted(tried.items(), key=lambda item: -float(item[0].split()[-1]))
        shown = "; after as many steps at " + ", ".join(f"{k}: {v:.3g}" for k, v in falling)
    leave = f"or leave out {by}; " if his and not apply else ""
    return ConfigError(
        f"{finding.message}{shown} [{finding.code}]",
        f"a run that can learn{'; this one is doomed by ' + by if by else ''}",
        f"{finding.advice}; {leave}{apply}--doctor advise trains all the same",
    )
