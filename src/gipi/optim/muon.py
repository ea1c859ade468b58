"""Muon: momentum whose update is made orthogonal, for the weight matrices of hidden layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from gipi.core.device import supports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic of Jordan et al. 2024
RMS_OF_ADAMW = 0.2  # Liu et al. 2025, section 2.2


def orthogonalise(x_MN: Tensor, *, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Return a matrix close to U Vᵀ of x = U S Vᵀ: all singular values near one.

    Iterates X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X from X = x / ‖x‖. Five steps leave the singular
    values between about 0.7 and 1.2; that is close enough for an update direction.

    x_MN    (M, N) float; the answer has its shape and dtype
    dtype   arithmetic inside; None: bfloat16 for float32 where the device multiplies fast in it,
            else that of `x`

    >>> q = orthogonalise(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    >>> bool((torch.linalg.svdvals(q) - 1).abs().max() < 0.4)
    True
    """
    a, b, c = NEWTON_SCHULZ
    half = x_MN.dtype == torch.float32 and supports(x_MN.device, "bf16")
    x = x_MN.to(dtype or (torch.bfloat16 if half else x_MN.dtype))
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    q_MN: Tensor = (x.T if tall else x).to(x_MN.dtype)
    return q_MN


class Muon(Optimizer):
    """Muon for the groups marked `muon`, AdamW for all others, in one optimizer with one state.

    For a hidden weight matrix W with gradient G:
        B ← μB + (1 - μ)G,   U = (1 - μ)G + μB,   O = orthogonalise(U)
        W ← (1 - ηλ)W - η · 0.2 √max(M, N) · O
    A convolution kernel (O, I, h, w) is the matrix (O, I·h·w). Biases, norms, embeddings and the
    output layer take AdamW, as the authors advise.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the scale
    0.2 √max(M, N) that lets both halves share one learning rate: Liu et al. 2025, arXiv:2502.16982.
    Differs from `torch.optim.Muon`, which takes matrices only and multiplies in bfloat16 on every
    device; here only where that is fast, and float64 stays float64.

    params   groups with the keys params, muon (bool) and, optionally, weight_decay
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), not {betas}")
        if not 1 <= steps <= 20:
            raise ValueError(f"steps must be between 1 and 20, not {steps}")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "steps": steps, "betas": betas, "eps": eps, "muon": False,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_grad = [p for p in group["params"] if p.grad is not None]
            if group["muon"]:
                for p in with_grad:
                    self._muon(p, group)
            elif with_grad:
                self._adamw(with_grad, group)
        return loss

    def _muon(self, p: Tensor, group: dict[str, Any]) -> None:
        state, grad, mu = self.state[p], p.grad, group["momentum"]
        assert grad is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"].lerp_(grad, 1 - mu)
        update = (grad.lerp(buffer, mu) if group["nesterov"] else buffer).flatten(1)
        scale = RMS_OF_ADAMW * math.sqrt(max(update.shape))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(orthogonalise(update, steps=group["steps"]).view_as(p), alpha=-group["lr"] * scale)

    def _adamw(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in params]
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [p.grad for p in params],  # type: ignore[misc]
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip
