"""Every training problem that the doctor knows, one file each, cheap looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.registry import Record, Registry
from gipi.doctor.causes import parents
from gipi.doctor.rules import (
    augmentation_destroys_signal,
    bad_init_scale,
    bad_init_symmetric,
    batch_mixing,
    bn_batch_too_small,
    bn_stats_mismatch,
    catastrophic_forgetting,
    causal_leak,
    class_imbalance,
    data_not_shuffled,
    dead_relu,
    double_sigmoid,
    double_softmax,
    dropout_too_high,
    duplicate_rows,
    eval_in_train_mode,
    exploding_gradient,
    frozen_layer,
    grad_clip_too_small,
    graph_detached,
    label_noise,
    labels_misaligned,
    loss_broadcast,
    loss_sign_flipped,
    lr_decay_too_fast,
    lr_too_high,
    lr_too_low,
    missing_nonlinearity,
    missing_position,
    missing_zero_grad,
    nan_in_data,
    nan_inf,
    oscillating_loss,
    overfit,
    padding,
    params_not_in_optimizer,
    plateau,
    preprocessing_mismatch,
    saturated_activation,
    sentinel_values,
    sequence_too_short,
    target_leak,
    target_unscaled,
    tokenizer_mismatch,
    tokenizer_oov,
    train_val_overlap,
    train_val_shift,
    underfit,
    unnormalised_input,
    unused_parameters,
    vanishing_gradient,
    weight_decay_on_norm_bias,
    weight_decay_too_high,
    wrong_loss,
    wrong_mask,
    wrong_output_activation,
)

if TYPE_CHECKING:
    from gipi.doctor.rule import Rule

__all__ = ["REGISTRY", "RULES"]

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
    nan_in_data.RULE,
    tokenizer_mismatch.RULE,
    tokenizer_oov.RULE,
    train_val_overlap.RULE,
    duplicate_rows.RULE,
    target_leak.RULE,
    sequence_too_short.RULE,
    labels_misaligned.RULE,
    preprocessing_mismatch.RULE,
    train_val_shift.RULE,
    sentinel_values.RULE,
    unnormalised_input.RULE,
    target_unscaled.RULE,
    data_not_shuffled.RULE,
    augmentation_destroys_signal.RULE,
    # the course of a run
    eval_in_train_mode.RULE,
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
    class_imbalance.RULE,
    label_noise.RULE,
    catastrophic_forgetting.RULE,
    overfit.RULE,
    underfit.RULE,
)


_PARENTS = parents(RULES)


def _record(rule: Rule) -> Record:
    facts = {
        "looks": rule.looks, "why": rule.why, "do": rule.do, "when": rule.when,
        "causes": ", ".join(rule.causes), "parents": ", ".join(_PARENTS[rule.code]),
    }  # fmt: skip
    return Record(rule.code, lambda: rule, rule.title, rule.source, facts=facts)


REGISTRY = Registry("rules", tuple(_record(rule) for rule in RULES))
"""The same rules as records, for `gipi list rules` and `gipi show`."""
