"""One optimizer step without the price of `optimizer.step()`.

torch collects parameters, gradients and state anew in each call: with four parameters on one CPU
thread `Adam.step` with fused=True takes about 35 µs and the bound step about 11.
`bind` builds the lists once, on the optimizer's own state tensors, and calls the kernel;
`state_dict` stays right. `benchmarks/speed/optimizer_step.py` measures both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam

from gipi.optim.optimizers import apply_penalties

if TYPE_CHECKING:
    from torch.optim import Optimizer

OWN_KEYS = ("params", "param_names", "decay")
"""Keys of a group that do not change what the kernel computes."""

StepFunction = Callable[[float, Tensor | None, Tensor | None], None]


def bind(optimizer: Optimizer) -> StepFunction:
    """Return a fast `step(lr, found_inf, grad_scale)` for `optimizer`.

    lr          learning rate of this step; written into every group, times the group's `lr_scale`
                where it has one
    found_inf   one-element float tensor or None; where it is 1 nothing changes, neither weights
                nor state nor step counters, without a sync on the fused path
    grad_scale  one-element float tensor or None; gradients are divided by it

    Groups of fused SGD, Adam and AdamW go straight to torch's kernels, with bit-identical results.
    Any other optimizer is stepped by its own `step` (then a given `found_inf` is read on the host:
    a sync). A parameter without a gradient in some step is left alone, as torch does.

    There is one binding per optimizer: it renews itself after `load_state_dict`, and a second call
    renews and returns the same function. Call again after `add_param_group` and after a change of
    the model's memory format: the kernels walk flat memory, so the state must lie as the weights.
    """
    kept = vars(optimizer)
    if "gipi_step" in kept:
        kept["gipi_bound"][0] = _bind(optimizer)
        same: StepFunction = kept["gipi_step"]
        return same
    bound = [_bind(optimizer)]

    def renew(_: Optimizer) -> None:
        bound[0] = _bind(optimizer)

    def step(lr: float, found_inf: Tensor | None = None, grad_scale: Tensor | None = None) -> None:
        bound[0](lr, found_inf, grad_scale)

    optimizer.register_load_state_dict_post_hook(renew)
    kept["gipi_bound"], kept["gipi_step"] = bound, step
    return step


def _bind(optimizer: Optimizer) -> StepFunction:
    if not _is_fused(optimizer):
        return lambda lr, found_inf, grad_scale: _plain(optimizer, lr, found_inf, grad_scale)
    make = _sgd_kernel if isinstance(optimizer, SGD) else _adam_kernel
    groups = optimizer.param_groups
    kernels = [make(optimizer, group) for group in _merged(groups)]
    penalised = any(
        group.get("extra_decay") or group.get("extra_l2") for group in optimizer.param_groups
    )
    no_grad = torch.no_grad()

    def step(lr: float, found_inf: Tensor | None, grad_scale: Tensor | None) -> None:
        if penalised:
            if grad_scale is not None:
                _unscale(optimizer, grad_scale)
                grad_scale = None
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            apply_penalties(optimizer, found_inf)
        with no_grad:
            for kernel in kernels:
                kernel(lr, found_inf, grad_scale)
        for group in groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    return step


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups with those that differ only in their parameters joined: one kernel each."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        kind = repr(sorted((k, v) for k, v in group.items() if k not in OWN_KEYS))
        place = str(group["params"][0].device) + str(group["params"][0].dtype) + kind
        if place in found:
            found[place]["params"] = [*found[place]["params"], *group["params"]]
        else:
            found[place] = dict(group)
    return list(found.values())


def _is_fused(optimizer: Optimizer) -> bool:
    """Return whether every group can go to a fused kernel: exact class, one device, one dtype."""
    if type(optimizer) not in (SGD, Adam, torch.optim.AdamW):
        return False
    for group in optimizer.param_groups:
        kinds = {(p.device, p.dtype) for p in group["params"]}
        if (
            not group["fused"]
            or group["maximize"]
            or group.get("capturable")
            or group.get("dampening")
            or len(kinds) != 1
        ):
            return False
    return True


def _unscale(optimizer: Optimizer, grad_scale: Tensor) -> None:
    grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    if grads:
        torch._foreach_div_(grads, grad_scale.reshape(()))


def _plain(
    optimizer: Optimizer, lr: float, found_inf: Tensor | None, grad_scale: Tensor | None
) -> None:
    """Step by the optimizer's own method."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    if found_inf is not None and found_inf.item():  # sync
        return
    if grad_scale is not None:
        _unscale(optimizer, grad_scale)
    optimizer.step()


def _moment(p: Tensor, saved: Tensor | None) -> Tensor:
    """Return `saved`, or zeros, lying in memory as `p` does: the kernels walk flat memory."""
    if saved is not None and saved.stride() == p.stride():
        return saved
    new = torch.zeros_like(p, memory_format=torch.preserve_format)
    return new if saved is None else new.copy_(saved)


def _adam_kernel(optimizer: Optimizer, group: dict[str, Any]) -> StepFunction:
    """Return the fused Adam or AdamW step of one group, on the state of the optimizer."""
    params: list[Tensor] = group["params"]
    decoupled = group.get("decoupled_weight_decay", False)
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    beta1, beta2 = group["betas"]
    amsgrad, eps, decay = group["amsgrad"], group["eps"], group["weight_decay"]
    scale = group.get("lr_scale", 1.0)
    counters = torch.empty(len(params), dtype=torch.float32, device=params[0].device)
    steps = list(counters.unbind())
    states = [optimizer.state[p] for p in params]
    for p, state, counter in zip(params, states, steps, strict=True):
        if state:
            counter.copy_(state["step"])
        else:
            counter.zero_()
        state["step"] = counter
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if amsgrad else 2]:
            state[key] = _moment(p, state.get(key))
    first = [s["exp_avg"] for s in states]
    second = [s["exp_avg_sq"] for s in states]
    largest = [s["max_exp_avg_sq"] for s in states] if amsgrad else []

    def step(lr: float, found_inf: Tensor | None, grad_scale: Tensor | None) -> None:
        group["lr"] = lr = lr * scale
        grads: list[Any] = [p.grad for p in params]
        counters.add_(1)
        try:
            kernel(
                params, grads, first, second, largest, steps, lr=lr, beta1=beta1, beta2=beta2,
                weight_decay=decay, eps=eps, amsgrad=amsgrad, maximize=False,
                grad_scale=grad_scale, found_inf=found_inf,
            )  # fmt: skip
        except TypeError:  # a gradient is None: refused before anything was changed
            has = [g is not None for g in grads]
            if all(has):
                raise
            kept = [i for i, h in enumerate(has) if h]
            skipped = torch.tensor([not h for h in has], device=counters.device)
            counters.sub_(skipped.to(counters.dtype))
            if kept:
                lists: list[list[Any]] = [params, grads, first, second, steps]
                p, g, f, s, n = ([x[i] for i in kept] for x in lists)
                kernel(
                    p, g, f, s, [largest[i] for i in kept] if amsgrad else [], n, lr=lr,
                    beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps, amsgrad=amsgrad,
                    maximize=False, grad_scale=grad_scale, found_inf=found_inf,
                )  # fmt: skip
            if found_inf is not None:
                counters.sub_(found_inf * ~skipped)
            return
        if found_inf is not None:
            counters.sub_(found_inf)

    return step


def _sgd_kernel(optimizer: Optimizer, group: dict[str, Any]) -> StepFunction:
    """Return the fused SGD step of one group; the momentum buffers start at zero.

    torch fills a buffer with the gradient in the first step; from zero, μ·0 + g is the same, and a
    first step that `found_inf` skips leaves it defined.
    """
    params: list[Tensor] = group["params"]
    momentum, nesterov, decay = group["momentum"], group["nesterov"], group["weight_decay"]
    scale = group.get("lr_scale", 1.0)
    buffers: list[Tensor] = []
    if momentum:
        for p in params:
            state = optimizer.state[p]
            state["momentum_buffer"] = _moment(p, state.get("momentum_buffer"))
            buffers.append(state["momentum_buffer"])

    def call(
        p: list[Tensor], g: list[Any], b: list[Tensor], *, lr: float,
        found_inf: Tensor | None, grad_scale: Tensor | None,
    ) -> None:  # fmt: skip
        torch._fused_sgd_(
            p, g, b, weight_decay=decay, momentum=momentum, lr=lr, dampening=0.0,
            nesterov=nesterov, maximize=False, is_first_step=False, grad_scale=grad_scale,
            found_inf=found_inf,
        )  # fmt: skip

    def step(lr: float, found_inf: Tensor | None, grad_scale: Tensor | None) -> None:
        group["lr"] = lr = lr * scale
        grads = [p.grad for p in params]
        try:
            call(params, grads, buffers, lr=lr, found_inf=found_inf, grad_scale=grad_scale)
        except TypeError:  # a gradient is None: refused before anything was changed
            kept = [i for i, g in enumerate(grads) if g is not None]
            if len(kept) == len(grads):
                raise
            if kept:
                call([params[i] for i in kept], [grads[i] for i in kept],
                     [buffers[i] for i in kept] if momentum else [],
                     lr=lr, found_inf=found_inf, grad_scale=grad_scale)  # fmt: skip

    return step
