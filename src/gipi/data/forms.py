"""The forms of data: a new one is a file with a `Form` at its end, and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.data import pretext_open, rows, running, series

if TYPE_CHECKING:
    from gipi.data.form import Form

FORMS = (
    series.FORM,
    pretext_open.FORM,
    running.FORM,
    rows.FORM,
)
"""Rows are all that no other form names."""


def form_of(task: str | None) -> Form:
    """Return the form of the data of a task that was asked for or is known."""
    return next((form for form in FORMS if task in form.tasks), rows.FORM)
