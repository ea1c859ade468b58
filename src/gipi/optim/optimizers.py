"""The optimizers by name: records over `torch.optim`, and what decay means for each.

Two penalties exist and every optimizer takes both, on the decayed weights only (`groups`):

    weight_decay λ   decoupled: w ← (1 - ηλ) w beside the step (Loshchilov and Hutter 2019)
    l2 λ             coupled: g ← g + λ w before the step, the gradient of λ/2 ‖w‖²

For plain `sgd` they are the same; under momentum or per-weight scaling they are not. Where torch's
own class does one of the two it is asked to (the fact "native" of a record says which); the other
is applied by a hook of the optimizer with one foreach operation. The classic recipe of residual
nets ("momentum 0.9, weight decay 1e-4") is `momentum` with l2=1e-4.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import optim

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.optim.groups import named_owners, parameter_groups
from gipi.optim.lbfgs import LBFGS
from gipi.optim.muon import Muon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn
    from torch.optim import Optimizer

FUSED_DEVICES = ("cpu", "cuda", "mps")


def _record(
    name: str,
    build: type[Optimizer],
    summary: str,
    citation: str,
    *,
    formula: str,
    lr: float,
    options: tuple[str, ...],
    native: str = "coupled",
    momentum: float | None = None,
    fixed: Mapping[str, Any] | None = None,
    tags: tuple[str, ...] = (),
) -> Record:
    """Return the record of an optimizer class with what `build_optimizer` must know of it.

    formula    one step, g the gradient, η the learning rate
    lr         a first learning rate for standardised data, for want of a better one
    options    the keywords that a user may set
    native     which penalty torch's `weight_decay` is: "coupled", "decoupled", or "both" where the
               keyword `decoupled_weight_decay` decides
    momentum   default of the momentum argument; None where the optimizer has none
    fixed      keywords that make this name what it is
    """
    facts = {
        "formula": formula,
        "lr": lr,
        "options": options,
        "native": native,
        "momentum": momentum,
        "fixed": fixed or {},
    }
    return Record(name, build, summary, citation, tags=tags, facts=facts)


OPTIMIZERS = Registry(
    "optimizers",
    (
        _record(
            "sgd", optim.SGD, "w ← w - η g; the momentum option makes it `momentum`",
            "Robbins and Monro 1951, A stochastic approximation method",
            formula="w ← w - η·g",
            lr=0.1, options=(), momentum=0.0, tags=("fused",),
        ),
        _record(
            "momentum", optim.SGD, "v ← μ v + g, w ← w - η v",
            "Polyak 1964, Some methods of speeding up the convergence of iteration methods",
            formula="v ← μ·v + g, w ← w - η·v",
            lr=0.05, options=(), momentum=0.9, tags=("fused",),
        ),
        _record(
            "nesterov", optim.SGD, "v ← μ v + g, w ← w - η (g + μ v)",
            "Nesterov 1983; Sutskever, Martens, Dahl and Hinton 2013, On the importance of "
            "initialization and momentum in deep learning",
            formula="v ← μ·v + g, w ← w - η·(g + μ·v)",
            lr=0.05, options=(), momentum=0.9, fixed={"nesterov": True}, tags=("fused",),
        ),
        _record(
            "adagrad", optim.Adagrad, "steps shrink with the sum of squared gradients",
            "Duchi, Hazan and Singer 2011, Adaptive subgradient methods",
            formula="s ← s + g², w ← w - η·g / (√s + ε)",
            lr=0.05, options=("lr_decay", "initial_accumulator_value", "eps"), tags=("fused",),
        ),
        _record(
            "adadelta", optim.Adadelta, "step size from past steps; use lr=1",
            "Zeiler 2012, ADADELTA, arXiv:1212.5701",
            formula="s ← ρ·s + (1 - ρ)·g², d = g·√(u + ε) / √(s + ε), u ← ρ·u + (1 - ρ)·d², w "
            "← w - η·d",
            lr=1.0, options=("rho", "eps"), tags=("foreach",),
        ),
        _record(
            "rmsprop", optim.RMSprop, "gradient over the running root mean square",
            "Tieleman and Hinton 2012, Lecture 6.5",
            formula="s ← α·s + (1 - α)·g², w ← w - η·g / (√s + ε)",
            lr=0.001, options=("alpha", "eps", "centered"), momentum=0.0, tags=("foreach",),
        ),
        _record(
            "adam", optim.Adam, "momentum and per-weight scaling, bias-corrected",
            "Kingma and Ba 2015, Adam, arXiv:1412.6980",
            formula="m ← β₁·m + (1 - β₁)·g, v ← β₂·v + (1 - β₂)·g², w ← w - η·m̂ / (√v̂ + ε), "
            "m̂ = m / (1 - β₁^t), v̂ = v / (1 - β₂^t)",
            lr=0.001, options=("betas", "eps", "amsgrad"), native="both", tags=("fused",),
        ),
        _record(
            "adamw", optim.AdamW, "Adam with decoupled weight decay (the default)",
            "Loshchilov and Hutter 2019, Decoupled weight decay regularization, arXiv:1711.05101",
            formula="w ← (1 - η·λ)·w, then the step of adam",
            lr=0.001, options=("betas", "eps", "amsgrad"), native="decoupled", tags=("fused",),
        ),
        _record(
            "nadam", optim.NAdam, "Adam with Nesterov's momentum",
            "Dozat 2016, Incorporating Nesterov momentum into Adam",
            formula="adam with μ_(t+1)·m / (1 - Π μ) + (1 - μ_t)·g / (1 - Π μ) in the place of m̂",
            lr=0.001, options=("betas", "eps", "momentum_decay"), native="both", tags=("foreach",),
        ),
        _record(
            "radam", optim.RAdam, "Adam that waits until its variance estimate is sound",
            "Liu et al. 2020, On the variance of the adaptive learning rate, arXiv:1908.03265",
            formula="adam where the variance of 1/√v̂ is finite (then scaled by r_t), else w ← "
            "w - η·m̂",
            lr=0.001, options=("betas", "eps"), native="both", tags=("foreach",),
        ),
        _record(
            "lbfgs", LBFGS, "quasi-Newton on the full batch, several evaluations a step",
            "Liu and Nocedal 1989, On the limited memory BFGS method",
            formula="w ← w - η·H·g, H from the last steps and changes of the gradient (two loops)",
            lr=1.0, tags=("closure",),
            options=("max_iter", "max_eval", "tolerance_grad", "tolerance_change", "history_size",
                     "line_search_fn"),
        ),
        _record(
            "muon", Muon, "orthogonalised momentum for hidden matrices, AdamW for the rest",
            "Jordan et al. 2024, Muon; Liu et al. 2025, Muon is scalable, arXiv:2502.16982",
            formula="b ← μ·b + (1 - μ)·g, w ← w - η·s·orthogonalised((1 - μ)·g + μ·b)",
            lr=0.001, options=("betas", "eps", "nesterov", "steps"), native="decoupled",
            momentum=0.95,
        ),
    ),
)  # fmt: skip


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    momentum: float | None = None,
    options: Mapping[str, Any] | None = None,
    freeze: Sequence[str] = (),
    params: str = "*",
    rates: Mapping[str, float] | None = None,
) -> Optimizer:
    """Return the optimizer called `name` over the trainable parameters of `model`.

    Its groups carry `decay` (bool) and the parameters' names. Build it after the model is on its
    device: torch's fused kernels are used where they exist (sgd, momentum, nesterov, adagrad, adam,
    adamw), torch's foreach code for the others.

    lr            initial learning rate
    weight_decay  decoupled decay, l2 coupled penalty: see the head of this file
    momentum      None means the optimizer's own default
    options       its further options by torch's names
    freeze        patterns of parameters that stay fixed; they stop requiring a gradient
    params        shell pattern of the parameters that this optimizer moves (a phase of a task)
    rates         pattern -> factor on the learning rate, see `parameter_groups`

    Raises `UnknownName`; `ConfigError` for a wrong option, value or pattern.

    >>> from torch import nn
    >>> o = build_optimizer("adamw", nn.Linear(3, 2), lr=0.1, weight_decay=0.01)
    >>> [(g["decay"], g["weight_decay"], len(g["params"])) for g in o.param_groups]
    [(True, 0.01, 1), (False, 0.0, 1)]
    """
    record = OPTIMIZERS.get(name)
    facts = record.facts
    arguments = _arguments(record, options or {}, momentum)
    for key, value in (("lr", lr), ("weight_decay", weight_decay), ("l2", l2)):
        if not value >= 0:
            raise ConfigError(f"{key}={value}", f"a {key} of zero or more", f"change {key}")
    groups = parameter_groups(model, pattern=params, freeze_patterns=freeze, rates=rates)
    if record.build is LBFGS:
        if rates:
            raise ConfigError(
                "rates with lbfgs", "one learning rate: its line search moves all weights at once",
                "drop rates, or use another optimizer",
            )  # fmt: skip
        if weight_decay:
            raise ConfigError(
                "weight_decay with lbfgs",
                "an optimizer that decays weights",
                "use l2, which joins the loss that the line search sees",
            )
        return _construct(record, groups, {"lr": lr, "l2": l2, **arguments})  # fmt: skip
    if record.build is Muon:
        groups = _split_for_muon(groups, model)
    native = facts["native"]
    momentum_used = arguments.get("momentum", 0.0)
    if record.build is optim.SGD and momentum_used == 0:  # the two penalties are one
        weight_decay, l2 = 0.0, l2 + weight_decay
    if native == "both":
        native = "decoupled" if weight_decay else "coupled"
        arguments["decoupled_weight_decay"] = native == "decoupled"
    torch_decay = weight_decay
    extra_decay, extra_l2 = 0.0, l2
    if native == "coupled":  # with both, the hook does both: l2 must see w before it shrinks
        torch_decay = 0.0 if weight_decay else l2
        extra_decay, extra_l2 = weight_decay, l2 if weight_decay else 0.0
    for group in groups:
        share = 1.0 if group["decay"] else 0.0
        group["weight_decay"] = share * torch_decay
        group["extra_decay"], group["extra_l2"] = share * extra_decay, share * extra_l2
    tensors = [p for group in groups for _, p in group["params"]]
    if "fused" in record.tags and all(
        p.device.type in FUSED_DEVICES and p.is_floating_point() for p in tensors
    ):
        arguments["fused"] = True
    elif "foreach" in record.tags:
        arguments["foreach"] = True
    optimizer = _construct(record, groups, {"lr": lr, **arguments})
    if any(group["extra_decay"] or group["extra_l2"] for group in groups):
        optimizer.register_step_pre_hook(lambda o, *_: apply_penalties(o))
    return optimizer


def apply_penalties(optimizer: Optimizer, found_inf: torch.Tensor | None = None) -> None:
    """Apply the penalty that torch's class does not do: extra_l2 to gradients, extra_decay to w.

    found_inf   one-element tensor; where it is 1 the weights stay as they are (no sync)
    """
    with torch.no_grad():
        for group in optimizer.param_groups:
            l2, decay = group.get("extra_l2", 0.0), group.get("extra_decay", 0.0)
            if not l2 and not decay:
                continue
            params = [p for p in group["params"] if p.grad is not None]
            if l2:
                torch._foreach_add_([p.grad for p in params], params, alpha=l2)
            if decay and params:
                keep: Any = 1 - group["lr"] * decay
                if found_inf is not None:
                    keep = 1 - group["lr"] * decay * (1 - found_inf.reshape(()))
                torch._foreach_mul_(params, keep)


def _arguments(
    record: Record, options: Mapping[str, Any], momentum: float | None
) -> dict[str, Any]:
    """Return the keywords of the torch class; lists from a file become tuples."""
    name, facts = record.name, record.facts
    for key in options:
        if key not in facts["options"]:
            raise ConfigError(
                f"the optimizer '{name}' has no option '{key}'",
                f"one of: {', '.join(facts['options'])}" if facts["options"] else "no options",
                did_you_mean(key, facts["options"]) if facts["options"] else "leave it out",
            )
    if momentum is not None and facts["momentum"] is None:
        having = [r.name for r in OPTIMIZERS if r.facts["momentum"] is not None]
        raise ConfigError(
            f"momentum={momentum} with '{name}'",
            f"an optimizer that takes it: {', '.join(having)}",
            "leave momentum out" + (", or set betas" if "betas" in facts["options"] else ""),
        )
    if name == "nesterov" and momentum == 0:
        raise ConfigError("momentum=0 with 'nesterov'", "a momentum above 0", "use 'sgd'")
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if facts["momentum"] is not None:
        arguments["momentum"] = facts["momentum"] if momentum is None else momentum
    return {**facts["fixed"], **arguments}


def _construct(
    record: Record, groups: list[dict[str, Any]], arguments: dict[str, Any]
) -> Optimizer:
    try:
        optimizer: Optimizer = record.build(groups, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the optimizer '{record.name}' refuses its options: {error}",
            f"values of {', '.join(inspect.signature(record.build).parameters)} as torch has them",
            "change optimizer_options",
        ) from error
    return optimizer


def _split_for_muon(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Return the groups with every decayed weight but the last (the output layer) marked `muon`.

    The last one of the model, in whichever group: groups of other rates have no output layer.
    """
    decayed = {name for group in groups if group["decay"] for name, _ in group["params"]}
    last = [name for name, _, _ in named_owners(model) if name in decayed][-1:]
    split = []
    for group in groups:
        if not group["decay"]:
            split.append({**group, "muon": False})
            continue
        hidden = [p for p in group["params"] if p[0] not in last]
        output = [p for p in group["params"] if p[0] in last]
        split += [{**group, "params": p, "muon": m}
                  for p, m in ((hidden, True), (output, False)) if p]  # fmt: skip
    return split
