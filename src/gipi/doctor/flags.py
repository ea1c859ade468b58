"""Advice in the words of a command line: settings in the place of lines of Python."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from gipi.models import MODELS

if TYPE_CHECKING:
    from gipi.doctor.finding import Finding
    from gipi.train.prepare import Prepared

IN_FLAGS: dict[str, tuple[str, ...]] = {
    "bad_init_symmetric": ("draw weights at random: --set model.init=auto",),
    "bad_init_scale": ("draw weights by the rule of the activation: --set model.init=auto",),
    "vanishing_gradient": (
        "use ReLU: --set model.activation=relu",
        "draw weights so that signals keep their size: --set model.init=auto",
        "join layers past each other: --set model.residual=true",
        "take fewer layers: model.widths",
    ),
    "exploding_gradient": (
        "draw weights so that signals keep their size: --set model.init=auto",
        "clip the gradient's norm: --set clip_norm={clip:.3g}",
    ),
    "missing_nonlinearity": ("put an activation between layers: --set model.activation=relu",),
    "dropout_too_high": ("less dropout: --set model.dropout=0.1",),
    "grad_clip_too_small": ("clip at the size that gradients have: --set clip_norm={norm:.2g}",),
    "weight_decay_too_high": ("a tenth of it or less: --weight-decay 0.01",),
    "lr_decay_too_fast": ("let the rate fall over the whole run: --schedule cosine",),
    "bn_batch_too_small": ("larger batches: --batch-size 16 or more",),
    "wrong_loss": ("the loss that fits the target: leave task.loss out",),
}
"""Code -> what to do; of several the first that the run's model has an option for come first."""


def in_flags(finding: Finding, prepared: Prepared) -> str:
    """Return the advice of a finding as settings of a run; its own where none would help."""
    known = [part for part in IN_FLAGS.get(finding.code, ()) if _has(part, prepared)]
    try:
        return ", or ".join(known).format(**finding.evidence) or finding.advice
    except KeyError:  # another finding of the same code
        return finding.advice


def _has(part: str, prepared: Prepared) -> bool:
    """Whether the model has the option that a part speaks of, if it speaks of one."""
    _, model, option = part.partition("model.")
    if not model:
        return True
    if prepared.model_name is None:
        return False
    return option.partition("=")[0] in {
        f.name for f in fields(MODELS.get(prepared.model_name).facts["config"])
    }
