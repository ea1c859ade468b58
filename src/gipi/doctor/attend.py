"""The doctor beside a run of `gipi train`: an observer of its rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gipi.core import dist
from gipi.core.atomic import write_file
from gipi.core.events import Action, Step
from gipi.core.rundir import FINDINGS
from gipi.doctor.causes import ranked
from gipi.doctor.consult import REHEARSAL_STEPS, Consultation, at_full_rate, spoken
from gipi.doctor.copies import duplicate
from gipi.doctor.crawl import crawling, full_steps, has_learned
from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding
from gipi.doctor.guessing import knows_something, no_better_than_guessing
from gipi.doctor.hushed import hushed
from gipi.doctor.look import look_during
from gipi.doctor.own_run import as_experiment, rules_for
from gipi.doctor.play import play
from gipi.doctor.rows import add_evaluation, add_row
from gipi.doctor.rules import RULES
from gipi.doctor.settings import given, in_settings
from gipi.doctor.trace import CHECKS, Trace

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.core.batch import Stream
    from gipi.doctor.experiment import Experiment
    from gipi.train.prepare import Prepared

WATCH_SHARE = 0.02
"""Counter-experiments while the run goes on take at most this share of its steps."""
REHEARSAL_SHARE, CRAWL_SHARE = 0.05, 0.25
"""Shares of the steps that it may cost to see how far a step goes, in a run that has not learned,
and to try higher rates in one that goes hardly anywhere."""
ROW_CODES = ("nan_inf", "lr_too_high", "class_imbalance", "labels_misaligned")
"""Problems that rows and weights show, though losses are means over many steps. A run that learns
its rows by heart ends with the weights of its best evaluation: that is said, and is no problem."""
PASSES = 3
"""Passes over the rows after which a net that knows nothing of others had its chance."""
OF_TABLES = ("labels_misaligned",)
"""Those that ask the net about thousands of rows: within a run only where that costs nothing, at
its end only where the net has learned nothing."""


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


def read_findings(folder: Path) -> list[Finding]:
    """Return the findings that a run folder holds; none where there is no such file."""
    place = folder / FINDINGS
    if not place.exists():
        return []
    return [Finding.from_dict(one) for one in json.loads(place.read_text())]


class Attending:
    """Watches the rows of a run; its verdicts become notes, and the learning rate may be lowered.

    findings  what was found so far, ranked with those of the look before
    failed    what kept it from looking, by an error of its own: the run goes on without it
    """

    def __init__(
        self, prepared: Prepared, before: Consultation, train: Stream, val: Stream | None
    ) -> None:
        self.prepared, self.before, self.train, self.val = prepared, before, train, val
        self.known: dict[str, Finding] = {}
        self.trace: Trace | None = None
        self.due = list(CHECKS)
        self.failed = ""
        self.rehearsed = False
        self.asked: Facts | None = None
        """The facts at the end of the last step, where the net had learned nothing by then."""

    @property
    def findings(self) -> list[Finding]:
        """What was found before and during the run."""
        return ranked([*self.before.findings, *self.known.values()], RULES)

    def lines(self) -> list[str]:
        """Return what came up during the run, two lines each, for its end."""
        said = [line for f in self.known.values() if f.severity == "problem" or f.code in OF_TABLES
                for line in spoken(f)]  # fmt: skip
        if self.failed:
            said.append(f"doctor: could not look at this run any further: {self.failed}")
        return said

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
        if step.model is None or self.failed:  # the row of an event, say: nothing to look at
            return None
        try:
            return self._attend(step)
        except Exception as error:  # noqa: BLE001  a doctor must not kill the patient
            self.failed = f"{type(error).__name__}: {error}"
            return None

    @hushed()
    def _attend(self, step: Step) -> Action | None:
        """Look at the run where that is due."""
        if step.when == "end":
            self._conclude(step)
        if self.trace is None or not self.due or step.progress < self.due[0]:
            return None
        self.due = [share for share in self.due if share > step.progress]
        return self._look(step)

    def _conclude(self, step: Step) -> None:
        """Say of a net that is kept and knows nothing that it knows nothing."""
        if (
            self.asked is None
            or step.epoch < PASSES
            or any(f.severity == "problem" for f in self.findings)
        ):
            return  # it knows something, had no time to, or what is wrong was said
        exp = as_experiment(self.prepared, self.train, self.val, live=step.model)
        if exp is not None and "labels_misaligned" in {
            r.code for r in rules_for(self.prepared.task)
        }:
            found = no_better_than_guessing(Facts(exp, start=self.asked), self.asked)
            for code in OF_TABLES:  # said of the weights that the run ended with
                self.known.pop(code, None)
            if found is not None:
                self.known[found.code] = found.but(step=step.step)

    def _take(self, step: Step) -> None:
        if self.trace is None:
            self.trace = Trace(1, max(1, step.steps_per_epoch))
        # Of a budget in seconds it is known ever better how many steps it comes to.
        total = step.total_steps or max(1, round(step.step / max(step.progress, 1e-6)))
        self.trace.planned = total
        add_row(self.trace, step.row)

    def _crawls(self, exp: Experiment, notes: Diagnosis) -> list[Finding]:
        """Return the finding that the run crawls, where it was not known before; asked once.

        How many steps fit into a time is known by now. A run that has learned is not asked.
        """
        trace, before = self.trace, self.before
        assert trace is not None
        unknown = before.unrehearsed or self.prepared.config.time is not None
        said = any(f.severity == "problem" for f in self.findings)
        short = trace.planned * REHEARSAL_SHARE < REHEARSAL_STEPS
        if self.rehearsed or not unknown or said or short or has_learned(trace):
            return []
        self.rehearsed = True
        peak = at_full_rate(duplicate(exp))
        first = play(duplicate(peak), steps=REHEARSAL_STEPS)
        return crawling(peak, first, notes, planned=full_steps(trace.planned, exp),
                        allowed=CRAWL_SHARE * trace.planned)  # fmt: skip

    def _look(self, step: Step) -> Action | None:
        assert self.trace is not None
        config, task = self.prepared.config, self.prepared.task
        exp = as_experiment(self.prepared, self.train, self.val, live=step.model)
        if exp is None:
            return None
        facts, result = Facts(duplicate(exp)), Diagnosis(exp, [])
        allowed = int(WATCH_SHARE * self.trace.planned)
        codes, ended = set(ROW_CODES), step.progress >= 1.0
        if ended:  # a run that was stopped before its time is over all the same
            self.trace.planned = max(1, self.trace.step)
        if (ended or facts.inputs != "table") and (not ended or knows_something(facts)):
            codes.difference_update(OF_TABLES)
        elif ended:
            self.asked = facts
        rules = tuple(rule for rule in rules_for(task) if rule.code in codes)
        told_now = look_during(facts, rules, self.trace, result, known=self.known, allowed=allowed)
        for told in (*told_now, *(() if ended else self._crawls(exp, result))):
            if not told.confirmed and told.code not in OF_TABLES:
                continue  # there was no time for the counter-experiment
            finding = in_settings(told, self.prepared)
            if finding.severity == "hint" and finding.code in OF_TABLES and not ended:
                continue  # it is asked again with the weights that the run ends with
            self.known[finding.code] = finding
            sure = finding.severity == "problem"
            his = given(finding, self.prepared)
            if sure and finding.code == "lr_too_high" and config.doctor == "repair" and not his:
                return Action("scale_lr", f"{finding.code}: {finding.message}", 0.1)
            if sure:
                return Action("note", f"{finding.code}: {finding.message}; {finding.advice}")
        return None
