"""The forms of data: every task is read in one of them."""

from __future__ import annotations

from collections import Counter

import pytest

from gipi.core.schema import TASK_KINDS
from gipi.data.forms import FORMS, form_of
from gipi.data.row_forms import ROW_FORMS, row_form


def test_a_task_is_named_by_one_form_and_exists() -> None:
    named = Counter(task for form in (*FORMS, *ROW_FORMS) for task in form.tasks)
    assert set(named) <= set(TASK_KINDS)
    assert set(named.values()) == {1}


@pytest.mark.parametrize("forms", [FORMS, ROW_FORMS])
def test_names_differ_and_the_last_form_is_for_the_rest(forms) -> None:
    assert len({form.name for form in forms}) == len(forms)
    assert [form.tasks == () for form in forms] == [False] * (len(forms) - 1) + [True]


@pytest.mark.parametrize(
    ("task", "whole", "row"),
    [
        ("forecast", "a series", None),
        ("generate", "running text", None),
        ("spans", "a task made of running text", None),
        ("tag", "rows", "sentences with a tag for each token"),
        ("summarise", "rows", "a text, and the one that is written from it"),
        ("pose", "rows", "pictures with something drawn on them"),
        ("classify", "rows", "plain rows"),
        (None, "rows", None),
    ],
)
def test_the_task_chooses(task, whole, row) -> None:
    assert form_of(task).name == whole
    assert row is None or row_form(task).name == row
