"""Nothing in a training step is copied from the host or read by it: either waits for the device."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gipi import losses, metrics, models, tasks
from gipi.core.batch import Batch
from gipi.core.schema import Signature

SIDE, ROWS = 64, 2
BODY = {"backbone": "lightnet", "backbone_options": {"widths": [4, 4, 4, 4], "first_stride": 2}}
COPIES = {"aten::_to_copy", "aten::copy_"}
MAKERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)


class NoNumbers(TorchFunctionMode):
    """Fails where Python numbers become a tensor of the device by way of the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in MAKERS:
            assert not out.is_meta, "Python numbers are copied to the device"
        return out


class NoCopies(TorchDispatchMode):
    """Fails where a tensor of the host becomes one of the device, here the one without storage."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        if name in COPIES:
            source = args[1] if name == "aten::copy_" else args[0]
            assert source.device == out.device, f"copied from {source.device} to {out.device}"
        return out


def boxes():
    out = torch.full((ROWS, 3, 6), -1.0)
    out[:, 0] = torch.tensor([4.0, 4, 30, 30, 0, 0])
    return out


CASES = {
    "fcos": ("fcos", {**BODY, "width": 8, "strides": [4, 8, 16]},
             tasks.detect(strides=[4, 8, 16]), 2, boxes()),
    "retinanet": ("retinanet", {**BODY, "width": 8, "strides": [4, 8, 16]},
                  tasks.detect(method="retinanet", strides=[4, 8, 16]), 2, boxes()),
    "heatmap": ("heatmap", BODY, tasks.pose(), 5, 9 * torch.ones(ROWS, 5, 3)),
    "heatmap-mse": ("heatmap", BODY, tasks.pose(loss="mse"), 5, 9 * torch.ones(ROWS, 5, 3)),
    "landmarks": ("landmarks", BODY, tasks.pose(), 5, 9 * torch.ones(ROWS, 5, 3)),
    "dense": ("landmarks", {**BODY, "head": "dense"}, tasks.pose(), 5, 9 * torch.ones(ROWS, 5, 3)),
    "segment": ("unet", BODY, tasks.segment(), 3, torch.ones(ROWS, SIDE, SIDE).byte()),
    "labels": ("lightnet", {"widths": [4, 4]}, tasks.classify(multi=True), 3, torch.ones(ROWS, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_step_asks_nothing_of_the_host(name):
    family, options, task, width, target = CASES[name]
    model = models.build(family, Signature(image=(3, SIDE, SIDE), outputs=width), options=options)
    model = model.to("meta")
    weight = torch.ones(ROWS, device="meta")
    image = torch.empty(ROWS, 3, SIDE, SIDE, device="meta")
    batch = Batch({"image": image}, target.to("meta"), weight, rows=ROWS)
    with NoNumbers(), NoCopies():
        loss = task.phases[0].loss(model, batch)
        loss.total.backward()
    assert loss.total.is_meta


def test_losses_and_metrics_make_their_constants_on_the_device():
    logits = torch.empty(ROWS, 3, device="meta")
    points = torch.empty(ROWS, 4, 3, device="meta")
    found = torch.empty(ROWS, 5, 6, device="meta")
    oks, ap = metrics.build("oks", classes=4), metrics.build("ap", classes=2)
    states = oks.init("meta"), ap.init("meta")
    oks.update(states[0], points, points, None)  # its sigmas are placed once
    with NoNumbers(), NoCopies():
        losses.binary_cross_entropy(logits, logits, positive_weight=2.0)
        oks.update(states[0], points, points, None)
        ap.update(states[1], found, boxes_on_the_device(), None)


def boxes_on_the_device():
    return torch.empty(ROWS, 3, 6, device="meta")


def test_the_guard_sees_copies():
    with pytest.raises(AssertionError, match="Python numbers"), NoNumbers():
        torch.tensor([1.0, 2.0], device="meta")
    with pytest.raises(AssertionError, match="Python numbers"), NoNumbers():
        torch.empty(2, device="meta").new_tensor(1.0)
    with pytest.raises(AssertionError, match="from cpu"), NoCopies():
        torch.ones(2).to("meta")
    with pytest.raises(RuntimeError), NoCopies():
        nn.Parameter(torch.empty(2, device="meta")).sum().item()
