"""Contrastive losses of embeddings: the other rows of the batch are what a row must tell apart.

They mix rows: a smaller batch is another loss, hence no micro-batches.

B rows, M candidates, D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.losses.tokens import whole

if TYPE_CHECKING:
    from torch import Tensor


def info_nce(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    temperature: float = 0.05,
    groups: Tensor | None = None,
) -> tuple[Tensor, float | Tensor]:
    """Return the mean of both directions of `ranking`: outputs find their targets and vice versa.

        lᵢ = -(log softmaxⱼ(cos(aᵢ, pⱼ)/τ)ᵢ + log softmaxⱼ(cos(pᵢ, aⱼ)/τ)ᵢ) / 2

    outputs, target  (B, D) two embeddings of each row, of any length: only directions count
    weight           (B,) or None; a row of weight 0 is still a negative of the others
    temperature      τ
    groups           (B,) int64 or None: rows of one group are no negatives of each other

    van den Oord, Li and Vinyals 2018, "Representation learning with contrastive predictive coding",
    arXiv:1807.03748; both directions as in Radford et al. 2021, arXiv:2103.00020; the temperature
    is that of Gao, Yao and Chen 2021, "SimCSE", arXiv:2104.08821.
    """
    there, count = ranking(outputs, target, weight, temperature=temperature, groups=groups)
    back, _ = ranking(target, outputs, weight, temperature=temperature, groups=groups)
    return (there + back) / 2, count


def ranking(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    temperature: float = 0.05,
    groups: Tensor | None = None,
) -> tuple[Tensor, float | Tensor]:
    """Return the multiple-negatives ranking loss: row i must rank candidate i first.

        lᵢ = -log( e^{cos(aᵢ, pᵢ)/τ} / Σⱼ e^{cos(aᵢ, pⱼ)/τ} ),   j over all M candidates

    outputs  (B, D) anchors
    target   (M, D) candidates, M >= B: the first B are the anchors' own, others (hard negatives)
             are nobody's
    groups   (M,) int64 or None: candidates of the anchor's group are not its negatives, so that a
             text which comes twice in the batch is not pushed away from itself

    Henderson et al. 2017, "Efficient natural language response suggestion", arXiv:1705.00652, with
    cosines for dot products, as sentence encoders are trained (Reimers and Gurevych 2019,
    arXiv:1908.10084). Raises `ModelError` where the shapes do not belong together.

    >>> total, count = ranking(torch.eye(2), torch.eye(2), temperature=1.0)
    >>> round(total.item() / count, 4)  # log(1 + 1/e)
    0.3133
    """
    if outputs.ndim != 2 or target.ndim != 2 or outputs.shape[1] != target.shape[1]:
        raise ModelError(
            f"embeddings of shapes {tuple(outputs.shape)} and {tuple(target.shape)}",
            "two matrices (rows, D) of one width",
            "embed both sides with the same model",
        )
    if len(target) < len(outputs):
        raise ModelError(
            f"{len(outputs)} anchors and {len(target)} candidates",
            "at least one candidate for each anchor, its own first",
            "pass one candidate a row, then the further negatives",
        )
    scores_BM = F.normalize(whole(outputs), dim=1) @ F.normalize(whole(target), dim=1).t()
    scores_BM = scores_BM / temperature
    own = torch.arange(len(outputs), device=outputs.device)
    if groups is not None:
        same = groups[: len(outputs), None] == groups[None, :]
        same[own, own] = False
        scores_BM = scores_BM.masked_fill(same, -torch.inf)
    if weight is None:
        return F.cross_entropy(scores_BM, own, reduction="sum"), float(len(outputs))
    each = F.cross_entropy(scores_BM, own, reduction="none")
    return (each * weight).sum(), weight.sum()
