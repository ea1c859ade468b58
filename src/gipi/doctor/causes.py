"""Which finding comes first: roots before what they bring about, sure before likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gipi.doctor.finding import Finding
    from gipi.doctor.rule import Rule

SYMPTOM = "underfit"
"""It says that less was learned than could be, and not why: what else is wrong comes first."""
PHASES = {"before": 0, "steps": 1, "epoch": 2}


def descendants(rules: Iterable[Rule]) -> dict[str, set[str]]:
    """Return, for every code, all that it can bring about, directly or not."""
    direct = {r.code: set(r.causes) for r in rules}
    full: dict[str, set[str]] = {}
    for code in direct:
        seen: set[str] = set()
        ahead = [code]
        while ahead:
            for child in direct.get(ahead.pop(), ()):
                if child not in seen:
                    seen.add(child)
                    ahead.append(child)
        full[code] = seen - {code}
    return full


def parents(rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    """Return, for every code, those that can bring it about directly, in the order of the rules."""
    known = tuple(rules)
    return {r.code: tuple(a.code for a in known if r.code in a.causes) for r in known}


def ranked(findings: Iterable[Finding], rules: Iterable[Rule]) -> list[Finding]:
    """Return the findings with their parents, roots first.

    A finding is a child where a confirmed problem among the findings can bring it about; a child
    never stands before its parent, nor a hint before a hint at what may bring it about. Then
    problems before hints, confirmed before suspected, what says why before `SYMPTOM`, earlier
    phases before later ones, and the stronger before the weaker. What was a problem before the
    first step is not told again as one of a later phase, nor as a hint what a run made a problem.
    A child is a hint, however sure it is: it may be gone with its root, and is asked again then.
    """
    given = list(findings)
    first = {f.code for f in given if f.phase == "before" and f.severity == "problem"}
    later = {f.code for f in given if f.phase != "before" and f.severity == "problem"} - first
    found = [f for f in given if f.code not in (later if f.phase == "before" else first)]
    below = descendants(rules)
    sure = {f.code for f in found if f.confirmed and f.severity == "problem"}
    named = [
        f.but(parents=tuple(sorted(c for c in sure if c != f.code and f.code in below.get(c, ()))))
        for f in found
    ]
    told = {f.code for f in named}

    def behind(f: Finding) -> bool:
        """Whether it is a hint at what another finding, a hint perhaps, would bring about."""
        return f.severity == "hint" and any(f.code in below.get(c, ()) for c in told - {f.code})

    in_order = sorted(
        named,
        key=lambda f: (
            f.severity != "problem",
            bool(f.parents),
            behind(f),
            not f.confirmed,
            f.code == SYMPTOM,
            PHASES[f.phase],
            -f.strength,
        ),
    )
    return [f.but(severity="hint") if f.parents else f for f in in_order]


def roots(findings: Sequence[Finding]) -> list[Finding]:
    """Return the confirmed problems that no other brings about."""
    return [f for f in findings if f.severity == "problem" and f.confirmed and not f.parents]
