"""The course of a treatment: which repairs are tried, on what they stand, and which are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gipi.doctor.begun import beginning, goes_on
from gipi.doctor.causes import ranked, roots
from gipi.doctor.copies import duplicate
from gipi.doctor.finding import CannotRepair
from gipi.doctor.gone import anew, remaining
from gipi.doctor.guard import hardly_trained
from gipi.doctor.play import play
from gipi.doctor.probes import after_steps
from gipi.doctor.proof import compare, side_by_side
from gipi.doctor.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.begun import Begun
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding, Repair
    from gipi.doctor.trace import Trace

TRIAL = 0.15
"""Where there is a choice of repairs each is tried for this share of the run first."""
LEAST = 20
"""Steps of such a trial, at least."""
OPTIONS = 3
"""Repairs of one finding that are tried, at most."""
HARDLY = 0.6
"""Share of the first loss above which a repaired run has hardly learned."""
HIDDEN = 3
"""Looks for what another fault hid, at most: a frozen layer of zeros hides behind one of zeros."""

STRICT = ("better", "not worse")
"""Kinds of proof, the strictest first: repairs that are made together need that of any of them."""

Option = list[tuple["Finding", "Repair"]]
"""Repairs that are made together, each with its finding."""


@dataclass
class Course:
    """A treatment under way: what was kept, what it cost, and the run that is best so far."""

    exp: Experiment
    problems: list[Finding]
    allowed: int
    spent: int = 0
    """Steps of the runs that were made, those they went on from among them."""
    known: int = 0
    """Of these, the steps that were taken before."""
    accepted: list[Repair] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    mended: list[Finding] = field(default_factory=list)
    partly: dict[str, str] = field(default_factory=dict)
    remains: list[Finding] = field(default_factory=list)
    grounds: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    best: Experiment = field(init=False)
    untreated: Experiment = field(init=False)
    joined: dict[tuple[int, ...], Callable[[Experiment], object]] = field(default_factory=dict)

    def took(self, steps: int, since: Begun | None) -> None:
        """Count the steps of a run, and those that it went on from."""
        self.spent += steps
        self.known += 0 if since is None else len(since.losses)

    def there(self, finding: Finding, found: list[Finding]) -> bool:
        """Whether no fewer problems of a finding's code are found than there were."""
        return len(found) >= max(1, sum(f.code == finding.code for f in self.problems))

    def curing(self, exact: Option, *, after: Option | None = None) -> Option:
        """Return the exact repairs that fit, and after which a look finds less than before.

        What was found in the course of a run is looked for again after the changed one.

        after  repairs that are made before them
        """
        found: Option = []
        for finding, repair in exact:
            twin = duplicate(self.exp)
            try:
                for r in (*(kept for _, kept in (*(after or ()), *found)), repair):
                    _made(r, twin)
            except CannotRepair as why:
                self.rejected.append(f"{repair.name}: {why}")
                continue
            if finding.phase == "before" and self.there(finding, remaining(finding.code, twin)):
                self.rejected.append(f"{repair.name}: {finding.code} is still there")
                continue
            found.append((finding, repair))
        return found

    def hidden(self, exact: Option, apply: tuple[str, ...]) -> Option:
        """Return what is found at a start once exact repairs are made, with its first repairs.

        Nothing can be told of weights that the loss does not depend on yet.
        """
        more: Option = []
        fit = 0
        for _ in range(HIDDEN):
            twin = duplicate(self.exp)
            try:
                for _, repair in (*exact, *more):
                    _made(repair, twin)
            except CannotRepair:
                return more[:fit]
            fit = len(more)
            found = self._fresh(twin, [f for f, _ in (*exact, *more)])
            fresh = [(f, rs[0]) for f, rs in candidates(found, apply)]
            if not fresh:
                break
            more += fresh
        return more

    def uncovered(self, exact: Option, more: Option) -> None:
        """Take the exact repairs, and what they uncover on top of them, each by its own proof.

        What they uncover belongs to what was found: its run is made whatever the budget.
        """
        sure = self.curing([pair for pair in more if pair[1].proof == "exact"], after=exact)
        rest = [pair for pair in more if pair[1].proof != "exact"]
        self.take([[*exact, *sure]])
        if rest and self.accepted:
            self.take([rest], needed=True)
        elif rest:  # nobody is better by the exact ones alone
            self.take([[*exact, *sure, *rest]])

    def _fresh(self, start: Experiment, known: list[Finding]) -> list[Finding]:
        """Return the problems at a start that are not known to be of the same places."""
        found, passes = anew(start)
        self.spent += passes
        places = {(f.code, f.where) for f in known}
        return ranked([f for f in found if (f.code, f.where) not in places], RULES)

    def unlearnt(self) -> None:
        """Say of all that was mended that it did not help, and look for what else is wrong."""
        for finding in self.mended:
            self.partly.setdefault(
                finding.code, "it is gone, and the run learns nothing all the same"
            )
        start = duplicate(self.exp)
        for repair in self.accepted:
            _made(repair, start)
        self.remains = roots(self._fresh(start, []))

    def take(self, options: list[Option], *, needed: bool = False) -> None:
        """Run the options, the most promising first; keep the first that proves better.

        What shows only late in a run cannot be tried in short: there every option that the budget
        allows is run, and the best is kept. So it is where the first has hardly learned.

        needed  one is run whatever the budget
        """
        first = options[0][0][0]
        if self.spent >= self.allowed and self.accepted and not needed:
            self.rejected.append(f"{first.code}: not tried, the budget is used up")
            return
        late = first.phase == "epoch"
        kept: tuple[Experiment, Option, list[str], dict[str, str]] | None = None
        grounds = ""
        for number, option in enumerate(options if late else self._promising(options)):
            if number and self.spent >= self.allowed:
                break
            twin, repairs = duplicate(self.exp), [r for _, r in option]
            try:
                said = [_made(r, twin) for r in (*self.accepted, *repairs)][len(self.accepted) :]
            except CannotRepair as why:
                self.rejected.append(f"{repairs[0].name}: {why}")
                continue
            wanted = next((p for p in STRICT if any(r.proof == p for r in repairs)), "exact")
            measure = repairs[0].measure
            start = duplicate(twin)
            seen = any(r.proof in ("exact", "not worse") and f.phase != "before" for f, r in option)
            since = None if seen else beginning(self.exp, twin, self._change(repairs))
            twin = twin if since is None else since.exp
            trace = play(twin, quiet=True, brief=not seen, since=since)
            self.took(trace.step, since)
            proof = compare(self.best, twin, measure=measure)
            figures = f"{', '.join(said)}: {'' if measure is None else measure.name + ' '}{proof}"
            left = [
                f.code for f, r in option if r.proof == "exact" and f.phase != "before"
                and self.there(f, remaining(f.code, start, trained=(twin, trace)))
            ]  # fmt: skip
            if left:
                figures += f"; {', '.join(left)} is still there"
            idle = hardly_trained(twin)
            if idle:
                figures += f"; {idle}"
            if left or idle or not proof.holds(wanted):
                self.rejected.append(figures)
                continue
            lacking = self._lacking(option, start, twin, trace)
            if kept is not None and not (
                len(lacking) < len(kept[3])
                or (len(lacking) == len(kept[3])
                    and compare(kept[0], twin, measure=measure).holds("better"))
            ):  # fmt: skip
                self.rejected.append(figures)
                continue
            kept = twin, option, said, lacking
            gone = list(dict.fromkeys(f.code for f, _ in option if f.code not in lacking))
            verb = "is" if len(gone) == 1 else "are"
            sure = f"; {', '.join(gone)} {verb} gone" if wanted == "exact" and gone else ""
            grounds = figures + sure
            grounds += "".join(f"; {code} in part: {what}" for code, what in lacking.items())
            if not late and not _hardly(trace):
                break
        if kept is not None:
            self.best, option, said, lacking = kept
            self.grounds.append(grounds)
            self.accepted += [r for _, r in option]
            self.changes += said
            self.mended += [f for f, _ in option]
            self.partly |= lacking

    def _lacking(
        self, option: Option, start: Experiment, twin: Experiment, trace: Trace
    ) -> dict[str, str]:
        """Return what changes that may be kept leave of their findings: code -> it, with figures.

        That a run is not worse says nothing of what a finding harmed: its rule is asked again.
        """
        found = {}
        for finding, repair in option:
            if finding.restored is not None:
                whole, said = finding.restored(twin, self.untreated)
                if not whole:
                    found[finding.code] = said
            elif repair.proof == "not worse":
                trained = None if finding.phase == "before" else (twin, trace)
                there = remaining(finding.code, start, trained=trained)
                if self.there(finding, there):
                    found[finding.code] = there[0].message
        return found

    def _change(self, repairs: list[Repair]) -> Callable[[Experiment], object]:
        """Return what is kept so far and these repairs as one change, the same one every time."""
        every = (*self.accepted, *repairs)
        if len(every) == 1 and every[0].change is not None:
            return every[0].change

        def change(twin: Experiment) -> None:
            for r in every:
                _made(r, twin)

        return self.joined.setdefault(tuple(map(id, every)), change)

    def _promising(self, options: list[Option]) -> list[Option]:
        """Return the options, the one first that is best after a short trial."""
        if len(options) == 1:
            return options
        steps = min(max(LEAST, round(TRIAL * self.exp.total_steps)), self.exp.total_steps)
        tried: dict[int, Experiment] = {}
        for number, option in enumerate(options):
            repairs = [r for _, r in option]
            change = self._change(repairs)
            try:
                if goes_on(self.exp):
                    losses, tried[number] = after_steps(self.exp, steps, change=change)
                    self.spent += len(losses)
                    continue
                change(twin := duplicate(self.exp))
            except CannotRepair as why:
                self.rejected.append(f"{repairs[0].name}: {why}")
                continue
            self.spent += play(twin, steps=steps, quiet=True).step
            tried[number] = twin
        scored = [
            (-score if math.isfinite(score) else math.inf, number)
            for score, number in zip(side_by_side(*tried.values()), tried, strict=True)
        ]
        return [options[number] for _, number in sorted(scored)]


def _hardly(trace: Trace) -> bool:
    """Whether a run has brought the loss hardly down: a short trial may have chosen badly."""
    name = "val" if "val" in trace.start else "train_eval"
    first, last = (rows.get(name, math.nan) for rows in (trace.start, (trace.epochs or [{}])[-1]))
    return bool(last > HARDLY * abs(first))


def candidates(
    findings: list[Finding], apply: tuple[str, ...]
) -> list[tuple[Finding, list[Repair]]]:
    """Return the problems that may be repaired, with their repairs: roots only, in their order."""
    found = []
    for f in roots(findings):
        allowed = [
            r for r in f.repairs
            if r.change is not None and (r.mode == "auto" or (r.mode == "ask" and f.code in apply))
        ]  # fmt: skip
        if allowed:
            found.append((f, allowed[:OPTIONS]))
    return found


def _made(repair: Repair, twin: Experiment) -> str:
    assert repair.change is not None
    return repair.change(twin)
