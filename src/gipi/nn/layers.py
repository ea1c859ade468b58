"""The layers of the box by name: records that point at torch's class wherever torch has the part.

"size" is how many positions n of one axis become, with kernel k, stride s, padding p, dilation d;
"parameters" counts the weights, with `in` and `out` channels. Tests read both.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from gipi.core.registry import Record, Registry
from gipi.nn.attention import Attention
from gipi.nn.branches import Branches, DenseConcat, DropPath, Residual
from gipi.nn.conv import conv_block, depthwise, grouped, inception, separable
from gipi.nn.linear import dense_block

if TYPE_CHECKING:
    from collections.abc import Callable


def _record(
    name: str,
    build: Callable[..., Any],
    summary: str,
    citation: str,
    *,
    formula: str,
    shape: str,
    use: str,
    failure: str,
    size: str = "",
    parameters: str = "0",
    aliases: tuple[str, ...] = (),
) -> Record:
    """Return a record whose facts explain the layer."""
    facts: dict[str, Any] = {"formula": formula, "shape": shape}
    if size:
        facts["size"] = size
    if parameters:
        facts["parameters"] = parameters
    return Record(name, build, summary, citation, (),
                  {**facts, "use": use, "failure": failure, "aliases": aliases})  # fmt: skip


_WINDOW = "⌊(n + 2·p - d·(k - 1) - 1) / s⌋ + 1"
_LECUN89 = "LeCun et al. 1989, Backpropagation applied to handwritten zip code recognition"

LAYERS = Registry(
    "layers",
    (
        _record(
            "dense", nn.Linear, "every output sees every input", "Rosenblatt 1958, The perceptron",
            formula="y = W·x + b", shape="(B, ..., in) -> (B, ..., out)",
            parameters="in·out + out",
            use="tables, the head of a net, channels mixed at one position",
            failure="on pictures: it learns every place anew, and its weights grow with the area",
        ),
        _record(
            "conv", nn.Conv2d, "one small kernel for every place", _LECUN89,
            formula="y[o, i, j] = Σ w[o, c, u, v]·x[c, s·i + d·u - p, s·j + d·v - p] + b[o]",
            shape="(B, in, H, W) -> (B, out, H', W')", size=_WINDOW,
            parameters="in·out·k^2 + out",
            use="pictures: what is worth finding in one place is worth finding in all",
            failure="sees as far as its kernels reach: stack, stride or dilate to see more",
            aliases=("convolution", "conv2d"),
        ),
        _record(
            "conv1d", nn.Conv1d, "a kernel along a series",
            "Waibel et al. 1989, Phoneme recognition using time-delay neural networks",
            formula="y[o, i] = Σ w[o, c, u]·x[c, s·i + d·u - p] + b[o]",
            shape="(B, in, T) -> (B, out, T')", size=_WINDOW, parameters="in·out·k + out",
            use="series, sound, text",
            failure="symmetric padding sees the future: pad on the left alone to forecast",
        ),
        _record(
            "grouped-conv", grouped, "groups of channels that do not see each other",
            "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification; Xie et al. 2017, "
            "ResNeXt, arXiv:1611.05431",
            formula="as conv, within each of g groups of channels",
            shape="(B, in, H, W) -> (B, out, H, W)", parameters="in·out·k^2 / g + out",
            use="fewer weights for the same width; AlexNet on two devices",
            failure="groups never meet unless a later layer mixes them",
        ),
        _record(
            "depthwise-conv", depthwise, "every channel its own kernel",
            "Sifre and Mallat 2014, Rigid-motion scattering; Howard et al. 2017, MobileNets, "
            "arXiv:1704.04861",
            formula="y[c, i, j] = Σ w[c, u, v]·x[c, i + u, j + v] + b[c]",
            shape="(B, in, H, W) -> (B, in, H, W)", parameters="in·k^2 + in",
            use="phones; large kernels at little cost",
            failure="few operations for each byte moved: on large machines slower than it counts",
        ),
        _record(
            "separable-conv", separable, "depthwise, then 1x1: space first, channels second",
            "Chollet 2017, Xception, arXiv:1610.02357; Howard et al. 2017, MobileNets",
            formula="pointwise(depthwise(x))", shape="(B, in, H, W) -> (B, out, H', W')",
            parameters="in·k^2 + in + in·out + out",
            use="about k^2 times fewer operations than conv",
            failure="less accurate at the same width",
        ),
        _record(
            "transposed-conv", nn.ConvTranspose2d, "the gradient of a convolution as a layer",
            "Zeiler, Krishnan, Taylor and Fergus 2010, Deconvolutional networks; Dumoulin and "
            "Visin 2016, arXiv:1603.07285",
            formula="y = the transpose of the matrix of conv, times x",
            shape="(B, in, H, W) -> (B, out, H', W')",
            size="(n - 1)·s - 2·p + d·(k - 1) + o + 1", parameters="in·out·k^2 + out",
            use="from small maps to large ones: segmentation, generators",
            failure="a checkerboard where k is no multiple of s: resize and convolve instead",
            aliases=("deconvolution",),
        ),
        _record(
            "conv-block", conv_block, "convolution, norm and activation in a chosen order",
            "He, Zhang, Ren and Sun 2016, Identity mappings, arXiv:1603.05027 (the orders)",
            formula="act(norm(conv(x))), conv(act(norm(x))) or norm(act(conv(x)))",
            shape="(B, in, H, W) -> (B, out, H', W')", parameters="in·out·k^2 + out",
            use="building nets; the bias is left out where the norm would undo it",
            failure="norm-act-conv wants one more norm and activation at the end of the net",
        ),
        _record(
            "dense-block", dense_block, "dense layer, norm, activation and dropout",
            "Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating "
            "errors",
            formula="dropout(act(norm(W·x + b)))", shape="(B, in) -> (B, out)",
            parameters="in·out + out",
            use="building nets; `mlp` is a stack of it", failure="as dense",
        ),
        _record(
            "max-pool", nn.MaxPool2d, "the largest of each window",
            "Ranzato, Huang, Boureau and LeCun 2007, Unsupervised learning of invariant feature "
            "hierarchies",
            formula="y[c, i, j] = max x[c, s·i + u, s·j + v]",
            shape="(B, C, H, W) -> (B, C, H', W')",
            size=_WINDOW,
            use="smaller maps that keep what was found; ceil_mode=True keeps the last, partial "
            "window (GoogLeNet)",
            failure="forgets where in the window; jumps when the picture moves by a pixel",
        ),
        _record(
            "average-pool", nn.AvgPool2d, "the mean of each window", _LECUN89,
            formula="y[c, i, j] = mean x[c, s·i + u, s·j + v]",
            shape="(B, C, H, W) -> (B, C, H', W')",
            size="⌊(n + 2·p - k) / s⌋ + 1",
            use="smooth halving: DenseNet's transitions, shortcuts",
            failure="padding counts as zeros unless count_include_pad=False",
            aliases=("avg-pool",),
        ),
        _record(
            "global-average-pool", partial(nn.AdaptiveAvgPool2d, output_size=1),
            "each map's mean", "Lin, Chen and Yan 2014, Network in network, arXiv:1312.4400",
            formula="y[c] = mean x[c, i, j]", shape="(B, C, H, W) -> (B, C, 1, 1)", size="1",
            use="before the head: any picture size, no weights, little overfitting",
            failure="a small thing in a large picture is averaged away",
        ),
        _record(
            "global-max-pool", partial(nn.AdaptiveMaxPool2d, output_size=1),
            "each map's largest value",
            "Oquab, Bottou, Laptev and Sivic 2015, Is object localization for free?",
            formula="y[c] = max x[c, i, j]", shape="(B, C, H, W) -> (B, C, 1, 1)", size="1",
            use="is it anywhere in the picture? Small things, weak labels",
            failure="one position gets all of the gradient",
        ),
        _record(
            "flatten", nn.Flatten, "maps as one vector", _LECUN89,
            formula="y = all of x[c, i, j] in order", shape="(B, C, H, W) -> (B, C·H·W)",
            use="between convolutions and dense layers of a fixed picture size",
            failure="fixes the picture size, and most weights stand behind it: pool instead",
        ),
        _record(
            "dropout", nn.Dropout, "leaves units out at random in training",
            "Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, Dropout",
            formula="y = x·b / (1 - p), P(b = 0) = p for each element; y = x in prediction",
            shape="(B, ...) -> the same",
            use="wide dense layers on small data; AlphaDropout where SELU is used",
            failure="before a batch norm: the variance in prediction is another one",
        ),
        _record(
            "drop-path", DropPath, "stochastic depth: rows skip a residual branch in training",
            "Huang, Sun, Liu, Sedra and Weinberger 2016, Deep networks with stochastic depth, "
            "arXiv:1603.09382",
            formula="y = x·b / (1 - p), P(b = 0) = p for each row; y = x in prediction",
            shape="(B, ...) -> the same",
            use="the branch of a residual sum in deep nets; later blocks more (drop_rates)",
            failure="outside of a sum it deletes whole rows",
            aliases=("stochastic-depth",),
        ),
        _record(
            "embedding", nn.Embedding, "a learned vector for each code",
            "Bengio, Ducharme, Vincent and Jauvin 2003, A neural probabilistic language model",
            formula="y = W[code]", shape="(B, ...) int64 -> (B, ..., out)",
            parameters="in·out",
            use="words and categories; `in` is the number of codes",
            failure="a code that training did not show keeps its first vector",
        ),
        _record(
            "attention", Attention, "every place gathers from all others what suits it",
            "Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762",
            formula="y = W·softmax(s·q·kᵀ)·v + b, s = 1/√E, in heads of E units",
            shape="(B, T, in) -> (B, T, in)", parameters="4·in^2 + 4·in",
            use="texts, and whatever is a set or a long series: any two places are one step apart",
            failure="knows no order unless positions are added; its cost grows with T^2",
            aliases=("self-attention", "multi-head-attention"),
        ),
        _record(
            "residual", Residual, "the input is added to the output",
            "He, Zhang, Ren and Sun 2016, Deep residual learning, arXiv:1512.03385",
            formula="y = x + f(x)", shape="(B, ...) -> the same",
            parameters="",
            use="nets of more than about ten layers",
            failure="the variance grows with every sum unless f starts small or is normalised",
        ),
        _record(
            "dense-concat", DenseConcat, "the input stands beside the output",
            "Huang, Liu, van der Maaten and Weinberger 2017, Densely connected convolutional "
            "networks, arXiv:1608.06993",
            formula="y = [x, f(x)]", shape="(B, C, ...) -> (B, C + K, ...)",
            parameters="",
            use="features are used again by all later layers: few weights for the accuracy",
            failure="memory grows with the square of the depth",
        ),
        _record(
            "inception", inception, "kernels of several sizes side by side",
            "Szegedy et al. 2015, Going deeper with convolutions, arXiv:1409.4842",
            formula="y = [1x1, 1x1-3x3, 1x1-5x5, pool-1x1]",
            shape="(B, in, H, W) -> (B, sum of the branches, H, W)",
            parameters="",
            use="things of several sizes at one depth of the net",
            failure="many widths to choose by hand",
        ),
        _record(
            "branches", Branches, "any modules side by side",
            "Szegedy et al. 2015, Going deeper with convolutions, arXiv:1409.4842",
            formula="y = [f1(x), ..., fn(x)]", shape="(B, C, ...) -> (B, sum of the widths, ...)",
            parameters="",
            use="joins of your own", failure="the branches must agree in all but the channels",
        ),
    ),
)  # fmt: skip
