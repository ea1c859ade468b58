"""Which finding comes first."""

from __future__ import annotations

import pytest

from gipi.doctor.causes import ranked
from gipi.doctor.finding import Finding
from gipi.doctor.rules import RULES


def codes(*findings: Finding) -> list[str]:
    return [f.code for f in ranked(findings, RULES)]


def late(code: str, strength: float, **more) -> Finding:
    return Finding(code, "", "", confirmed=True, phase="epoch", strength=strength, **more)


def test_roots_stand_before_what_they_bring_about_however_strong_that_is() -> None:
    cause = Finding("lr_too_high", "", "", confirmed=True, phase="steps", strength=1.0)
    bumps, dead = late("oscillating_loss", 9.0), late("dead_relu", 5.0)
    found = ranked([bumps, dead, cause], RULES)
    assert [f.code for f in found] == ["lr_too_high", "oscillating_loss", "dead_relu"]
    assert found[1].parents == ("lr_too_high",)


def test_a_cause_that_is_not_confirmed_is_no_parent() -> None:
    guess = Finding("lr_too_high", "", "", severity="hint", phase="steps")
    assert codes(guess, late("oscillating_loss", 1.0)) == ["oscillating_loss", "lr_too_high"]


def test_that_less_was_learned_than_could_be_comes_after_what_says_why() -> None:
    assert codes(late("underfit", 9.0), late("catastrophic_forgetting", 1.0)) == [
        "catastrophic_forgetting",
        "underfit",
    ]
    assert codes(late("underfit", 1.0), late("overfit", 9.0, severity="hint"))[0] == "underfit"


def test_what_a_run_made_a_problem_is_no_hint_any_more() -> None:
    guess = Finding("target_unscaled", "", "", severity="hint")
    (found,) = ranked([guess, late("target_unscaled", 1.0)], RULES)
    assert found.severity == "problem"
    assert codes(guess) == ["target_unscaled"]


def test_what_a_problem_brings_about_is_a_hint_but_comes_before_other_hints() -> None:
    cause = Finding("lr_too_high", "", "", confirmed=True, phase="steps")
    other = Finding("weight_decay_on_norm_bias", "", "", severity="hint", confirmed=True)
    found = ranked([late("dead_relu", 1.0), other, cause], RULES)
    said = [(f.code, f.severity) for f in found]
    assert said == [
        ("lr_too_high", "problem"), ("dead_relu", "hint"), ("weight_decay_on_norm_bias", "hint"),
    ]  # fmt: skip
    assert [f.severity for f in ranked([late("dead_relu", 1.0)], RULES)] == ["problem"]


@pytest.mark.parametrize(
    ("cause", "brought"),
    [("catastrophic_forgetting", "underfit"), ("eval_in_train_mode", "dropout_too_high"),
     ("lr_too_high", "weight_decay_too_high"), ("tokenizer_mismatch", "train_val_shift")],
)  # fmt: skip
def test_what_brings_what_about_is_written_down(cause: str, brought: str) -> None:
    first, then = ranked([late(brought, 9.0), late(cause, 1.0)], RULES)
    assert (first.code, first.severity, first.parents) == (cause, "problem", ())
    assert (then.code, then.severity, then.parents) == (brought, "hint", (cause,))


def test_rows_that_repeat_explain_no_shift_of_values() -> None:
    shift, repeated = late("train_val_shift", 1.0), late("duplicate_rows", 2.0)
    assert [f.severity for f in ranked([shift, repeated], RULES)] == ["problem", "problem"]
