"""Whether a net does better than guessing: asked of a finished run where nothing else was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from gipi.doctor.experiment import whole
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rules.labels_misaligned import JOIN, LEAST, NET, net_above_chance
from gipi.doctor.sheet import answers, sheet, silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.doctor.facts import Facts

FEWEST = 30
"""Validation rows of which it can be said."""
ENOUGH = 1000
"""Training rows of which shallow learners find nearly every target that the inputs tell a twentieth
of: of fewer rows such a target passes for noise, and noise for such a target."""
SILENT = "and a linear learner and the nearest neighbours find nothing in the training rows either"
ALONE, TOLD = 2.0, 5.0
"""Deviations above chance: of the net where it alone is to say it, and of shallow learners from
which on the inputs do tell something."""
ASKED = 512
"""Validation rows that are asked first: where the net has learned anything they leave no doubt."""


def knows_something(facts: Facts) -> bool:
    """Whether the net tells some validation rows better than chance; True where there are none."""
    z = net_above_chance(facts, whole(facts.exp.val, ASKED, facts.exp.device))
    return z is None or z > NET


def as_sure(finding: Finding, facts: Facts) -> Finding:
    """Return a finding that targets stand beside other inputs as a hint where rows are too few.

    What hardly anything can be told of is then as likely; a shift by rows is shown by itself.
    """
    rows = sheet(facts)
    if finding.code != "labels_misaligned" or finding.phase == "before" or rows is None:
        return finding
    return finding if len(rows.F) >= ENOUGH else _hint(finding.evidence)


def no_better_than_guessing(facts: Facts, last: Facts) -> Finding | None:
    """Return the hint that a net knows nothing of validation rows, though it had its chance.

    It had one where it learned its training rows, or where shallow learners find nothing either.
    facts  with the weights that the run keeps; last: with those that it ended with
    """
    if facts.val is None or not isinstance(facts.val[1], Tensor) or len(facts.val[1]) < FEWEST:
        return None
    z = net_above_chance(facts, facts.val)
    if z is None or z > NET:
        return None
    rows = sheet(facts)
    if rows is not None and len(rows.F) >= LEAST:
        if silent(facts):
            return _hint({"net_z": z})
        if max(answer.z for answer in answers(facts)) > TOLD:
            return None
    by_heart = net_above_chance(last, last.train)
    if z > ALONE or by_heart is None or by_heart < 2 * NET:
        return None
    return _hint({"net_z": z, "net_z_train": by_heart}, also="though it learned its training rows")


def _hint(evidence: Mapping[str, Any], *, also: str = SILENT) -> Finding:
    return Finding(
        "labels_misaligned",
        f"the net tells validation rows no better than guessing without their inputs, {also}",
        "check that every target stands beside its own inputs: one of the two may have been "
        "sorted, shuffled, or joined by position; if they are right, these columns tell little of "
        "the target, and other columns or more rows are needed",
        severity="hint",
        evidence=evidence,
        confirmed=True,
        phase="epoch",
        repairs=(Repair("join again", None, mode="advise", edit=JOIN),),
    )
