"""Mixing two rows and their targets: mixup and cutmix.

Every row is mixed with another row of the same global batch, so that ranks and micro-batches do not
change what it becomes; the share λ is a pure function of (seed, epoch, sample id).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from gipi.data.augment.erasing import rectangle

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_KNOTS = 2049


@dataclass(frozen=True)
class Mixing:
    """One way to mix: `pictures` blends by λ ("mixup") or pastes a rectangle ("cutmix").

    alpha   both parameters of the Beta distribution of λ
    p       probability that a row is mixed at all
    """

    name: str
    alpha: float
    p: float
    table: Tensor


def mixup(*, alpha: float = 0.2, p: float = 1.0) -> Mixing:
    """Blend x' = λ x + (1 - λ) x₂ and the targets alike, λ ~ Beta(α, α).

    Zhang et al. 2017, arXiv:1710.09412. The larger share is the row's own; as the pairs are
    random this changes nothing but which of two equal mixtures carries the row's id.
    """
    return Mixing("mixup", alpha, p, beta_table(alpha))


def cutmix(*, alpha: float = 1.0, p: float = 0.5) -> Mixing:
    """Paste a rectangle of another picture, area share 1 - λ with λ ~ Beta(α, α).

    Yun et al. 2019, arXiv:1905.04899. λ of the targets is what is left of the area after clipping.
    """
    return Mixing("cutmix", alpha, p, beta_table(alpha))


def beta_table(alpha: float) -> Tensor:
    """Return (2, knots) float64 of the lower half of Beta(α, α): u and t = x^min(α, 1) at F(x) = u.

    For α < 1 the density has a pole at 0, which the substitution removes:
    F = C ∫ (1 - t^(1/α))^(α - 1) dt / α. What is left is bounded and summed by trapezoids.
    """
    power = min(alpha, 1.0)
    t = np.linspace(0.0, 0.5**power, _KNOTS)
    x = t ** (1 / power)
    density = (1 - x) ** (alpha - 1) * x ** (alpha - power if alpha > 1 else 0.0)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return torch.from_numpy(np.stack([area / area[-1] / 2, t]))


def beta_quantile(u: Tensor, table: Tensor, alpha: float) -> Tensor:
    """Return the u-quantile of Beta(α, α) for uniform u in [0, 1), float64."""
    knots, t = table.to(u.device).unbind(0)
    low = torch.minimum(u, 1 - u)
    at = torch.searchsorted(knots, low.contiguous()).clamp(1, len(knots) - 1)
    share = (low - knots[at - 1]) / (knots[at] - knots[at - 1])
    x = (t[at - 1] + share * (t[at] - t[at - 1])) ** (1 / min(alpha, 1.0))
    return torch.where(u < 0.5, x, 1 - x)


def keep_share(mixing: Mixing, draw: Callable[[int], Tensor]) -> Tensor:
    """Return λ (B,) float64: the share of its own that each row keeps; 1 where it is not mixed."""
    share = beta_quantile(draw(0), mixing.table, mixing.alpha)
    if mixing.name == "mixup":
        share = torch.maximum(share, 1 - share)
    return torch.where(draw(1) < mixing.p, share, torch.ones_like(share))


def blend(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Return λ own + (1 - λ) other for float tensors (B, ...)."""
    weight = share.to(own.dtype).view(-1, *[1] * (own.dim() - 1))
    return own * weight + other * (1 - weight)


def paste_box(share: Tensor, draw: Callable[[int], Tensor], height: int, width: int) -> Tensor:
    """Return (B, 4) int64 y1 y2 x1 x2 of the pasted rectangle, clipped to the picture."""
    side = torch.sqrt((1 - share).clamp(0, 1))
    h, w = (side * height).long(), (side * width).long()
    y = torch.floor(draw(2) * height).long() - h // 2
    x = torch.floor(draw(3) * width).long() - w // 2
    return torch.stack(
        [y.clamp(0, height), (y + h).clamp(0, height), x.clamp(0, width), (x + w).clamp(0, width)],
        dim=1,
    )


def paste(own: Tensor, other: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Return pictures with the rectangle of the other pasted in, and the share λ that is left."""
    _, _, h, w = own.shape
    mixed = torch.where(rectangle(box, h, w), other, own)
    pasted = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    return mixed, 1 - pasted.double() / (h * w)


def mix_targets(own: Tensor, other: Tensor, share: Tensor, *, classes: int) -> Tensor:
    """Return float targets: (B, K) class shares of class codes, or blended values."""
    if own.dtype == torch.int64:
        return blend(
            functional.one_hot(own, classes).float(), functional.one_hot(other, classes).float(),
            share,
        )  # fmt: skip
    return blend(own, other, share)
