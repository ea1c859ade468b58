"""Whether a net does better than guessing: asked of a finished run where nothing else was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gipi.doctor.experiment import whole
from gipi.doctor.rules.labels_misaligned import LEAST, NET, net_above_chance, unlearnt
from gipi.doctor.sheet import answers, sheet, silent

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Finding

FEWEST, MANY = 30, 200
"""Validation rows of which something can be said; and of which a net that explains a twentieth of
the targets is three deviations above chance: what is not seen there is hardly anything."""
LEVEL, DOUBT = 1.0, 2.0
"""Deviations above chance up to which many rows say so, and up to which nothing is shown: weights
that were kept for these rows stand one above it without any skill, and of a net that explains a
fifth of the targets 30 rows show 2.4 ± 1."""
SILENT = "and a linear learner and the nearest neighbours find nothing in the training rows either"
TOLD = 5.0
"""Deviations above chance of shallow learners from which on the inputs do tell something."""
ASKED = 512
"""Validation rows that are asked first: where the net has learned anything they leave no doubt."""


def knows_something(facts: Facts) -> bool:
    """Whether the net tells some validation rows better than chance; True where there are none."""
    z = net_above_chance(facts, whole(facts.exp.val, ASKED, facts.exp.device))
    return z is None or z > NET


def no_better_than_guessing(facts: Facts, last: Facts) -> Finding | None:
    """Return the hint that a net knows nothing of validation rows, though it had its chance.

    It had one where it learned its training rows, or where shallow learners find nothing either.
    facts  with the weights that the run keeps; last: with those that it ended with
    """
    if facts.val is None or not isinstance(facts.val[1], Tensor) or len(facts.val[1]) < FEWEST:
        return None
    n, z = len(facts.val[1]), net_above_chance(facts, facts.val)
    if z is None or z > DOUBT:
        return None
    what = "the net tells validation rows no better than guessing without their inputs"
    if n < MANY or z > LEVEL:
        what = "the net is not shown to tell validation rows better than guessing does"
    what = f"{what} (z = {z:.1f} on {n} rows)"
    rows = sheet(facts)
    if rows is not None and len(rows.F) >= LEAST:
        if silent(facts):
            return unlearnt(f"{what}, {SILENT}", {"net_z": z})
        if max(answer.z for answer in answers(facts)) > TOLD:
            return None
    by_heart = net_above_chance(last, last.train)
    if by_heart is None or by_heart < 2 * NET:
        return None
    said = f"{what}, though it learned its training rows (z = {by_heart:.0f})"
    return unlearnt(said, {"net_z": z, "net_z_train": by_heart})
