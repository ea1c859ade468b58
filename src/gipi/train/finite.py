"""Non-finite steps: found on the device, left out, and explained afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.train.mode import eval_mode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.tasks import Phase

GIVE_UP_AFTER = 20
"""Consecutive non-finite steps after which a run stops: skipping no longer helps."""


def scale_and_check(tensors: list[Tensor], factor: Tensor, found: Tensor) -> None:
    """Multiply `tensors` by `factor` in place and set `found` to 1 if any element is not finite.

    tensors  gradients (and the loss, so that it is checked as well), on one device
    factor   scalar float32; found: scalar float32, left alone when all is finite

    One fused kernel, no synchronisation: the operator behind torch's gradient scaler.
    """
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, found, factor)


def explain(net: nn.Module, phase: Phase, batch: Batch, names: dict[int, str]) -> str:
    """Return where a non-finite value first arises for this batch: rows, layer, parameter.

    Runs the batch again, forward and backward, with a hook on every leaf module; weights, buffers
    and random state stay as they are. `names` maps id(parameter) -> name.
    """
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    devices = {p.device.index for p in net.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
        said = _search(net, phase, batch, names)
    with torch.no_grad():
        for name, value in net.named_buffers():
            value.copy_(buffers[name])
    return said


def is_finite(net: nn.Module, phase: Phase, batch: Batch) -> bool:
    """Whether the loss of this batch is finite in full precision; nothing is changed."""
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    devices = {p.device.index for p in net.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]), torch.no_grad():
        finite = bool(phase.loss(net, batch).total.isfinite())
        for name, value in net.named_buffers():
            value.copy_(buffers[name])
    return finite


def _search(net: nn.Module, phase: Phase, batch: Batch, names: dict[int, str]) -> str:
    culprit: list[str] = []

    def watch(name: str) -> object:
        def hook(module: nn.Module, args: object, output: object) -> None:  # noqa: ARG001
            if not culprit and torch.is_tensor(output) and not bool(output.isfinite().all()):
                culprit.append(name)

        return hook

    bad_inputs = [
        key
        for key, value in batch.inputs.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    rows = [i for i in range(len(batch)) if not _row_is_finite(net, phase, batch, i)]
    handles = [
        m.register_forward_hook(watch(name))
        for name, m in net.named_modules()
        if not any(True for _ in m.children())
    ]
    parts = []
    try:
        with torch.enable_grad():
            net.zero_grad(set_to_none=True)
            loss = phase.loss(net, batch)
            loss.total.backward()
        gradients = [
            names.get(id(p), "?")
            for p in net.parameters()
            if p.grad is not None and not bool(p.grad.isfinite().all())
        ]
    finally:
        for handle in handles:
            handle.remove()
        net.zero_grad(set_to_none=True)
    if bad_inputs:
        parts.append(f"input '{bad_inputs[0]}' holds NaN or infinity")
    if culprit:
        parts.append(f"first layer with a non-finite output: {culprit[0]}")
    elif gradients:
        parts.append(f"non-finite gradient in {gradients[-1]}")
    if rows:
        ids = batch.ids[rows[:5]].tolist() if batch.ids is not None else rows[:5]
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        parts.append(f"rows {', '.join(str(i) for i in ids)}{more}")
    return "; ".join(parts) or "not reproduced when the batch ran again"


def _row_is_finite(net: nn.Module, phase: Phase, batch: Batch, i: int) -> bool:
    """Whether row `i` alone (in evaluation mode, so that one row is enough) has a finite loss."""
    with eval_mode(net), torch.no_grad():
        return bool(phase.loss(net, batch.slice(i, i + 1)).total.isfinite())
