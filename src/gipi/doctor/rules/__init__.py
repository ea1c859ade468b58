"""Every training problem that the doctor knows, one file each, cheap looks first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.registry import Record, Registry
from gipi.doctor.rules import (
    augmentation_destroys_signal,
    catastrophic_forgetting,
    class_imbalance,
    data_not_shuffled,
    double_softmax,
    duplicate_rows,
    label_noise,
    labels_misaligned,
    lr_too_high,
    nan_in_data,
    overfit,
    preprocessing_mismatch,
    sentinel_values,
    sequence_too_short,
    target_leak,
    target_unscaled,
    tokenizer_mismatch,
    tokenizer_oov,
    train_val_overlap,
    train_val_shift,
    unnormalised_input,
)

if TYPE_CHECKING:
    from gipi.doctor.rule import Rule

RULES: tuple[Rule, ...] = (
    double_softmax.RULE,
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
    lr_too_high.RULE,
    class_imbalance.RULE,
    label_noise.RULE,
    catastrophic_forgetting.RULE,
    overfit.RULE,
)


def _record(rule: Rule) -> Record:
    facts = {"looks": rule.looks, "why": rule.why, "do": rule.do, "causes": ", ".join(rule.causes)}
    return Record(rule.code, lambda: rule, rule.title, rule.source, facts=facts)


REGISTRY = Registry("rules", tuple(_record(rule) for rule in RULES))
"""The same rules as records, for `gipi list rules` and `gipi show`."""
