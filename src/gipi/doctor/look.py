"""Rules look: what they suspect before the first step and during a run, confirmed at once."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Finding
    from gipi.doctor.rule import Rule
    from gipi.doctor.trace import Trace

LEAST_PASSES = 400
"""Passes that counter-experiments may cost in a short run."""


class Notes(Protocol):
    """Where it is kept what looking could not do, as a diagnosis keeps it.

    broken    rules that failed by an error of their own: code -> what happened
    unlooked  codes of rules that would have cost more passes than are allowed
    """

    broken: dict[str, str]
    unlooked: list[str]


def look_before(
    facts: Facts,
    rules: tuple[Rule, ...],
    notes: Notes,
    *,
    allowed: float = LEAST_PASSES,
    first: Mapping[str, float] | None = None,
    until: float = math.inf,
) -> Iterable[Finding]:
    """Yield what the rules find before the first step, confirmed or turned into hints.

    allowed  passes after which no further rule looks, and within which counter-experiments end
    first    rules that look before all others and whatever it costs, and the passes within which
             their counter-experiments end: code -> passes
    until    what the clock says when no further rule looks, those of `first` excepted: passes
             may have been priced far too low, and what is left out is noted
    """
    ahead = first or {}
    for rule in sorted(rules, key=lambda rule: rule.code not in ahead):
        if rule.before is None:
            continue
        most = ahead.get(rule.code, allowed)
        late = facts.passes > most or time.perf_counter() > until
        if late and rule.code not in ahead:
            notes.unlooked.append(rule.code)
            continue
        for finding in _tried(rule, rule.before, facts, notes=notes):
            sure = _confirmed(rule, facts, finding, most, notes)
            if sure is not None:
                yield sure


def look_during(
    facts: Facts,
    rules: tuple[Rule, ...],
    trace: Trace,
    notes: Notes,
    *,
    known: Mapping[str, Finding] | None = None,
    allowed: float = LEAST_PASSES,
) -> Iterable[Finding]:
    """Yield what the rules find in a trace so far, one finding a code, those `known` left out."""
    for rule in rules:
        if rule.during is None or (known is not None and rule.code in known):
            continue
        for finding in _tried(rule, rule.during, facts, trace, notes=notes):
            seen = finding.but(step=finding.step or trace.step)
            sure = _confirmed(rule, facts, seen, allowed, notes)
            if sure is not None:
                yield sure
                break


def outgrown(
    facts: Facts, rules: tuple[Rule, ...], trace: Trace, notes: Notes, *, found: Iterable[Finding]
) -> list[str]:
    """Return the codes of what was found in the course of a run and is refuted by its end."""
    if trace.done < 1 or trace.broken is not None:
        return []
    asked = {rule.code: (rule, rule.outgrown) for rule in rules if rule.outgrown is not None}

    def gone(finding: Finding) -> bool:
        if finding.code not in asked or finding.step is None or finding.step >= trace.step:
            return False
        rule, look = asked[finding.code]
        seen = _tried(rule, lambda: [finding] if look(facts, trace, finding) else [], notes=notes)
        return bool(seen)

    return [finding.code for finding in found if gone(finding)]


def _confirmed(
    rule: Rule, facts: Facts, finding: Finding, allowed: float, notes: Notes
) -> Finding | None:
    """Return the finding after its counter-experiment; a hint where none could be afforded.

    What was too weak to be said without one is dropped there.
    """
    if rule.confirm is None or finding.confirmed or finding.severity == "hint":
        return finding
    cost = rule.passes if rule.cost is None else rule.cost(facts, finding)
    alone = rule.weak is None or not rule.weak(finding)
    if cost and facts.passes + cost > allowed:
        return finding.but(severity="hint") if alone else None
    look, facts.allowed = rule.confirm, allowed
    tried = _tried(rule, lambda f, g: [look(f, g)], facts, finding, notes=notes)
    if rule.code in notes.broken:
        return finding.but(severity="hint") if alone else None
    return tried[0] if tried else None


def _tried(rule: Rule, look: Any, *given: Any, notes: Notes) -> list[Finding]:
    """Return what a look finds; a rule that fails by an error of its own harms nobody's run."""
    try:
        return [f for f in look(*given) if f is not None]
    except Exception as error:  # noqa: BLE001  a doctor must not kill the patient
        notes.broken[rule.code] = f"{type(error).__name__}: {error}"
        return []
