"""L-BFGS with an L2 penalty that its line search sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class LBFGS(torch.optim.LBFGS):
    """`torch.optim.LBFGS` on all groups as one, on loss + λ/2 Σ‖w‖² over the decayed weights.

    torch's class knows one group and no penalty. Here the groups are joined (their order and names
    kept), and the penalty is added to the value and to the gradient that the closure yields, so
    that the line search minimises the function it follows. Liu and Nocedal 1989.

    params   groups with the keys params ((name, parameter) pairs) and decay (bool)
    l2       λ, zero or more
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float = 1.0,
        l2: float = 0.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = "strong_wolfe",
    ) -> None:
        groups = list(params)
        super().__init__(
            [pair for group in groups for pair in group["params"]],
            lr=lr, max_iter=max_iter, max_eval=max_eval, tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change, history_size=history_size,
            line_search_fn=line_search_fn,
        )  # fmt: skip
        self._l2 = l2
        self._decayed = [p for group in groups if group["decay"] for _, p in group["params"]]

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Minimise along one L-BFGS step; `closure` computes gradients and returns the loss."""

        def penalised() -> torch.Tensor:
            value = torch.as_tensor(closure()).detach()  # torch reads it as a Python float
            with torch.no_grad():
                for p in self._decayed if self._l2 else ():
                    if p.grad is not None:
                        p.grad.add_(p, alpha=self._l2)
                    value = value + 0.5 * self._l2 * p.square().sum()
            return value

        return super().step(penalised)
