"""The report of a forecast: curves over truth, the error by step beside the floors, nonsense."""

from __future__ import annotations

import pytest
from tests.report.test_page import Page

from gipi.report.page import render
from gipi.report.read import RunData

WINDOW = {
    "kind": "worst", "id": 7, "first": "2024-01-08", "last": "2024-01-10", "loss": 0.5,
    "series": [{"series": "<sales>", "past": [1.0, 2.0], "truth": [3.0, 4.0, 5.0],
                "forecast": [3.5, 4.5, 5.5]}],
}  # fmt: skip
EVALUATION = {
    "forecast": {"horizon": 3, "lookback": 2, "season": 7, "step": "1 day"},
    "by_step": {"the model": [0.1, 0.2, 0.3], "the last value goes on": [0.2, 0.4, 0.8]},
    "per_series": [{"series": "<sales>", "mse": 0.2, "floor": 0.4, "original_mae": 12.5}],
    "windows": [WINDOW, {**WINDOW, "kind": "median"}],
    "primary": {"name": "mse", "value": 0.2, "low": 0.15, "high": 0.25, "method": "bootstrap",
                "greater_is_better": False},
    "baseline": {"metric": "mse", "value": 0.4, "rule": "the rule that the last value goes on"},
    "split": "test", "rows": 60, "target": "sales",
}  # fmt: skip


def page(**more):
    return render(RunData("run", evaluation={**EVALUATION, **more}))


def test_the_page_draws_windows_and_the_error_by_step():
    text = page()
    Page(text)  # its tags nest
    for words in ("error by step ahead", "the last value goes on", "worst window: 2024-01-08 to",
                  "median window", "series, worst first", "steps of 1 day", "now"):  # fmt: skip
        assert words in text
    assert "&lt;sales&gt;" in text
    assert "<sales>" not in text
    assert "&amp;lt;" not in text
    assert "0.2 against 0.4 for the rule that the last value goes on" in text


def test_without_an_interval_nothing_is_called_better():
    few = {**EVALUATION["primary"], "low": None, "high": None, "method": "1 block of windows"}
    text = page(primary=few)
    Page(text)
    assert "1 block of windows" in text
    assert "95 % interval" not in text
    assert "against 0.4 for the rule" not in text


def test_without_samples_no_window_is_drawn():
    text = render(RunData("run", evaluation=EVALUATION), samples=False)
    assert "worst window" not in text
    assert "error by step ahead" in text


@pytest.mark.parametrize(
    "nonsense",
    [
        {"by_step": {"the model": ["x", None, 1]}},
        {"by_step": [1, 2]},
        {"per_series": [{"series": 3}, "x", None]},
        {"windows": [{"series": [{"truth": [1], "forecast": [1, 2]}, 7]}, None]},
        {"windows": [{**WINDOW, "series": [{"truth": ["nan", 1], "forecast": [1, 2]}]}]},
        {"forecast": {}},
    ],
)  # fmt: skip
def test_nonsense_does_not_break_the_page(nonsense):
    assert "</html>" in page(**nonsense)
