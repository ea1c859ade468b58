"""One lane per phase: its loss, its parameters, its optimizer and the bound step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi import optim
from gipi.core import dist
from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from gipi.core.config import Recipe
    from gipi.tasks import Phase, Task


@dataclass
class Lane:
    """What the loop needs of one phase, built once so that a step touches only lists."""

    phase: Phase
    params: list[nn.Parameter]
    optimizer: Optimizer
    step: optim.StepFunction
    add_l1: Callable[[], None] | None
    closure: bool


def build_optimizer(model: nn.Module, recipe: Recipe, *, pattern: str = "*") -> Optimizer:
    """Return the recipe's optimizer over the parameters whose names match `pattern`."""
    return optim.build_optimizer(
        recipe.optimizer,
        model,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        l2=recipe.l2,
        momentum=recipe.momentum,
        options=recipe.optimizer_options,
        freeze=recipe.freeze if recipe.thaw is None else (),
        params=pattern,
        rates=recipe.rates,
    )


def build_lanes(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    optimizers: dict[str, Optimizer] | None = None,
) -> list[Lane]:
    """Return one lane per phase of the task; `optimizers` of an existing state are taken over."""
    lanes = []
    for phase in task.phases:
        given = (optimizers or {}).get(phase.name)
        optimizer = (
            given if given is not None else build_optimizer(model, recipe, pattern=phase.params)
        )
        add_l1 = optim.bind_l1(optimizer, recipe.l1) if recipe.l1 else None
        params = [p for group in optimizer.param_groups for p in group["params"]]
        closure = phase.closure or isinstance(optimizer, torch.optim.LBFGS)
        if closure and (recipe.precision == "fp16" or recipe.clip_norm is not None):
            raise ConfigError(
                f"optimizer={recipe.optimizer} with clip_norm or fp16",
                "the plain gradient: a line search evaluates the loss itself",
                "drop clip_norm and fp16, or use another optimizer",
            )
        if closure and (recipe.micro_batch is not None or dist.world() > 1):
            raise ConfigError(
                f"optimizer={recipe.optimizer} with micro_batch or several ranks",
                "the loss of all rows in one forward pass: the line search compares its values",
                "drop micro_batch and train in one process, or use another optimizer",
            )
        lanes.append(Lane(phase, params, optimizer, optim.bind(optimizer), add_l1, closure))
    return lanes


def backward(total: Tensor, seed: Tensor) -> None:
    """Add ``seed · d total / d w`` to the gradients: `total.backward(seed)` without its checks.

    The checks compare shapes in Python and cost as much as a small layer; both are scalars here.
    """
    keep_graph = create_graph = False
    torch.autograd.Variable._execution_engine.run_backward(  # noqa: SLF001
        (total,), (seed,), keep_graph, create_graph, (),
        allow_unreachable=True, accumulate_grad=True,
    )  # fmt: skip


def clip_factor(grads: list[Tensor], clip_norm: float | None) -> tuple[Tensor, Tensor | None]:
    """Return the global gradient norm ‖g‖ and what the gradients must be divided by.

    The divisor is max(1, ‖g‖ / clip_norm) (Pascanu et al. 2013), or None without clipping.
    """
    norm = torch.nn.utils.get_total_norm(grads)
    if clip_norm is None:
        return norm, None
    divisor = (norm / clip_norm).clamp_min(1.0)
    if divisor.dtype == torch.float64:  # the fused kernels divide in float32
        torch._foreach_div_(grads, divisor)
        return norm, None
    return norm, divisor.float()
