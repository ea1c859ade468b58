"""The forms of rows: a new one is a file with a `RowForm` at its end, and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.data import annotated, answering, pairs, partners, plain, tagging

if TYPE_CHECKING:
    from gipi.data.form import RowForm

ROW_FORMS = (
    tagging.FORM,
    answering.FORM,
    partners.FORM,
    pairs.FORM,
    annotated.FORM,
    plain.FORM,
)
"""In the order in which they are tried; plain rows are all that no other form names."""


def row_form(task: str) -> RowForm:
    """Return the form of the rows of a task."""
    return next((form for form in ROW_FORMS if task in form.tasks), plain.FORM)
