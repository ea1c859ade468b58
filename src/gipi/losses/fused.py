"""Cross-entropy through the head without the logits: a chunk of rows at a time.

Of 8,192 tokens and 50,257 ids the logits alone hold 1.6 GB in float32, their gradient as much
again. Here both live only for a chunk of rows. The gradients of hidden states and head are worked
out in the forward pass, while the chunk's probabilities are at hand, so nothing is computed twice.

N rows, C rows of a chunk, D channels, V ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.core.schema import IGNORED_TOKEN
from gipi.losses.tokens import check_tokens, spread, token_cross_entropy, whole

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_VALUES = 1 << 24  # logits held at once: 64 MB in float32
FEWEST_ROWS = 16
FEW_VALUES = 1 << 18  # logits below which holding them costs less than going round them


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignored: int = IGNORED_TOKEN,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `token_cross_entropy` of the logits hidden · headᵀ + bias, which are never all held.

        dl/dz = w (softmax(z) - t),   dl/dhidden = dl/dz · head,   dl/dhead = (dl/dz)ᵀ · hidden

    hidden   (..., D), usually (B, T, D)
    head     (V, D) weight of the last layer;  bias (V,) or None
    target   (...) int64 ids, `ignored` where nothing is predicted
    weight   (B,) row weights over the first axis, or None; they spread over tokens as there
    chunk    rows at a time; None: as many as give 2²⁴ logits, and the plain way for less than 2¹⁸

    Memory beside the inputs: chunk · V logits, and the gradients of hidden and head. Under autocast
    the products are in its dtype, softmax and sums in float32. It can be differentiated once.

    The idea of chunks: Wijmans et al. 2024, "Cut your losses in large-vocabulary language models",
    arXiv:2411.09009, who fuse it into one kernel, and Hsu et al. 2024, "Liger Kernel",
    arXiv:2410.10989. Raises `ModelError` where the shapes do not belong together.

    >>> h, W, y = torch.ones(1, 2, 3), torch.zeros(4, 3), torch.tensor([[1, -100]])
    >>> [round(float(v), 4) for v in linear_cross_entropy(h, W, y)]
    [1.3863, 1.0]
    """
    _check(hidden, head, target)
    if chunk is None and target.numel() * len(head) <= FEW_VALUES:
        return token_cross_entropy(
            F.linear(hidden, head, bias), target, weight,
            label_smoothing=label_smoothing, ignored=ignored,
        )  # fmt: skip
    total, count, _ = _fused(
        hidden, head, target, weight, bias=bias, label_smoothing=label_smoothing,
        ignored=ignored, chunk=chunk,
    )  # fmt: skip
    return total, count


def linear_token_losses(
    hidden: Tensor,
    head: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    ignored: int = IGNORED_TOKEN,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `linear_cross_entropy` does, and -log p of each token, shape of `target`.

    Only the total can be differentiated; the losses of tokens are for metrics, 0 where the target
    is ignored. Raises `ModelError` as there.
    """
    return _fused(hidden, head, target, weight, bias=bias, label_smoothing=0.0, ignored=ignored,
                  chunk=chunk)  # fmt: skip


def _fused(
    hidden: Tensor, head: Tensor, target: Tensor, weight: Tensor | None, *, bias: Tensor | None,
    label_smoothing: float, ignored: int, chunk: int | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    _check(hidden, head, target)
    counted = target != ignored
    each_N = counted.to(whole(hidden).dtype)
    if weight is not None:
        each_N = each_N * spread(weight, target)
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, head = hidden.to(dtype), head.to(dtype)  # once, not once a chunk
    rows = chunk or max(FEWEST_ROWS, CHUNK_VALUES // len(head))
    total, losses_N = _Fused.apply(
        hidden.flatten(0, -2),
        head,
        bias,
        target.masked_fill(~counted, 0).flatten(),
        each_N.detach().flatten(),
        label_smoothing,
        rows,
    )
    count = counted.sum() if weight is None else each_N.detach().sum()
    return total, count, losses_N.view(target.shape).masked_fill(~counted, 0.0)


def _check(hidden: Tensor, head: Tensor, target: Tensor) -> None:
    check_tokens(hidden, target, "one hidden state for each position")
    if head.ndim != 2 or head.shape[1] != hidden.shape[-1]:
        raise ModelError(
            f"hidden states of width {hidden.shape[-1]} for a head of shape {tuple(head.shape)}",
            "a head (V, D) whose D is the width of the hidden states",
            "pass the weight of the last linear layer",
        )


class _Fused(torch.autograd.Function):
    """Σ wᵢ lᵢ over rows; the gradients are ready when the forward pass is."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        weight_N: Tensor,
        smoothing: float,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        wants = ctx.needs_input_grad[:3]
        total = whole(hidden_ND.new_zeros(()))
        losses_N = total.new_empty(len(hidden_ND))
        d_hidden = torch.empty_like(hidden_ND) if wants[0] else None
        d_head = torch.zeros_like(head_VD, dtype=total.dtype) if wants[1] else None
        d_bias = torch.zeros_like(head_VD[:, 0], dtype=total.dtype) if wants[2] else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for start in range(0, len(hidden_ND), rows):
                part = slice(start, start + rows)
                h_CD, w_C = hidden_ND[part], weight_N[part]
                logits_CV = whole(F.linear(h_CD, head_VD))
                if bias_V is not None:
                    logits_CV = logits_CV.add_(bias_V)
                logp_CV = logits_CV.log_softmax(1)
                del logits_CV
                at_C1 = target_N[part, None]
                loss_C = logp_CV.gather(1, at_C1).squeeze(1).mul_(smoothing - 1)
                if smoothing:
                    loss_C -= smoothing * logp_CV.mean(1)
                losses_N[part] = loss_C
                # What is ignored has the weight 0, and 0 · inf must not be NaN.
                total += torch.where(w_C == 0, 0.0, loss_C * w_C).sum()
                if not any(wants):
                    continue
                d_CV = logp_CV.exp_()
                if smoothing:
                    d_CV -= smoothing / len(head_VD)
                d_CV.scatter_add_(1, at_C1, d_CV.new_full((), smoothing - 1).expand(at_C1.shape))
                d_CV *= w_C[:, None]
                if d_bias is not None:
                    d_bias += d_CV.sum(0)
                d_CV = d_CV.to(h_CD.dtype)
                if d_hidden is not None:
                    torch.mm(d_CV, head_VD, out=d_hidden[part])
                if d_head is None:
                    continue
                if d_head.dtype == d_CV.dtype:
                    d_head.addmm_(d_CV.t(), h_CD)
                else:
                    d_head += d_CV.t() @ h_CD
        ctx.found = (d_hidden, d_head, d_bias)
        ctx.dtypes = (hidden_ND.dtype, head_VD.dtype, None if bias_V is None else bias_V.dtype)
        ctx.mark_non_differentiable(losses_N)
        return total, losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        ready = (
            None if d is None else (d * grad.to(d.dtype)).to(dtype)
            for d, dtype in zip(ctx.found, ctx.dtypes, strict=True)
        )  # fmt: skip
        return (*ready, None, None, None, None)
