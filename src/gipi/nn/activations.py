"""Activations: records over torch, each with its formula, derivative, use and failure.

The texts of a record are exact: a test reads formula, range and derivative and compares them with
the module and with autograd. Where a text needs a name of its own, the fact "where" defines it.
"""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gipi.core.errors import ConfigError, ModelError, did_you_mean
from gipi.core.registry import Record, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


class Step(nn.Module):
    """The threshold unit, f(x) = 1 where x >= 0, else 0.

    Its derivative is 0 wherever it exists, so nothing before it can learn by gradient descent; the
    perceptron learns by its own rule on the sum that comes before the threshold. McCulloch and
    Pitts 1943; Rosenblatt 1958.

    straight_through  pretend on the way back that the derivative is 1 where |x| <= 1, else 0, so
                      that layers below can be trained (Bengio, Léonard and Courville 2013,
                      arXiv:1308.3432; the bounds are those of Courbariaux et al. 2016,
                      arXiv:1602.02830)
    """

    def __init__(self, *, straight_through: bool = False) -> None:
        super().__init__()
        self.straight_through = straight_through

    def forward(self, x: Tensor) -> Tensor:
        """Return 0 or 1 for each element, in the dtype of `x`."""
        hard = (x >= 0).to(x.dtype)
        if not self.straight_through:
            return hard
        soft = x.clamp(-1, 1)  # its gradient is 1 within the bounds, its value is taken away again
        return hard.detach() + (soft - soft.detach())


class ScaledTanh(nn.Module):
    """f(x) = 1.7159 tanh(2x/3): f(±1) = ±1, and the curvature is largest there.

    LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
    recognition", appendix A.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return f elementwise."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class Maxout(nn.Module):
    """yᵢ = the largest of `pieces` neighbouring units; torch has no such module.

    x (B, C·pieces, ...) -> (B, C, ...): unit i of the output sees units i·pieces ... of the input,
    so the layer before must be `pieces` times as wide (`dense_block` and `conv_block` see to it).
    Goodfellow, Warde-Farley, Mirza, Courville and Bengio 2013, "Maxout networks", arXiv:1302.4389.
    """

    def __init__(self, *, pieces: int = 2) -> None:
        super().__init__()
        if pieces < 1:
            raise ConfigError(f"pieces={pieces}", "one or more", "use pieces=2")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima."""
        if x.shape[1] % self.pieces:
            raise ModelError(f"{x.shape[1]} units before a maxout of {self.pieces} pieces",
                             f"a multiple of {self.pieces}",
                             "widen the layer before it")  # fmt: skip
        largest: Tensor = x.unflatten(1, (-1, self.pieces)).amax(2)
        return largest


# ------------------------------------------------------------------------ records


def _record(
    name: str,
    build: Callable[..., nn.Module],
    summary: str,
    citation: str,
    *,
    formula: str,
    range: str,  # noqa: A002  the word of the field
    derivative: str,
    use: str,
    failure: str,
    init: str,
    where: str = "",
    gain: float | None = None,
    aliases: tuple[str, ...] = (),
    tags: tuple[str, ...] = ("elementwise",),
) -> Record:
    """Return a record whose facts explain the activation.

    init  the initialisation that suits the layer before it, with its `gain` where that is special
    """
    facts: dict[str, Any] = {"formula": formula}
    if where:
        facts["where"] = where
    facts |= {
        "range": range, "derivative": derivative, "use": use, "failure": failure, "init": init,
    }  # fmt: skip
    if gain is not None:
        facts["gain"] = gain
    return Record(name, build, summary, citation, tags, {**facts, "aliases": aliases})


ACTIVATIONS = Registry(
    "activations",
    (
        _record(
            "identity", nn.Identity, "linear: the sum itself",
            "Widrow and Hoff 1960, Adaptive switching circuits",
            formula="x", range="(-∞, ∞)", derivative="1",
            use="the output of a regression, and logits: the loss applies softmax or sigmoid",
            failure="between layers: a stack of linear layers is one linear layer",
            init="lecun", aliases=("linear",),
        ),
        _record(
            "step", Step, "binary step, the threshold unit",
            "McCulloch and Pitts 1943, A logical calculus of the ideas immanent in nervous "
            "activity",
            formula="1 where x >= 0, else 0", range="{0, 1}", derivative="0",
            use="the perceptron, which learns by its own rule; answers that must be yes or no",
            failure="no gradient: nothing below it learns by gradient descent",
            init="zeros", aliases=("binary-step", "heaviside"), tags=("elementwise", "no-gradient"),
        ),
        _record(
            "straight-through", partial(Step, straight_through=True),
            "binary step that lets the gradient pass near 0",
            "Bengio, Léonard and Courville 2013, Estimating or propagating gradients through "
            "stochastic neurons, arXiv:1308.3432",
            formula="1 where x >= 0, else 0", range="{0, 1}",
            derivative="1 where |x| <= 1, else 0",
            use="binary units that must be trained; the derivative is pretended, not true",
            failure="the gradient is biased: depth multiplies the error of the pretence",
            init="xavier",
        ),
        _record(
            "sigmoid", nn.Sigmoid, "S from 0 to 1, a probability",
            "Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating "
            "errors",
            formula="1 / (1 + e^-x)", range="(0, 1)", derivative="σ(x)·(1 - σ(x))",
            use="yes/no outputs, several labels at once, gates of recurrent nets",
            failure="slope at most 1/4 and flat at both ends: the gradient vanishes in deep nets; "
            "never negative, so the next layer's weights move together",
            init="xavier", aliases=("logistic",),
        ),
        _record(
            "tanh", nn.Tanh, "S from -1 to 1",
            "LeCun, Bottou, Orr and Müller 1998, Efficient backprop",
            formula="(e^x - e^-x) / (e^x + e^-x)", range="(-1, 1)", derivative="1 - tanh(x)^2",
            use="recurrent nets, outputs between -1 and 1; centred, so better than sigmoid inside",
            failure="flat at both ends: units that saturate stop learning",
            init="xavier",
        ),
        _record(
            "scaled-tanh", ScaledTanh, "tanh of LeNet, through (1, 1) and (-1, -1)",
            "LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to document "
            "recognition",
            formula="1.7159·tanh(2·x / 3)", range="(-1.7159, 1.7159)",
            derivative="1.7159·2 / 3·(1 - tanh(2·x / 3)^2)",
            use="targets of ±1, which lie where the curvature is largest; LeNet-5 of 1998",
            failure="saturates like tanh, only later",
            init="xavier",
        ),
        _record(
            "softsign", nn.Softsign, "S with slow tails",
            "Bergstra et al. 2009, Quadratic polynomials learn better image features",
            formula="x / (1 + |x|)", range="(-1, 1)", derivative="1 / (1 + |x|)^2",
            use="where tanh saturates too early: its tails fall as 1/x^2, not as e^-x",
            failure="still flat far out; learns slower than tanh near 0",
            init="xavier",
        ),
        _record(
            "relu", nn.ReLU, "passes what is positive, cuts what is negative",
            "Nair and Hinton 2010, Rectified linear units improve restricted Boltzmann machines",
            formula="max(x, 0)", range="[0, ∞)", derivative="1 where x > 0, else 0",
            use="first choice inside dense and convolutional nets: cheap, and its gradient does "
            "not shrink",
            failure="units die: where x <= 0 for every row nothing is learned any more (large "
            "learning rates, negative biases); not centred",
            init="he",
        ),
        _record(
            "leaky-relu", nn.LeakyReLU, "ReLU with a small slope below 0",
            "Maas, Hannun and Ng 2013, Rectifier nonlinearities improve acoustic models",
            formula="x where x > 0, else 0.01·x", range="(-∞, ∞)",
            derivative="1 where x > 0, else 0.01",
            use="when ReLU units die; discriminators of GANs (slope 0.2 there)",
            failure="the slope is one more choice, and the gain over ReLU is small where none die",
            init="he", gain=math.sqrt(2 / (1 + 0.01**2)),
        ),
        _record(
            "prelu", nn.PReLU, "ReLU whose slope below 0 is learned",
            "He, Zhang, Ren and Sun 2015, Delving deep into rectifiers, arXiv:1502.01852",
            formula="x where x > 0, else a·x", where="a = 0.25", range="(-∞, ∞)",
            derivative="1 where x > 0, else a",
            use="large data sets; a starts at 0.25 and is trained without weight decay",
            failure="may overfit small data; weight decay on a would turn it into ReLU",
            init="he", gain=math.sqrt(2 / (1 + 0.25**2)),
        ),
        _record(
            "elu", nn.ELU, "ReLU with a smooth floor of -1",
            "Clevert, Unterthiner and Hochreiter 2016, ELU, arXiv:1511.07289",
            formula="x where x > 0, else e^x - 1", range="(-1, ∞)",
            derivative="1 where x > 0, else e^x",
            use="nets without normalisation: its mean is nearer to 0 than ReLU's",
            failure="an exponential for every element; saturates far below 0",
            init="he",
        ),
        _record(
            "selu", nn.SELU, "ELU scaled so that mean 0 and variance 1 are kept",
            "Klambauer, Unterthiner, Mayr and Hochreiter 2017, Self-normalizing neural networks, "
            "arXiv:1706.02515",
            formula="λ·x where x > 0, else λ·α·(e^x - 1)",
            where="λ = 1.0507009873554805; α = 1.6732632423543772", range="(-1.7581, ∞)",
            derivative="λ where x > 0, else λ·α·e^x",
            use="deep dense nets without normalisation, with LeCun's weights and alpha dropout",
            failure="loses its promise with other weights, plain dropout or residual sums",
            init="lecun",
        ),
        _record(
            "softplus", nn.Softplus, "smooth ReLU, always positive",
            "Dugas, Bengio, Bélisle, Nadeau and Garcia 2001, Incorporating second-order functional "
            "knowledge for better option pricing",
            formula="log(1 + e^x)", range="(0, ∞)", derivative="σ(x)",
            use="outputs that must be positive: a spread, a rate",
            failure="as a hidden unit worse than ReLU: mean far above 0, no exact zeros",
            init="he",
        ),
        _record(
            "silu", nn.SiLU, "Swish: x times its own sigmoid",
            "Elfwing, Uchibe and Doya 2018, arXiv:1702.03118; Ramachandran, Zoph and Le 2017, "
            "Searching for activation functions, arXiv:1710.05941",
            formula="x·σ(x)", range="[-0.2785, ∞)", derivative="σ(x)·(1 + x·(1 - σ(x)))",
            use="nets deeper than about 40 layers, where it trained better than ReLU",
            failure="dearer than ReLU; not monotone, so small negative inputs push back",
            init="he", aliases=("swish",),
        ),
        _record(
            "gelu", nn.GELU, "x times the chance that a normal number is below x (exact)",
            "Hendrycks and Gimpel 2016, Gaussian error linear units, arXiv:1606.08415",
            formula="x·Φ(x)", range="[-0.1700, ∞)", derivative="Φ(x) + x·φ(x)",
            use="Transformers, and convolutions after their fashion",
            failure="the error function is dear on some machines: gelu-tanh stands in",
            init="he",
        ),
        _record(
            "gelu-tanh", partial(nn.GELU, approximate="tanh"), "GELU by tanh, within 0.0005",
            "Hendrycks and Gimpel 2016, Gaussian error linear units, arXiv:1606.08415",
            formula="x / 2·(1 + t)", where="t = tanh(√(2 / π)·(x + 0.044715·x^3))",
            range="[-0.1700, ∞)",
            derivative="(1 + t) / 2 + x / 2·(1 - t^2)·√(2 / π)·(1 + 0.134145·x^2)",
            use="checkpoints that were trained with it (GPT-2, BERT of 2018)",
            failure="differs from gelu by up to 0.0005: a checkpoint of one drifts in the other",
            init="he",
        ),
        _record(
            "mish", nn.Mish, "smooth and not monotone, like Swish", "Misra 2020, Mish, "
            "arXiv:1908.08681",
            formula="x·t", where="t = tanh(log(1 + e^x))", range="[-0.3088, ∞)",
            derivative="t + x·σ(x)·(1 - t^2)",
            use="detectors of the YOLO line; otherwise where Swish is",
            failure="the dearest of the smooth rectifiers",
            init="he",
        ),
        _record(
            "hard-swish", nn.Hardswish, "Swish out of straight pieces",
            "Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244",
            formula="x·min(max(x + 3, 0), 6) / 6", range="[-0.375, ∞)",
            derivative="0 where x < -3, else 1 where x > 3, else (2·x + 3) / 6",
            use="phones and integer arithmetic: no exponential",
            failure="exactly 0 below -3: units can die there",
            init="he",
        ),
        _record(
            "maxout", Maxout, "the largest of k linear pieces",
            "Goodfellow, Warde-Farley, Mirza, Courville and Bengio 2013, Maxout networks, "
            "arXiv:1302.4389",
            formula="yᵢ = maxⱼ xᵢⱼ, j = 1 ... k", range="(-∞, ∞)",
            derivative="∂yᵢ/∂xᵢⱼ = 1 for the largest of the k, 0 for the others",
            use="with dropout; it learns its own convex shape, ReLU and |x| among them",
            failure="k times the weights of the layer before it",
            init="lecun", tags=("widens",),
        ),
        _record(
            "softmax", partial(nn.Softmax, dim=1), "K numbers as probabilities that add up to 1",
            "Bridle 1990, Probabilistic interpretation of feedforward classification network "
            "outputs",
            formula="yᵢ = e^xᵢ / Σⱼ e^xⱼ", range="(0, 1), Σᵢ yᵢ = 1",
            derivative="∂yᵢ/∂xⱼ = yᵢ·(δᵢⱼ - yⱼ)",
            use="the end of a net for one of several classes; attention. Losses here take logits "
            "and apply it themselves, which is exact where the softmax would round to 0",
            failure="before a loss that applies it again: gradients shrink, and nothing warns; "
            "inside a net it is nearly flat",
            init="lecun", tags=("vector",),
        ),
    ),
)  # fmt: skip


def activation(name: str, *, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a new module of the activation called `name`.

    options  keywords of its class, such as {"negative_slope": 0.2} for leaky-relu

    Raises `UnknownName`, and `ConfigError` for an option that the class does not have.

    >>> activation("leaky-relu", options={"negative_slope": 0.2})(torch.tensor([-1.0, 1.0]))
    tensor([-0.2000,  1.0000])
    """
    record = ACTIVATIONS.get(name)
    known = [
        p.name
        for p in inspect.signature(record.build).parameters.values()
        if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD} and p.name != "inplace"
    ]
    for key in options or {}:
        if key not in known:
            raise ConfigError(
                f"the activation '{record.name}' has no option '{key}'",
                f"one of: {', '.join(known)}" if known else "no options",
                did_you_mean(key, known) if known else "leave it out",
            )
    module: nn.Module = record.build(**(options or {}))
    return module


def widening(name: str, *, options: Mapping[str, Any] | None = None) -> int:
    """Return how many times as wide as its output the input of an activation is; 1 but for maxout.

    >>> widening("relu"), widening("maxout")
    (1, 2)
    """
    if "widens" not in ACTIVATIONS.get(name).tags:
        return 1
    return int(getattr(activation(name, options=options), "pieces", 1))
