"""Learning from a teacher: its soft targets, and the direction of its hidden states.

B rows, T positions, K classes or ids, D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from gipi.losses.shapes import matched
from gipi.losses.tokens import check_tokens, spread, token_cross_entropy, whole

if TYPE_CHECKING:
    from torch import Tensor

TRIPLE = (5.0, 2.0, 1.0)
"""Factors of soft targets, masked tokens and hidden states in DistilBERT's training."""


def distillation(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    temperature: float = 2.0,
    keep: Tensor | None = None,
) -> tuple[Tensor, float | Tensor]:
    """Return τ² KL(p ‖ q) between the teacher's softened answer p and the student's q.

        l = τ² Σₖ pₖ (log pₖ - log qₖ),   p = softmax(teacher/τ),   q = softmax(student/τ)

    outputs      (..., K) logits of the student
    target       (..., K) logits of the teacher; no gradient goes to them
    weight       (B,) row weights over the first axis, or None; each kept position counts w_b
    temperature  τ; the factor τ² keeps the size of the gradient when τ changes
    keep         (...) bool: positions that count (no padding), None for all

    Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network",
    arXiv:1503.02531. They write the cross-entropy with p; the divergence differs from it by the
    entropy of p, which is no function of the student, and is 0 when both agree.
    """
    teacher = whole(matched(target, outputs)).detach() / temperature
    student = whole(outputs) / temperature
    each = F.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    return _summed(each * temperature**2, weight, keep)


def hidden_cosine(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None, *, keep: Tensor | None = None
) -> tuple[Tensor, float | Tensor]:
    """Return 1 - cos(h, h') between hidden states (..., D) of the student and of the teacher.

    weight  (B,) or None;  keep (...) bool, both as in `distillation`

    Sanh, Debut, Chaumond and Wolf 2019, "DistilBERT", arXiv:1910.01108.
    """
    teacher = whole(matched(target, outputs)).detach()
    return _summed(1 - F.cosine_similarity(whole(outputs), teacher, dim=-1), weight, keep)


def distil_triple(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    teacher: Tensor,
    hidden: Tensor,
    teacher_hidden: Tensor,
    temperature: float = 2.0,
    factors: tuple[float, float, float] = TRIPLE,
) -> tuple[Tensor, float | Tensor]:
    """Return DistilBERT's loss, 5 · soft targets + 2 · masked tokens + 1 · cosine of hidden states.

    outputs, teacher        (N, K) logits at the N masked positions
    target                  (N,) int64 ids that stood there, none ignored
    hidden, teacher_hidden  (N, D) last hidden states at the same positions
    weight                  (N,) or None

    Sanh, Debut, Chaumond and Wolf 2019, "DistilBERT", arXiv:1910.01108; the factors are those of
    the authors' training script. It differs in taking all three at the masked positions, where the
    paper takes soft targets and cosine at every position: so they have one count, and the head
    runs at a seventh of the positions. For the paper's form add `distillation`, `hidden_cosine`
    and `token_cross_entropy` as sub-losses with counts of their own.
    """
    check_tokens(outputs, target, "one row of logits for each masked position")
    soft, count = distillation(outputs, teacher, weight, temperature=temperature)
    hard, _ = token_cross_entropy(outputs, target, weight)
    cosine, _ = hidden_cosine(hidden, teacher_hidden, weight)
    return factors[0] * soft + factors[1] * hard + factors[2] * cosine, count


def _summed(
    each: Tensor, weight: Tensor | None, keep: Tensor | None
) -> tuple[Tensor, float | Tensor]:
    """Return (Σ w l, Σ w) over the kept positions of (B, ...) losses."""
    if weight is None and keep is None:
        return each.sum(), float(each.numel())
    w = each.new_ones(()) if weight is None else spread(weight, each)
    if keep is not None:
        each, w = each.masked_fill(~keep, 0.0), w * keep
    return (each * w).sum(), w.sum()
