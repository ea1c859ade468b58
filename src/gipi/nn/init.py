"""Initial weights: records, and the rule that chooses one for an activation.

Every function fills a weight in place from an explicit generator, so that the weights of a model
are a pure function of its seed. Fans of a kernel (O, I, h, w): in I·h·w, out O·h·w.

The spread of a layer's output is the spread of its input times √(in · variance of a weight), times
what the activation lets through; the rules below keep that product at 1. The texts of a record are
exact: a test compares "variance" with what is drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.core.registry import Record, Registry
from gipi.nn.activations import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

    Fill = Callable[[Tensor, Generator, float], None]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def fans(weight: Tensor) -> tuple[int, int]:
    """Return (fan in, fan out) of a weight (out, in) or a kernel (out, in, ...)."""
    if weight.ndim < 2:
        raise ModelError(f"a weight of shape {tuple(weight.shape)} has no fans",
                         "a matrix or a kernel", "initialise vectors with zeros")  # fmt: skip
    field = weight[0, 0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


# ------------------------------------------------------------------------ fills


@torch.no_grad()
def zeros(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:  # noqa: ARG001
    """Fill with zeros; a hidden layer of zeros cannot learn, a single layer can."""
    weight.zero_()


@torch.no_grad()
def uniform(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from U(-a, a), a = gain / √in: the habit before 2010, and still torch's own start."""
    a = gain / math.sqrt(fans(weight)[0])
    weight.uniform_(-a, a, generator=generator)


@torch.no_grad()
def standard_normal(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from N(0, gain²): the spread grows by √in with every layer."""
    weight.normal_(0.0, gain, generator=generator)


@torch.no_grad()
def normal(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from N(0, (0.01 gain)²), the fixed spread used before the rules of the fans."""
    weight.normal_(0.0, 0.01 * gain, generator=generator)


@torch.no_grad()
def xavier(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from U(-a, a), a = gain √(6 / (in + out)): variance kept forward and backward."""
    fan_in, fan_out = fans(weight)
    a = gain * math.sqrt(6 / (fan_in + fan_out))
    weight.uniform_(-a, a, generator=generator)


@torch.no_grad()
def xavier_normal(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from N(0, 2 gain² / (in + out))."""
    weight.normal_(0.0, gain * math.sqrt(2 / sum(fans(weight))), generator=generator)


@torch.no_grad()
def he(weight: Tensor, generator: Generator, gain: float = math.sqrt(2)) -> None:
    """Fill from N(0, gain²/in), gain √2: a rectifier halves the second moment."""
    weight.normal_(0.0, gain / math.sqrt(fans(weight)[0]), generator=generator)


@torch.no_grad()
def he_uniform(weight: Tensor, generator: Generator, gain: float = math.sqrt(2)) -> None:
    """Fill from U(-a, a), a = gain √(3/in)."""
    a = gain * math.sqrt(3 / fans(weight)[0])
    weight.uniform_(-a, a, generator=generator)


@torch.no_grad()
def lecun(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from N(0, gain²/in): unit variance in, unit variance out."""
    weight.normal_(0.0, gain / math.sqrt(fans(weight)[0]), generator=generator)


@torch.no_grad()
def lecun_uniform(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from U(-a, a), a = 2.4 gain / in: the rule of the 1998 paper on LeNet-5."""
    a = 2.4 * gain / fans(weight)[0]
    weight.uniform_(-a, a, generator=generator)


@torch.no_grad()
def orthogonal(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill with gain times a random matrix of orthonormal rows or columns."""
    nn.init.orthogonal_(weight, gain=gain, generator=generator)


@torch.no_grad()
def dirac(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:  # noqa: ARG001
    """Fill with the identity: output i starts as gain times input i, further outputs as zero."""
    if weight.ndim == 2:
        nn.init.eye_(weight)
    else:
        nn.init.dirac_(weight)
    weight.mul_(gain)


# ------------------------------------------------------------------------ records


def _record(
    name: str,
    build: Fill,
    summary: str,
    citation: str,
    *,
    formula: str,
    variance: str,
    use: str,
    failure: str,
    where: str = "",
    torch_name: str = "",
    family: str = "",
    gain: float | None = None,
    aliases: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
) -> Record:
    """Return a record whose facts explain the initialisation.

    variance    of one weight, by `in` and `out`, at the rule's own gain
    torch_name  torch's function of the same distribution; ours add the generator and a free gain
    family      the rule of which this is another shape
    """
    facts: dict[str, Any] = {"formula": formula}
    if where:
        facts["where"] = where
    facts |= {"variance": variance, "use": use, "failure": failure, "family": family or name}
    if gain is not None:
        facts["gain"] = gain
    if torch_name:
        facts["torch"] = f"torch.nn.init.{torch_name}"
    return Record(name, build, summary, citation, tags, {**facts, "aliases": aliases})


_GLOROT = "Glorot and Bengio 2010, Understanding the difficulty of training deep networks"
_HE = "He, Zhang, Ren and Sun 2015, Delving deep into rectifiers, arXiv:1502.01852"

INITS = Registry(
    "inits",
    (
        _record(
            "zeros", zeros, "all zeros", "Rosenblatt 1958, The perceptron",
            formula="0", variance="0", torch_name="zeros_",
            use="biases; models without hidden units, whose loss is convex; the last layer of a "
            "residual branch, so that the block starts as the identity",
            failure="in hidden layers every unit computes the same and gets the same gradient, "
            "so they stay equal for ever (with ReLU or tanh the gradient is 0 at once)",
            aliases=("zero",),
        ),
        _record(
            "uniform", uniform, "uniform within 1/√in, the old habit",
            "Glorot and Bengio 2010, Understanding the difficulty of training deep networks "
            "(as what was usual)",
            formula="U(-a, a)", where="a = 1 / √(in)", variance="1 / (3·in)", torch_name="uniform_",
            use="for comparison, and to start like torch's own layers",
            failure="the variance shrinks to a third in every layer: the signal of 20 layers is "
            "1e-5 of its input's spread",
        ),
        _record(
            "standard-normal", standard_normal, "normal with spread 1, whatever the layer",
            "LeCun, Bottou, Orr and Müller 1998, Efficient backprop (why not)",
            formula="N(0, s^2)", where="s = 1", variance="1", torch_name="normal_",
            use="for comparison only",
            failure="the spread grows by √in in every layer: tanh saturates, ReLU overflows",
        ),
        _record(
            "normal", normal, "normal with spread 0.01, whatever the layer",
            "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification",
            formula="N(0, s^2)", where="s = 0.01", variance="0.0001", torch_name="normal_",
            use="AlexNet as published; the last layer of a detector",
            failure="too small for wide and deep nets: the signal fades from layer to layer",
        ),
        _record(
            "xavier", xavier, "uniform, variance kept in both directions", _GLOROT,
            formula="U(-a, a)", where="a = √(6 / (in + out))", variance="2 / (in + out)",
            torch_name="xavier_uniform_",
            use="tanh, sigmoid, softsign: near 0 they are straight, so the sum alone counts",
            failure="before ReLU half of the signal is lost in every layer: 2^-10 after 20 layers",
            aliases=("xavier-uniform", "glorot", "glorot-uniform"),
        ),
        _record(
            "xavier-normal", xavier_normal, "normal, variance kept in both directions", _GLOROT,
            formula="N(0, s^2)", where="s = √(2 / (in + out))", variance="2 / (in + out)",
            torch_name="xavier_normal_", family="xavier",
            use="as xavier; the two differ in shape only", failure="as xavier",
            aliases=("glorot-normal",),
        ),
        _record(
            "he", he, "normal, makes up for the half that ReLU cuts", _HE,
            formula="N(0, s^2)", where="s = √(2 / in)", variance="2 / in",
            torch_name="kaiming_normal_", gain=math.sqrt(2),
            use="ReLU and its family", failure="before tanh it saturates, before SELU it explodes",
            aliases=("he-normal", "kaiming", "kaiming-normal"),
        ),
        _record(
            "he-uniform", he_uniform, "uniform, makes up for the half that ReLU cuts", _HE,
            formula="U(-a, a)", where="a = √(6 / in)", variance="2 / in",
            torch_name="kaiming_uniform_", family="he", gain=math.sqrt(2),
            use="as he; the two differ in shape only", failure="as he",
            aliases=("kaiming-uniform",),
        ),
        _record(
            "lecun", lecun, "normal, unit variance in and out",
            "LeCun, Bottou, Orr and Müller 1998, Efficient backprop",
            formula="N(0, s^2)", where="s = √(1 / in)", variance="1 / in",
            use="SELU, whose fixed point needs exactly this; linear outputs",
            failure="before ReLU half of the signal is lost in every layer",
            aliases=("lecun-normal",),
        ),
        _record(
            "lecun-uniform", lecun_uniform, "uniform within 2.4/in, as in LeNet-5",
            "LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning",
            formula="U(-a, a)", where="a = 2.4 / in", variance="1.92 / in^2",
            use="LeNet-5 as published, where in is small",
            failure="falls with in, not with √in: the signal of wide layers fades",
        ),
        _record(
            "orthogonal", orthogonal, "orthonormal rows or columns",
            "Saxe, McClelland and Ganguli 2014, Exact solutions, arXiv:1312.6120",
            formula="W·Wᵀ = I or Wᵀ·W = I", variance="1 / max(in, out)",
            torch_name="orthogonal_",
            use="recurrent weights, very deep nets: lengths are kept, not only on average",
            failure="a matrix product of the size of the layer; no help where it is not square",
        ),
        _record(
            "lsuv", orthogonal, "orthonormal, then scaled by a batch to unit variance per layer",
            "Mishkin and Matas 2016, All you need is a good init, arXiv:1511.06422",
            formula="W / √(Var(W·x)), W orthonormal", variance="1 / max(in, out)",
            use="any activation and any depth without normalisation: `gipi.nn.lsuv(model, batch)` "
            "measures what the rules can only assume",
            failure="needs a typical batch; without one it is only orthogonal",
            tags=("needs-data",),
        ),
        _record(
            "dirac", dirac, "the identity", "Zagoruyko and Komodakis 2017, DiracNets, "
            "arXiv:1706.00388",
            formula="1 where output and input are the same channel, else 0",
            variance="1 / max(in, out)", torch_name="dirac_",
            use="layers that should start by passing their input on",
            failure="outputs beyond the inputs start as zeros; ReLU behind it still cuts",
            aliases=("identity-init",),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------ use


def init_for(activation: str) -> str:
    """Return the name of the initialisation that suits an activation.

    He for the rectifiers, Xavier for the sigmoids, LeCun for SELU and the identity, zeros for the
    step; LeCun for an activation of another package that does not say.

    >>> [init_for(name) for name in ("relu", "tanh", "selu")]
    ['he', 'xavier', 'lecun']
    """
    init: str = ACTIVATIONS.get(activation).facts.get("init", "lecun")
    return init


def gain_for(activation: str, init: str) -> float:
    """Return the gain that `init` takes before `activation`."""
    facts, own = ACTIVATIONS.get(activation).facts, INITS.get(init).facts
    if own.get("family", init) == init_for(activation) and "gain" in facts:
        return float(facts["gain"])
    return float(own.get("gain", 1.0))


def initialise(
    module: nn.Module, generator: Generator, *, activation: str = "identity", init: str = "auto"
) -> str:
    """Fill every linear and convolution weight below `module`, biases with zero; return the rule.

    A grouped convolution is filled group by group, since no weight joins two groups. A transposed
    one counts its fans the other way round, and in/stride² of them reach one output pixel.

    activation  what follows the layers
    init        a name of `INITS`, or "auto" for `init_for(activation)`; of "lsuv" this is the part
                that needs no data, `lsuv(model, batch)` is the rest
    """
    name = init_for(activation) if init == "auto" else init
    fill: Fill = INITS.get(name).build
    gain = gain_for(activation, name)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            fill(layer.weight, generator, gain)
        elif isinstance(layer, Convolution):
            for part in layer.weight.detach().chunk(layer.groups):
                fill(part, generator, gain)
        elif isinstance(layer, Transposed):
            spread = gain * math.sqrt(math.prod(layer.stride))
            for part in layer.weight.detach().chunk(layer.groups):
                fresh = part.transpose(0, 1).contiguous()
                fill(fresh, generator, spread)
                part.copy_(fresh.transpose(0, 1))
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return INITS.get(name).name
