"""Convolutional blocks: plain, grouped, depthwise, separable, transposed, and Inception."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from gipi.core.errors import ConfigError
from gipi.nn.activations import widening
from gipi.nn.branches import Branches
from gipi.nn.linear import arranged, keeps_bias, widths

if TYPE_CHECKING:
    from gipi.nn.linear import Order


def conv_block(
    width_in: int,
    width_out: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    transposed: bool = False,
    padding: int | None = None,
    activation: str = "relu",
    norm: str = "none",
    order: Order = "conv-norm-act",
) -> nn.Sequential:
    """Return a 2-D convolution with its norm and activation in `order`; what does nothing is out.

    (B, width_in, H, W) -> (B, width_out, ⌈H / stride⌉, ⌈W / stride⌉) for odd kernels, or with
    `transposed` (B, width_out, H·stride, W·stride).

    groups   1 joins all channels, `width_in` none of them (depthwise)
    padding  None keeps the size at stride 1
    order    conv-norm-act (Ioffe and Szegedy 2015), norm-act-conv (pre-activation, He et al. 2016,
             arXiv:1603.05027) or conv-act-norm

    Raises `ConfigError` for widths that `groups` does not divide and for an unknown order.
    """
    if groups < 1:
        raise ConfigError(f"groups={groups}", "one or more", "use groups=1")
    for name, width in (("in", width_in), ("out", width_out)):
        if width % groups:
            raise ConfigError(f"{width} channels {name} of a convolution in {groups} groups",
                              f"a multiple of {groups}",
                              "change the width or the groups")  # fmt: skip
    wide_in, wide_out = widths(width_in, width_out, widening(activation), order=order)
    bias = keeps_bias(norm, order)
    layer: nn.Module
    if transposed:
        # With padding p and output padding o: (H - 1) s - 2p + d (k - 1) + o + 1 = H s.
        extra = dilation * (kernel - 1) + 1 - stride
        pad = max(0, (extra + 1) // 2) if padding is None else padding
        over = 2 * pad - extra if padding is None else 0
        layer = nn.ConvTranspose2d(
            wide_in, wide_out, kernel, stride, pad, over, groups, bias, dilation
        )
    else:
        pad = dilation * (kernel - 1) // 2 if padding is None else padding
        layer = nn.Conv2d(wide_in, wide_out, kernel, stride, pad, dilation, groups, bias)
    return arranged("conv", layer, activation=activation, norm=norm, order=order,
                    width=width_in if order == "norm-act-conv" else wide_out, dims=2,
                    behind=width_out)  # fmt: skip


def grouped(width_in: int, width_out: int, *, kernel: int = 3, groups: int = 2) -> nn.Conv2d:
    """Return a convolution in which `groups` parts of the channels do not see each other.

    (B, width_in, H, W) -> (B, width_out, H, W) for odd kernels; in·out·k² / groups weights.
    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification".
    """
    return nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, groups=groups)


def depthwise(width: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a convolution in which every channel sees itself only.

    (B, width, H, W) -> (B, width, ⌈H / stride⌉, ⌈W / stride⌉) for odd kernels; width·k² weights.
    Howard et al. 2017, "MobileNets", arXiv:1704.04861.
    """
    return nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width)


def separable(
    width_in: int,
    width_out: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    activation: str = "relu",
    norm: str = "none",
) -> nn.Sequential:
    """Return a depthwise block and then a 1x1 block: space first, channels second.

    (B, width_in, H, W) -> (B, width_out, ⌈H / stride⌉, ⌈W / stride⌉) for odd kernels.
    k² in + in·out weights instead of k² in·out. Howard et al. 2017, "MobileNets", arXiv:1704.04861.
    """
    parts = {"activation": activation, "norm": norm}
    return nn.Sequential(
        conv_block(width_in, width_in, kernel=kernel, stride=stride, groups=width_in, **parts),  # type: ignore[arg-type]
        conv_block(width_in, width_out, kernel=1, **parts),  # type: ignore[arg-type]
    )


def inception(
    width_in: int,
    one: int,
    *,
    three: tuple[int, int],
    five: tuple[int, int],
    pool: int,
    activation: str = "relu",
    norm: str = "none",
) -> Branches:
    """Return an Inception module: kernels of three sizes and a pool, side by side.

        [1x1: one] [1x1 - 3x3: three] [1x1 - 5x5: five] [max 3x3 - 1x1: pool]

    (B, width_in, H, W) -> (B, one + three[1] + five[1] + pool, H, W); the first number of `three`
    and `five` is the width to which a 1x1 convolution reduces before the dear kernel.

    Szegedy et al. 2015, "Going deeper with convolutions", arXiv:1409.4842, figure 2b.

    >>> import torch
    >>> block = inception(192, 64, three=(96, 128), five=(16, 32), pool=32)  # 3a of the paper
    >>> block(torch.zeros(1, 192, 8, 8)).shape, sum(p.numel() for p in block.parameters())
    (torch.Size([1, 256, 8, 8]), 163696)
    """

    def block(wide: int, width: int, kernel: int) -> nn.Module:
        return conv_block(wide, width, kernel=kernel, activation=activation, norm=norm)

    return Branches([
        block(width_in, one, 1),
        nn.Sequential(block(width_in, three[0], 1), block(three[0], three[1], 3)),
        nn.Sequential(block(width_in, five[0], 1), block(five[0], five[1], 5)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), block(width_in, pool, 1)),
    ])  # fmt: skip
