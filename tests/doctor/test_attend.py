"""What watches a run: it looks at rows of the loop, and lets the rows of events pass."""

from __future__ import annotations

from typing import Any, cast

from gipi.core.events import Step
from gipi.doctor.attend import Attending
from gipi.doctor.consult import Consultation
from gipi.doctor.trace import CHECKS, Trace


def test_the_row_of_an_event_is_no_look() -> None:
    """It holds no model, and what an observer answers to it is not heard."""
    nothing = cast("Any", None)
    watching = Attending(nothing, Consultation(), nothing, nothing)
    watching.trace = Trace(10, 1)
    skipped = Step("row", 9, 0, 0.95, {"step": 9, "event": "skipped: not finite", "reason": "?"})
    assert watching(skipped) is None
    assert watching.due == list(CHECKS)
