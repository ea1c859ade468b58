"""Every training problem that the doctor knows, one file each, cheap looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.doctor.rules import double_softmax, lr_too_high, overfit, unnormalised_input

if TYPE_CHECKING:
    from gipi.doctor.rule import Rule

RULES: tuple[Rule, ...] = (
    double_softmax.RULE,
    unnormalised_input.RULE,
    lr_too_high.RULE,
    overfit.RULE,
)
