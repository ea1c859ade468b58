"""Features of images that tell a shape wherever it lies: how much like some patches they are.

Filters are patches of the training images themselves, never trained (Coates, Ng and Lee 2011, An
analysis of single-layer networks in unsupervised feature learning). A ridge regression on them sees
in milliseconds what one on pixels, or the nearest neighbours, cannot: that a thing was moved.

Shapes: n images of c channels, k filters of side s.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FILTERS, SIDE = 64, 5
ABOVE = 1.0
"""Response, of a filter of length 1 to pixels of deviation 1, that counts as likeness."""
PLACES = 400
"""Places of an image that are looked at, about."""
PART = 250
"""Images at once."""


@dataclass(frozen=True)
class Patches:
    """Filters from some images; called with images, it returns (n, 4 k) features.

    Mean and maximum over all places of max(0, r - 1) and max(0, -r - 1), r the response.
    """

    filters_kcss: Tensor
    mean: Tensor
    std: Tensor
    stride: int

    def __call__(self, X_nchw: Tensor) -> Tensor:
        """Return the features of images, in their rows' order."""
        return torch.cat([self._part(X) for X in X_nchw.split(PART)])

    def _part(self, X: Tensor) -> Tensor:
        r = F.conv2d((X.float() - self.mean) / self.std, self.filters_kcss, stride=self.stride)
        like = torch.cat([(r - ABOVE).relu(), (-r - ABOVE).relu()], 1)
        return torch.cat([like.mean((2, 3)), like.amax((2, 3))], 1)


def patches(X_nchw: Tensor) -> Patches | None:
    """Return filters from images of one size; None where they are too small for a patch."""
    X = X_nchw.detach().float()
    if X.ndim != 4 or min(X.shape[2:]) < SIDE or not bool(X.isfinite().all()):
        return None
    mean = X.mean((0, 2, 3), keepdim=True)
    std = X.std((0, 2, 3), keepdim=True)
    std = torch.where(std > 1e-12, std, torch.ones_like(std))
    generator = torch.Generator().manual_seed(0)
    n, (high, wide) = len(X), (size - SIDE + 1 for size in X.shape[2:])

    def drawn(most: int) -> list[int]:
        found: list[int] = torch.randint(most, (FILTERS,), generator=generator).tolist()
        return found

    at = zip(drawn(n), drawn(high), drawn(wide), strict=True)
    cut = torch.stack([X[i, :, y : y + SIDE, x : x + SIDE] for i, y, x in at])
    cut = (cut - mean) / std
    cut = cut - cut.mean((1, 2, 3), keepdim=True)
    cut = cut / cut.flatten(1).norm(dim=1).clamp_min(1e-9)[:, None, None, None]
    stride = max(1, round((high * wide / PLACES) ** 0.5))
    return Patches(cut, mean, std, stride)


def standard(features_np: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (features_np - features_np.mean(0)) / features_np.std(0).clamp_min(1e-6)
