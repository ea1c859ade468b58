"""Every training problem that the doctor knows, one file each, cheap looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.registry import Record, Registry
from gipi.doctor.rules import double_softmax, lr_too_high, overfit, unnormalised_input

if TYPE_CHECKING:
    from gipi.doctor.rule import Rule

RULES: tuple[Rule, ...] = (
    double_softmax.RULE,
    unnormalised_input.RULE,
    lr_too_high.RULE,
    overfit.RULE,
)


def _record(rule: Rule) -> Record:
    facts = {"looks": rule.looks, "why": rule.why, "do": rule.do, "causes": ", ".join(rule.causes)}
    return Record(rule.code, lambda: rule, rule.title, rule.source, facts=facts)


REGISTRY = Registry("rules", tuple(_record(rule) for rule in RULES))
"""The same rules as records, for `gipi list rules` and `gipi show`."""
