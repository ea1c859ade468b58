"""Normalisation layers by name: over what each takes its statistics, and which of them mix rows.

x (B, C) or (B, C, positions...): B rows, C channels. "over" in a record names the axes that share
one mean and one variance; a test reads it. Where the norm stands is an option of the blocks
(`dense_block`, `conv_block`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.core.registry import Record, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

GROUPS = 32  # of group norm, or the largest number below it that `groups_of` finds
FEWEST = 2, 4  # channels of a group of maps (one is instance norm), of vectors (two are 1 and -1)
# Local response normalisation as published; torch divides its alpha by the size.
LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K = 5, 1e-4, 0.75, 2.0


class RMSNorm(nn.RMSNorm):
    """torch's over the last axis, y = x / √(mean x² + ε)·γ, with γ rounded to the type of x.

    Under autocast x is of half precision and γ is not; torch then warns and takes its slow way.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled rows."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class RowRMSNorm(nn.Module):
    """y = x / √(mean x² + ε) · γ_C over channels and positions of one row.

    x (B, C, positions...) -> the same. torch's RMSNorm takes trailing axes only, with a γ for every
    position; this is its counterpart of group norm with one group.

    Zhang and Sennrich 2019, "Root mean square layer normalization", arXiv:1910.07467.
    """

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled rows."""
        wide = x.float() if x.dtype in {torch.bfloat16, torch.float16} else x
        power = wide.square().mean(tuple(range(1, x.ndim)), keepdim=True)
        gain = self.weight.view(-1, *([1] * (x.ndim - 2)))
        return (wide * torch.rsqrt(power + self.eps) * gain).to(x.dtype)


# ------------------------------------------------------------------------ batch norm


class BatchNorm1d(nn.BatchNorm1d):
    """torch's, which also takes a single value of each channel in training; see `_alone`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised rows."""
        return _alone(self, x) if _is_alone(self, x) else super().forward(x)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, which also takes a single value of each channel in training; see `_alone`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps."""
        return _alone(self, x) if _is_alone(self, x) else super().forward(x)


class BatchNorm3d(nn.BatchNorm3d):
    """torch's, which also takes a single value of each channel in training; see `_alone`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised volumes."""
        return _alone(self, x) if _is_alone(self, x) else super().forward(x)


def _is_alone(layer: BatchNorm1d | BatchNorm2d | BatchNorm3d, x: Tensor) -> bool:
    """Return whether training gives one value of each channel: one row, and one position of it."""
    return layer.training and len(x) == 1 and x.numel() == layer.num_features


def _alone(layer: BatchNorm1d | BatchNorm2d | BatchNorm3d, x: Tensor) -> Tensor:
    """Return what prediction would: one value has no spread, and torch refuses it.

    An epoch of 65 rows in batches of 32 ends with one row. The running statistics stay as they are.
    """
    return F.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias,
        training=False, eps=layer.eps,
    )  # fmt: skip


# ------------------------------------------------------------------------ builders


def _batch(width: int, dims: int) -> nn.Module:
    return (BatchNorm1d, BatchNorm1d, BatchNorm2d, BatchNorm3d)[dims](width)


def _layer(width: int, dims: int) -> nn.Module:
    # Over channels and positions of one row; for vectors that is layer norm itself.
    return nn.LayerNorm(width) if dims == 0 else nn.GroupNorm(1, width)


def _instance(width: int, dims: int) -> nn.Module:
    _needs_positions("instance", dims)
    kind = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 1]
    return kind(width, affine=True)


def groups_of(width: int, *, fewest: int) -> int:
    """Return the most groups that divide 32 and `width` and have `fewest` channels each, or one.

    >>> [groups_of(width, fewest=4) for width in (256, 64, 32, 12, 6, 3)]
    [32, 16, 8, 2, 1, 1]
    """
    groups = math.gcd(width, GROUPS)
    while groups > 1 and width // groups < fewest:
        groups //= 2
    return groups


def _group(width: int, dims: int) -> nn.Module:
    return nn.GroupNorm(groups_of(width, fewest=FEWEST[dims == 0]), width)


def _rms(width: int, dims: int) -> nn.Module:
    return RMSNorm(width, eps=1e-5) if dims == 0 else RowRMSNorm(width)


def _lrn(width: int, dims: int) -> nn.Module:  # noqa: ARG001
    _needs_positions("lrn", dims)
    return nn.LocalResponseNorm(LRN_SIZE, LRN_ALPHA * LRN_SIZE, LRN_BETA, LRN_K)


def _none(width: int, dims: int) -> nn.Module:  # noqa: ARG001
    return nn.Identity()


def _needs_positions(name: str, dims: int) -> None:
    if dims == 0:
        raise ModelError(f"norm '{name}' for vectors", "channels with positions, as in pictures",
                         "use layer, rms, group or batch")  # fmt: skip


# ------------------------------------------------------------------------ records


def _record(
    name: str,
    build: Callable[[int, int], nn.Module],
    summary: str,
    citation: str,
    *,
    formula: str,
    over: str,
    use: str,
    failure: str,
    torch_name: str,
    tags: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
) -> Record:
    """Return a record whose facts explain the norm.

    over  the axes of one statistic: B rows, C channels, G the channels of a group, P positions
    """
    facts: dict[str, Any] = {
        "formula": formula, "over": over, "use": use, "failure": failure, "torch": torch_name,
        "aliases": aliases,
    }  # fmt: skip
    return Record(name, build, summary, citation, tags, facts)


_FORMULA = "y = (x - μ) / √(σ² + ε)·γ + β, ε = 1e-5; γ = 1 and β = 0 at the start, per channel"

NORMS = Registry(
    "norms",
    (
        _record(
            "none", _none, "nothing",
            "He, Zhang, Ren and Sun 2015, arXiv:1502.01852 (does without)",
            formula="y = x", over="",
            use="shallow nets; deep ones with residual sums and careful initial weights",
            failure="deep plain nets: the scale of a signal drifts from layer to layer",
            torch_name="torch.nn.Identity",
        ),
        _record(
            "batch", _batch, "over the rows of the batch: mixes rows",
            "Ioffe and Szegedy 2015, Batch normalization, arXiv:1502.03167",
            formula=_FORMULA + "; running μ and σ² (momentum 0.1, σ² unbiased) in prediction, "
            "and in training for a single value",
            over="B, P",
            use="deep convolutional nets with 16 rows or more on a device; free after training, "
            "since it folds into the convolution",
            failure="few or dependent rows: noisy statistics, and prediction differs from "
            "training; the loss is no sum over rows, so micro-batches change the result",
            torch_name="torch.nn.BatchNorm1d, BatchNorm2d, BatchNorm3d",
            tags=("mixes-rows",), aliases=("batch-norm",),
        ),
        _record(
            "layer", _layer, "over the units of one row",
            "Ba, Kiros and Hinton 2016, Layer normalization, arXiv:1607.06450",
            formula=_FORMULA, over="C, P",
            use="recurrent nets and Transformers: no batch, no running statistics, any length",
            failure="in convolutional nets it erases what differs between channels",
            torch_name="torch.nn.LayerNorm for vectors, GroupNorm(1, C) for maps",
            aliases=("layer-norm",),
        ),
        _record(
            "instance", _instance, "over the positions of one channel of one row",
            "Ulyanov, Vedaldi and Lempitsky 2016, Instance normalization, arXiv:1607.08022",
            formula=_FORMULA, over="P",
            use="style transfer and picture-to-picture nets: contrast is style",
            failure="classification: how strong a feature is, is lost",
            torch_name="torch.nn.InstanceNorm1d, InstanceNorm2d, InstanceNorm3d (affine)",
            aliases=("instance-norm",),
        ),
        _record(
            "group", _group, "over groups of channels of one row",
            "Wu and He 2018, Group normalization, arXiv:1803.08494",
            formula=_FORMULA, over="G, P",
            use="convolutional nets with few rows on a device: detection, segmentation, large "
            "pictures; 32 groups, or the most that divide 32 and C and have 2 channels (vectors 4)",
            failure="a little behind batch norm where batches are large",
            torch_name="torch.nn.GroupNorm", aliases=("group-norm",),
        ),
        _record(
            "rms", _rms, "divides by the root mean square, no mean taken away",
            "Zhang and Sennrich 2019, Root mean square layer normalization, arXiv:1910.07467",
            formula="y = x / √(mean x² + ε)·γ, ε = 1e-5", over="C, P",
            use="large Transformers: as good as layer norm there, and cheaper",
            failure="a signal far from 0 keeps its mean",
            torch_name="torch.nn.RMSNorm for vectors", aliases=("rms-norm",),
        ),
        _record(
            "lrn", _lrn, "each channel against its four neighbours, as in AlexNet",
            "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification with deep "
            "convolutional neural networks",
            formula="y_c = x_c / (2 + 0.0001·Σ x_j²)^0.75, j within 2 of c",
            over="", use="AlexNet and GoogLeNet as published",
            failure="no trained scale and hardly any effect on training: batch norm took its place",
            torch_name="torch.nn.LocalResponseNorm(5, 0.0005, 0.75, 2)",
            aliases=("local-response",),
        ),
    ),
)  # fmt: skip


def norm(name: str, width: int, *, dims: int = 0) -> nn.Module:
    """Return the normalisation called `name` for `width` channels.

    dims  axes behind the channels: 0 for vectors (B, C), 1 for (B, C, T), 2 for (B, C, H, W), 3

    Raises `UnknownName`, and `ModelError` for instance and lrn on vectors and for other `dims`.
    """
    build: Callable[[int, int], nn.Module] = NORMS.get(name).build
    if not 0 <= dims <= 3:
        raise ModelError(f"a norm over dims={dims}", "0 to 3 axes behind the channels",
                         "use 0 for vectors, 1 for series, 2 for maps, 3 for volumes")  # fmt: skip
    return build(width, dims)


def mixes_rows(module: nn.Module) -> list[str]:
    """Return the names of the modules whose training output for a row depends on other rows.

    These are the batch norms (also lazy and synchronised ones) and whatever declares itself by a
    true attribute `mixes_rows`. With one of them the loss is not a sum over rows, so micro-batches
    change the result.

    >>> mixes_rows(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    ['1']
    """
    base = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  the only common base that torch offers
    return [
        name or type(layer).__name__
        for name, layer in module.named_modules()
        if isinstance(layer, base) or getattr(layer, "mixes_rows", False) is True
    ]
