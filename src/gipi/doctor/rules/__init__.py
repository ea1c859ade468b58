"""Every training problem that the doctor knows, one file each, cheap looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.registry import Record, Registry
from gipi.doctor.rules import (
    bad_init_scale,
    bad_init_symmetric,
    batch_mixing,
    bn_batch_too_small,
    causal_leak,
    double_sigmoid,
    double_softmax,
    frozen_layer,
    graph_detached,
    loss_broadcast,
    loss_sign_flipped,
    lr_too_high,
    missing_nonlinearity,
    missing_position,
    missing_zero_grad,
    overfit,
    padding,
    params_not_in_optimizer,
    unnormalised_input,
    unused_parameters,
    weight_decay_on_norm_bias,
    wrong_loss,
    wrong_mask,
    wrong_output_activation,
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
    # wiring
    wrong_loss.RULE,
    loss_broadcast.RULE,
    double_softmax.RULE,
    double_sigmoid.RULE,
    wrong_output_activation.RULE,
    loss_sign_flipped.RULE,
    missing_zero_grad.RULE,
    params_not_in_optimizer.RULE,
    frozen_layer.RULE,
    graph_detached.RULE,
    unused_parameters.RULE,
    batch_mixing.RULE,
    wrong_mask.RULE,
    causal_leak.RULE,
    padding.RULE,
    missing_position.RULE,
    bn_batch_too_small.RULE,
    bad_init_symmetric.RULE,
    bad_init_scale.RULE,
    missing_nonlinearity.RULE,
    weight_decay_on_norm_bias.RULE,
    # data
    unnormalised_input.RULE,
    # dynamics
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
