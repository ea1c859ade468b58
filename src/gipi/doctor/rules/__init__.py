"""Every training problem that the doctor knows, one file each, cheap looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.registry import Record, Registry
from gipi.doctor.rules import (
    bn_stats_mismatch,
    dead_relu,
    double_softmax,
    dropout_too_high,
    eval_in_train_mode,
    exploding_gradient,
    grad_clip_too_small,
    lr_decay_too_fast,
    lr_too_high,
    lr_too_low,
    nan_inf,
    oscillating_loss,
    overfit,
    plateau,
    saturated_activation,
    underfit,
    unnormalised_input,
    vanishing_gradient,
    weight_decay_too_high,
)

if TYPE_CHECKING:
    from gipi.doctor.rule import Rule

RULES: tuple[Rule, ...] = (
    double_softmax.RULE,
    eval_in_train_mode.RULE,
    unnormalised_input.RULE,
    lr_decay_too_fast.RULE,
    grad_clip_too_small.RULE,
    dropout_too_high.RULE,
    weight_decay_too_high.RULE,
    bn_stats_mismatch.RULE,
    nan_inf.RULE,
    lr_too_high.RULE,
    lr_too_low.RULE,
    exploding_gradient.RULE,
    saturated_activation.RULE,
    dead_relu.RULE,
    vanishing_gradient.RULE,
    oscillating_loss.RULE,
    plateau.RULE,
    overfit.RULE,
    underfit.RULE,
)


def _record(rule: Rule) -> Record:
    facts = {"looks": rule.looks, "why": rule.why, "do": rule.do, "causes": ", ".join(rule.causes)}
    return Record(rule.code, lambda: rule, rule.title, rule.source, facts=facts)


REGISTRY = Registry("rules", tuple(_record(rule) for rule in RULES))
"""The same rules as records, for `gipi list rules` and `gipi show`."""
