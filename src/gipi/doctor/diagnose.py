"""A diagnosis: look before the first step, train and watch, confirm what is suspected, rank it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gipi.core.errors import ConfigError
from gipi.doctor.begun import WATCHED
from gipi.doctor.causes import ranked
from gipi.doctor.copies import duplicate, left_alone
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts
from gipi.doctor.hushed import hushed
from gipi.doctor.late import settled
from gipi.doctor.look import LEAST_PASSES, look_before, look_during, outgrown
from gipi.doctor.play import play
from gipi.doctor.rules import RULES
from gipi.doctor.sound import sound
from gipi.doctor.treat import Treatment, treat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gipi.doctor.begun import Begun
    from gipi.doctor.finding import Finding
    from gipi.doctor.rule import Rule
    from gipi.doctor.trace import Trace

SHARE = 0.4
"""In longer runs they may cost this share of its steps."""


@dataclass(repr=False)
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
    unseen: str = ""
    """Why nothing could be judged."""
    begun: list[Begun] = field(default_factory=list, repr=False)
    """Short trainings that a repair may go on from."""

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
        lines = [str(f) for f in self.findings]
        if not lines:
            lines = [f"nothing was judged: {self.unseen}" if self.unseen else "nothing was found"]
        failed = [f"could not be looked for, by an error: {code} ({what.splitlines()[0]})"
                  for code, what in self.broken.items()]  # fmt: skip
        return "\n".join([*lines, *failed])

    def __repr__(self) -> str:
        kinds = []
        for kind in ("problem", "hint"):
            codes = [f.code for f in self.findings if f.severity == kind]
            if codes:
                kinds.append(f"{kind}{'s' if len(codes) > 1 else ''} {', '.join(codes)}")
        if not kinds:
            kinds = [f"nothing was judged: {self.unseen}" if self.unseen else "nothing was found"]
        if self.broken:
            kinds.append(f"failed {', '.join(self.broken)}")
        return f"<Diagnosis: {'; '.join(kinds)}>"


@hushed()
def diagnose(
    exp: Experiment, *, train: bool | None = None, rules: tuple[Rule, ...] | None = None
) -> Diagnosis:
    """Find out what is wrong with `exp`; it is left as it was.

    Raises `DataError`, `ModelError` or `ConfigError`, before anything is trained, where a batch
    cannot pass through model and loss.

    train  True: always train a copy and watch it; False: only look before the first step; None:
           train unless that look confirmed a problem that dooms the run
    rules  those that look; None: all of them
    """
    rules = RULES if rules is None else rules
    began = time.perf_counter()
    if not isinstance(exp, Experiment):
        raise ConfigError(
            f"diagnose({type(exp).__name__})",
            "an experiment: a model and everything that trains it",
            "gipi.diagnose(gipi.Experiment(model, train=(X, y), loss=..., optimizer=...))",
        )
    exp.begun = []
    try:
        with left_alone(exp):
            result = _diagnosed(exp, rules, train=train)
        wanted = {id(r.change) for f in result.findings for r in f.repairs}
        wanted |= {id(None)} if result.trained is None else set()
        result.begun = [b for b in exp.begun if id(b.change) in wanted]
    finally:
        exp.begun = None
    result.seconds = time.perf_counter() - began
    return result


def _diagnosed(exp: Experiment, rules: tuple[Rule, ...], *, train: bool | None) -> Diagnosis:
    facts = Facts(exp)
    result = Diagnosis(exp, [])
    with left_alone(exp):  # so that a run begins where the user's one does
        sound(facts)
        found = list(look_before(facts, rules, result))
    doomed = any(f.confirmed and f.severity == "problem" for f in found)
    if train or (train is None and not doomed):
        twin = duplicate(exp)
        watched = Facts(twin, start=facts)
        allowed = max(LEAST_PASSES, int(SHARE * exp.total_steps))
        known: dict[str, Finding] = {}

        def check(trace: Trace) -> bool:
            watched.notes[WATCHED] = trace.losses
            for code in outgrown(watched, rules, trace, result, found=known.values()):
                del known[code]  # its rule is asked once more: the end may stand still as well
            for finding in look_during(watched, rules, trace, result, known=known, allowed=allowed):
                known[finding.code] = finding
            return False

        result.trace = play(twin, check=check)
        result.trained = twin
        found += known.values()
        facts.passes += watched.passes
        found = settled(facts, twin, result.trace, found)
    result.findings = ranked(found, rules)
    result.passes = facts.passes
    return result
