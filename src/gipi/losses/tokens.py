"""Losses over rows of tokens: cross-entropy of language models and taggers, spans of answers.

Every loss answers (total, count) as in `classes`, but what is counted is tokens: a long row weighs
more than a short one. Positions whose label is `IGNORED_TOKEN` (padding, the prompt, what was not
masked) count nowhere.

B rows, T positions, V ids or classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.core.schema import IGNORED_TOKEN

if TYPE_CHECKING:
    from torch import Tensor


def token_cross_entropy(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    ignored: int = IGNORED_TOKEN,
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of all predicted tokens, Σ w_b l_bt and Σ w_b over y_bt ≠ `ignored`.

        l_bt = -Σₖ t_btₖ log softmax(z_bt)ₖ,   t = (1 - ε) one-hot(y_bt) + ε/V

    outputs          (B, T, V) logits, or (N, V) of single positions
    target           (B, T) int64 ids, or (N,); `ignored` where nothing is predicted
    weight           (B,) or None for ones: each predicted token of row b counts w_b. A row with n
                     predicted tokens adds w_b n to the count, and a row of weight 2 is the row
                     twice. For single positions (N,): the weight of each
    label_smoothing  ε (Szegedy et al. 2016, arXiv:1512.00567)

    Half precision is summed in float32. The count is a tensor: how many positions are predicted is
    known on the device only. Without any the total is 0 and so is its gradient.

    Bridle 1990. Raises `ModelError` where the shapes do not belong together.

    >>> total, count = token_cross_entropy(torch.zeros(1, 3, 4), torch.tensor([[0, 3, -100]]))
    >>> round(total.item() / count.item(), 4)  # log 4
    1.3863
    """
    check_tokens(outputs, target, "one row of logits for each position")
    logits = whole(outputs).flatten(0, -2)
    labels = target.flatten()
    counted = target != ignored
    if weight is None:
        total = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="sum",
                                label_smoothing=label_smoothing)  # fmt: skip
        return total, counted.sum()
    each = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="none",
                           label_smoothing=label_smoothing)  # fmt: skip
    w = spread(weight, target)
    return (each.view(target.shape) * w).sum(), (counted * w).sum()


def token_losses(outputs: Tensor, target: Tensor) -> Tensor:
    """Return -log p of every predicted token, (B, T), and 0 where the target is ignored.

    outputs  (B, T, V) logits; target (B, T) int64 ids. Half precision is worked in float32.
    Raises `ModelError` where the shapes do not belong together.
    """
    check_tokens(outputs, target, "one row of logits for each position")
    flat = F.cross_entropy(whole(outputs).flatten(0, -2), target.flatten(),
                           ignore_index=IGNORED_TOKEN, reduction="none")  # fmt: skip
    return flat.view(target.shape)


def span(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, float | Tensor]:
    """Return the loss of answers that are spans: the mean of -log p(start) and -log p(end).

        l = -(log softmax(z[:, 0])_start + log softmax(z[:, 1])_end) / 2, softmax over positions

    outputs  (B, T, 2) logits of starting and of ending at each position; -inf where none may lie
    target   (B, 2) int64 first and last position of the answer; in windows without one both point
             to the position that stands for "no answer" (the classification token, 0)
    weight   (B,) or None

    Devlin et al. 2019, "BERT", arXiv:1810.04805. Raises `ModelError` where the shapes do not
    belong together.
    """
    if outputs.ndim != 3 or outputs.shape[-1] != 2 or target.shape != (len(outputs), 2):
        raise ModelError(
            f"outputs of shape {tuple(outputs.shape)} for spans of shape {tuple(target.shape)}",
            "outputs (B, T, 2), a start and an end for each position, and spans (B, 2)",
            "give the model a head of width 2 over its positions",
        )
    logits_B2T = whole(outputs).transpose(1, 2)
    if weight is None:
        total = F.cross_entropy(logits_B2T.flatten(0, 1), target.flatten(), reduction="sum")
        return total / 2, float(len(target))
    each = F.cross_entropy(logits_B2T.flatten(0, 1), target.flatten(), reduction="none")
    return (each.view(-1, 2).mean(1) * weight).sum(), weight.sum()


# ---------------------------------------------------------------------------- shapes


def whole(values: Tensor) -> Tensor:
    """Return values in float32 where they are in half precision, else as they are."""
    half = values.dtype in (torch.bfloat16, torch.float16)
    return values.float() if half else values


def spread(weight: Tensor, target: Tensor) -> Tensor:
    """Return the weights (B,) of rows as weights of all their positions, shape of `target`."""
    if weight.shape != target.shape[:1]:
        raise ModelError(
            f"{tuple(weight.shape)} row weights for targets of shape {tuple(target.shape)}",
            "one weight a row",
            "give weights of shape (B,)",
        )
    return weight.view(-1, *(1,) * (target.ndim - 1)).expand(target.shape)


def check_tokens(outputs: Tensor, target: Tensor, needed: str) -> None:
    """Raise `ModelError` unless `outputs` has the shape of `target` and one more axis."""
    if outputs.shape[:-1] != target.shape:
        raise ModelError(
            f"outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(target.shape)}",
            needed,
            "check what the model returns and which positions the targets are of",
        )
