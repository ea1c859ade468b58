"""Metrics of predicted tokens: accuracy, perplexity, bits per byte.

Targets are (B, T) int64 ids, -100 where nothing is predicted. Outputs are (B, T, V) logits; in
perplexity and bits per byte also (B, T) losses -log p of each token, as a head that never holds all
logits gives them. A row weight counts for each of the row's predicted tokens.

B rows, T positions, V ids.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.core.schema import IGNORED_TOKEN
from gipi.metrics.metric import Metric, State, ratio, zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def token_accuracy(classes: int = 0) -> Metric:  # noqa: ARG001  one signature for all builders
    """Return the share of predicted tokens that are the most probable one.

    Outputs may also be (B, T) int64 ids.
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        guess = outputs.argmax(-1) if outputs.is_floating_point() else outputs
        _add(state, "right", (guess == target), target, weight)
        _add(state, "count", torch.ones_like(target), target, weight)

    return Metric("token_accuracy", greater_is_better=True,
                  init=zeros({"right": (), "count": ()}), update=update,
                  compute=lambda state: ratio(state, "right", "count"))  # fmt: skip


def perplexity(classes: int = 0) -> Metric:  # noqa: ARG001
    """Return exp of the mean loss of a token: among how many it is as good as undecided.

        exp(1/n Σ -log p(token | those before it))

    Jelinek, Mercer, Bahl and Baker 1977. Only comparable between models of one vocabulary.
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        _add(state, "loss", _losses(outputs, target), target, weight)
        _add(state, "count", torch.ones_like(target), target, weight)

    def compute(state: State) -> float:
        mean = ratio(state, "loss", "count")
        return math.exp(mean) if mean < 700 else (math.nan if math.isnan(mean) else math.inf)

    return Metric("perplexity", greater_is_better=False, init=zeros({"loss": (), "count": ()}),
                  update=update, compute=compute)  # fmt: skip


def bits_per_byte(classes: int = 0, *, token_bytes: Sequence[int] = ()) -> Metric:  # noqa: ARG001
    """Return how many bits a byte of text costs: comparable between any two vocabularies.

        Σ -log₂ p(token) / Σ bytes(token)

    token_bytes  bytes of text that each id of the vocabulary stands for, 0 for special tokens; ():
                 one each (models of bytes, or of characters of ASCII text)

    The bytes of a predicted token are those of its id: exact for vocabularies that lose nothing
    (bytes, byte-level BPE). Gao et al. 2020, "The Pile", arXiv:2101.00027, section 3.1.
    """
    sizes = torch.tensor(list(token_bytes), dtype=torch.float64)
    placed: dict[torch.device, Tensor] = {}

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        _add(state, "loss", _losses(outputs, target), target, weight)
        if len(sizes):
            if target.device not in placed:
                placed[target.device] = sizes.to(target.device, state["bytes"].dtype)
            length = placed[target.device][target.clamp_min(0)]
        else:
            length = torch.ones_like(target)
        _add(state, "bytes", length, target, weight)

    return Metric("bits_per_byte", greater_is_better=False, init=zeros({"loss": (), "bytes": ()}),
                  update=update,
                  compute=lambda state: ratio(state, "loss", "bytes") / math.log(2))  # fmt: skip


def _losses(outputs: Tensor, target: Tensor) -> Tensor:
    """Return -log p of each token; where nothing is predicted, anything."""
    if outputs.ndim == target.ndim:
        return outputs
    if outputs.shape[:-1] != target.shape:
        raise ModelError(
            f"outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(target.shape)}",
            "logits, or one loss, for each position",
            "check what the model returns and which positions the targets are of",
        )
    flat = F.cross_entropy(
        outputs.float().flatten(0, -2), target.flatten(), ignore_index=IGNORED_TOKEN,
        reduction="none",
    )  # fmt: skip
    return flat.view(target.shape)


def _add(state: State, name: str, values: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Add Σ w_b v_bt over predicted positions to a scalar of the state."""
    total = state[name]
    values = values.to(total.dtype).masked_fill(target == IGNORED_TOKEN, 0.0)
    if weight is not None:
        values = values * weight.to(total.dtype).view(-1, *(1,) * (target.ndim - 1))
    total.add_(values.sum())
