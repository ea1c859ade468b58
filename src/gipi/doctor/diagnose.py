"""A diagnosis: look before the first step, train and watch, confirm what is suspected, rank it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gipi.doctor.causes import ranked
from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.play import play
from gipi.doctor.rules import RULES
from gipi.doctor.treat import Treatment, treat

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding
    from gipi.doctor.rule import Rule
    from gipi.doctor.trace import Trace

LEAST_PASSES = 400
"""Passes that counter-experiments may cost in a short run."""
SHARE = 0.4
"""In longer runs they may cost this share of its steps."""


@dataclass
class Diagnosis:
    """What is wrong with an experiment.

    experiment  as it was given, unchanged
    findings    ranked: roots before what they cause
    trace       of the run that was watched; None where the look before the first step sufficed
    trained     the copy that was trained for it
    passes      forward and backward passes that looking and confirming cost, beside the run
    broken      rules that failed by an error of their own: code -> what happened
    """

    experiment: Experiment
    findings: list[Finding]
    trace: Trace | None = None
    trained: Experiment | None = None
    passes: int = 0
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)
    unlooked: list[str] = field(default_factory=list)
    """Rules for which there was no time."""
    why_not: str = ""
    """Why `repair` returned None."""

    @property
    def problems(self) -> list[Finding]:
        """The findings that hurt."""
        return [f for f in self.findings if f.severity == "problem"]

    def repair(self, *, apply: Iterable[str] = (), budget: float = 2.0) -> Treatment | None:
        """Repair what can be repaired by itself and return the proof; None with `why_not`.

        apply   codes whose repairs may be made though they need a yes
        budget  trainings of planned length that it may cost
        """
        return treat(self, apply=tuple(apply), budget=budget)

    def __str__(self) -> str:
        if not self.findings:
            return "nothing was found"
        lines = []
        for f in self.findings:
            by = f" (brought about by {', '.join(f.parents)})" if f.parents else ""
            lines.append(f"{f.severity}: {f.code}{by}: {f.message}\n  do: {f.advice}")
        return "\n".join(lines)


def diagnose(
    exp: Experiment, *, train: bool | None = None, rules: tuple[Rule, ...] | None = None
) -> Diagnosis:
    """Find out what is wrong with `exp`; it is left as it was.

    train  True: always train a copy and watch it; False: only look before the first step; None:
           train unless that look confirmed a problem that dooms the run
    rules  those that look; None: all of them
    """
    rules = RULES if rules is None else rules
    began = time.perf_counter()
    facts = Facts(exp)
    result = Diagnosis(exp, [])
    found = list(look_before(facts, rules, result))
    doomed = any(f.confirmed and f.severity == "problem" for f in found)
    if train or (train is None and not doomed):
        twin = duplicate(exp)
        watched = Facts(twin, start=facts)
        allowed = max(LEAST_PASSES, int(SHARE * exp.total_steps))
        known: dict[str, Finding] = {}

        def check(trace: Trace) -> bool:
            for finding in look_during(watched, rules, trace, result, known=known, allowed=allowed):
                known[finding.code] = finding
            return False

        result.trace = play(twin, check=check)
        result.trained = twin
        found += known.values()
        facts.passes += watched.passes
    result.findings = ranked(found, rules)
    result.passes = facts.passes
    result.seconds = time.perf_counter() - began
    return result


def look_before(
    facts: Facts,
    rules: tuple[Rule, ...],
    result: Diagnosis,
    *,
    until: float | None = None,
    pass_s: float = 0.0,
) -> Iterable[Finding]:
    """Yield what the rules find before the first step, confirmed or turned into hints.

    until   moment (`time.perf_counter`) after which no further rule looks
    pass_s  seconds of one pass: counter-experiments that would last longer are not begun
    """
    for rule in rules:
        if rule.before is None:
            continue
        if until is not None and time.perf_counter() > until:
            result.unlooked.append(rule.code)
            continue
        for finding in _tried(rule, rule.before, facts, result=result):
            allowed = LEAST_PASSES
            if until is not None and pass_s > 0:
                left = max(until - time.perf_counter(), 0.0)
                allowed = min(allowed, facts.passes + int(left / pass_s))
            sure = _confirmed(rule, facts, finding, allowed, result)
            if sure is not None:
                yield sure


def look_during(
    facts: Facts,
    rules: tuple[Rule, ...],
    trace: Trace,
    result: Diagnosis,
    *,
    known: Mapping[str, Finding] | None = None,
    allowed: int = LEAST_PASSES,
) -> Iterable[Finding]:
    """Yield what the rules find in a trace so far, one finding a code, those `known` left out."""
    for rule in rules:
        if rule.during is None or (known is not None and rule.code in known):
            continue
        for finding in _tried(rule, rule.during, facts, trace, result=result):
            seen = finding.but(step=finding.step or trace.step)
            sure = _confirmed(rule, facts, seen, allowed, result)
            if sure is not None:
                yield sure
                break


def _confirmed(
    rule: Rule, facts: Facts, finding: Finding, allowed: int, result: Diagnosis
) -> Finding | None:
    """Return the finding after its counter-experiment; a hint where none could be afforded."""
    if rule.confirm is None or finding.confirmed or finding.severity == "hint":
        return finding
    if facts.passes + rule.passes > allowed:
        return finding.but(severity="hint")
    look = rule.confirm
    tried = _tried(rule, lambda f, g: [look(f, g)], facts, finding, result=result)
    if rule.code in result.broken:
        return finding.but(severity="hint")
    return tried[0] if tried else None


def _tried(rule: Rule, look: Any, *given: Any, result: Diagnosis) -> list[Finding]:
    """Return what a look finds; a rule that fails by an error of its own harms nobody's run."""
    try:
        return [f for f in look(*given) if f is not None]
    except Exception as error:  # noqa: BLE001  a doctor must not kill the patient
        result.broken[rule.code] = f"{type(error).__name__}: {error}"
        return []
