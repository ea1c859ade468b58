"""`gipi doctor RUN`: what went wrong, why, and what to do, for people and as JSON."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from gipi.api import doctoring
from gipi.doctor.rules import RULES
from gipi.doctor.settings import changed_settings

if TYPE_CHECKING:
    from gipi.doctor.finding import Finding

WIDTH = 98


def examine(run: str, *, apply: bool) -> dict[str, Any]:
    """Print the findings of a run, ranked; with `apply` train again with what would cure it."""
    examined = doctoring.examine(run)
    result = examined.result
    print(f"run: {examined.folder}")
    if examined.refused:
        said = f"it was refused before its first step: {examined.refused}"
        print(textwrap.fill(said, WIDTH, subsequent_indent="   "))
    if result.trace is not None and not result.trace.losses:
        print("no step of it was logged: its data, settings and first weights were looked at")
    if not result.findings:
        print("nothing was found that hurts this run" if not examined.recorded
              else "nothing more is found in the finished run")  # fmt: skip
    for number, finding in enumerate(result.findings, 1):
        print("\n".join(lines(number, finding)))
    for old in examined.recorded:
        head = f"while it trained: {old.get('severity', 'hint')} [{old['code']}]"
        print(textwrap.fill(f"{head}: {old.get('message')}", WIDTH, subsequent_indent="   "))
    for said in examined.left_out:
        print(textwrap.fill(f"({said})", WIDTH, subsequent_indent=" "))
    for code, what in result.broken.items():
        print(f"(the rule {code} could not look: {what})")
    found: dict[str, Any] = {
        "run": str(examined.folder), "findings": [f.as_dict() for f in result.findings],
        "refused": examined.refused or None,
        "recorded": list(examined.recorded), "passes": result.passes,
        "unlooked": list(dict.fromkeys(result.unlooked)),
    }  # fmt: skip
    if apply:
        again = doctoring.retrain(result, examined.prepared)
        if again is None:
            print("nothing of this can be cured by a setting: see what to do above"
                  if result.problems else "there is nothing to change")  # fmt: skip
        found["again"] = None if again is None else again.summary()
    elif changes := changed_settings(result, examined.prepared).said:
        print(f"--apply would train again with: {'; '.join(changes)}")
    return found


def lines(number: int, finding: Finding) -> list[str]:
    """Return a finding as people read it: what, since when, why it is one, what to do."""
    rule = next((r for r in RULES if r.code == finding.code), None)
    sure = "confirmed" if finding.confirmed else "suspected"
    title = f"{number}. {finding.severity}: {rule.title if rule else finding.code} "
    title += f"[{finding.code}], {sure}"
    parts = [finding.message, *([f"why: {rule.why}"] if rule else []), f"do: {finding.advice}"]
    if finding.parents:
        parts.insert(1, f"brought about by: {', '.join(finding.parents)}")
    body = [textwrap.fill(part, WIDTH, initial_indent="   ", subsequent_indent="   ")
            for part in parts]  # fmt: skip
    return [title, *body]
