"""The fast step against torch.optim, bit for bit."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from gipi import optim

CASES = {
    "sgd": (lambda g: torch.optim.SGD(g, lr=0.1), {}),
    "momentum": (lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9), {}),
    "nesterov": (lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True), {}),
    "adam": (lambda g: torch.optim.Adam(g, lr=0.1), {}),
    "adam-amsgrad": (lambda g: torch.optim.Adam(g, lr=0.1, amsgrad=True), {"amsgrad": True}),
    "adamw": (lambda g: torch.optim.AdamW(g, lr=0.1), {}),
}


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)
    ).to(dtype)  # fmt: skip


def rate(step: int) -> float:
    return 0.01 * (1 + step % 3)


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    x = torch.randn(5, 6, generator=generator, dtype=dtype)
    model.zero_grad()
    model(x).square().mean().backward()


def torch_groups(model: nn.Module, decay: float) -> list[dict]:
    weights = [p for n, p in model.named_parameters() if n in ("0.weight", "3.weight")]
    rest = [p for n, p in model.named_parameters() if n not in ("0.weight", "3.weight")]
    return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def gipi_optimizer(case: str, model: nn.Module, decay: float) -> torch.optim.Optimizer:
    name, options = case.split("-", maxsplit=1)[0], CASES[case][1]
    penalty = {"weight_decay" if name == "adamw" else "l2": decay}
    return optim.build_optimizer(name, model, lr=0.1, options=options, **penalty)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_are_bit_identical_to_torch(case, decay, dtype):
    ours, theirs = net(dtype), net(dtype)
    mine = gipi_optimizer(case, ours, decay)
    step = optim.bind(mine)
    reference = CASES[case][0](torch_groups(theirs, decay))
    for group in reference.param_groups:
        group["fused"] = True
    for t in range(20):
        backward(ours, t)
        backward(theirs, t)
        step(rate(t), None, None)
        for group in reference.param_groups:
            group["lr"] = rate(t)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(g["lr"] == rate(19) for g in mine.param_groups)


@pytest.mark.parametrize("case", CASES)
def test_the_bound_step_equals_the_optimizers_own_step(case):
    """The unfused code of torch agrees to rounding, so the kernel is the right one."""
    ours, theirs = net(torch.float64), net(torch.float64)
    step = optim.bind(gipi_optimizer(case, ours, 0.1))
    reference = CASES[case][0](torch_groups(theirs, 0.1))
    for t in range(20):
        backward(ours, t)
        backward(theirs, t)
        step(rate(t), None, None)
        for group in reference.param_groups:
            group["lr"] = rate(t)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    state = [
        v.clone() for s in optimizer.state_dict()["state"].values() for v in s.values()
        if v is not None
    ]  # fmt: skip
    return [p.detach().clone() for p in model.parameters()] + state


@pytest.mark.parametrize("when", [0, 5])
@pytest.mark.parametrize("extra", [{}, {"l2": 0.1, "weight_decay": 0.1}])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"])
def test_found_inf_changes_nothing_and_the_run_goes_on_as_without_it(name, extra, when):
    ours, theirs = net(), net()
    mine = optim.build_optimizer(name, ours, lr=0.1, **extra)
    other = optim.build_optimizer(name, theirs, lr=0.1, **extra)
    step, reference = optim.bind(mine), optim.bind(other)
    zero, one = torch.zeros(1), torch.ones(1)
    for t in range(10):
        backward(ours, t)
        backward(theirs, t)
        if t == when:
            before = snapshot(ours, mine)
            for p in ours.parameters():
                p.grad.fill_(float("nan"))
            step(0.1, one, None)
            after = snapshot(ours, mine)
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
            backward(ours, t)
        step(0.1, zero, None)
        reference(0.1, zero, None)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw", "rmsprop"])
def test_grad_scale_divides_the_gradients(name):
    ours, theirs = net(), net()
    step = optim.bind(optim.build_optimizer(name, ours, lr=0.1))
    reference = optim.bind(optim.build_optimizer(name, theirs, lr=0.1))
    for t in range(3):
        backward(ours, t)
        backward(theirs, t)
        for p in ours.parameters():
            p.grad.mul_(1024)
        step(0.1, torch.zeros(1), torch.tensor([1024.0]))
        reference(0.1, torch.zeros(1), None)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", CASES)
def test_a_parameter_without_a_gradient_is_left_alone_as_torch_does(case):
    ours, theirs = net(), net()
    mine = gipi_optimizer(case, ours, 0.1)
    step = optim.bind(mine)
    reference = CASES[case][0](torch_groups(theirs, 0.1))
    for group in reference.param_groups:
        group["fused"] = True
    for t in range(8):
        backward(ours, t)
        backward(theirs, t)
        if t in (2, 3):
            for model in (ours, theirs):
                model[0].weight.grad = None
                model[1].bias.grad = None
        if t == 4:
            for model in (ours, theirs):
                for p in model.parameters():
                    p.grad = None
        step(0.05, None, None)
        for group in reference.param_groups:
            group["lr"] = 0.05
        reference.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), name
    if "adam" in case:
        counts = [float(s["step"]) for s in mine.state.values()]
        assert sorted(counts) == [5.0, 5.0, 7.0, 7.0, 7.0, 7.0]


@pytest.mark.parametrize("name", ["momentum", "adamw", "rmsprop", "muon"])
def test_a_saved_state_goes_on_bit_identically(name):
    ours, theirs = net(), net()
    optimizer = optim.build_optimizer(name, ours, lr=0.1)
    step = optim.bind(optimizer)
    fresh = optim.build_optimizer(name, theirs, lr=0.1)
    resumed = optim.bind(fresh)  # bound before the state is loaded
    for t in range(4):
        backward(ours, t)
        step(0.02, None, None)
    theirs.load_state_dict(ours.state_dict())
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for t in range(4, 8):
        for model, go in ((ours, step), (theirs, resumed)):
            backward(model, t)
            go(0.02, None, None)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    saved = optimizer.state_dict()["state"]
    if name == "adamw":
        assert all(float(s["step"]) == 8.0 for s in saved.values())


def test_a_bad_gradient_still_raises():
    model = net()
    step = optim.bind(optim.build_optimizer("adamw", model, lr=0.1))
    backward(model, 0)
    with pytest.raises(TypeError):
        step(0.1, "yes", None)


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("again", [False, True])
def test_state_in_another_memory_format_is_laid_out_anew(name, again):
    """The kernels walk flat memory: a contiguous moment beside a channels-last weight is wrong."""

    def conv() -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 2)

    def go(model, step, t):
        x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(t))
        model.zero_grad()
        model(x).square().mean().backward()
        step(0.05, None, None)

    plain, other = conv(), conv()
    a = optim.build_optimizer(name, plain, lr=0.05)
    step = optim.bind(a)
    for t in range(3):
        go(plain, step, t)
    other.load_state_dict(plain.state_dict())
    other.to(memory_format=torch.contiguous_format if again else torch.channels_last)
    b = optim.build_optimizer(name, other, lr=0.05)
    resumed = optim.bind(b)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    if again:
        other.to(memory_format=torch.channels_last)
        optim.bind(b)
    for t in range(3, 6):
        go(plain, step, t)
        go(other, resumed, t)
    torch.testing.assert_close(plain.weight, other.weight)


def test_binding_twice_is_one_binding():
    ours, theirs = net(), net()
    optimizer = optim.build_optimizer("adamw", ours, lr=0.1)
    step = optim.bind(optimizer)
    reference = optim.bind(optim.build_optimizer("adamw", theirs, lr=0.1))
    for t in range(6):
        if t == 3:
            assert optim.bind(optimizer) is step
        backward(ours, t)
        backward(theirs, t)
        step(0.1, None, None)
        reference(0.1, None, None)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert {float(s["step"]) for s in optimizer.state_dict()["state"].values()} == {6.0}


def test_a_bound_optimizer_can_be_copied_and_collected():
    optimizer = optim.build_optimizer("adamw", net(), lr=0.1)
    optim.bind(optimizer)
    copy.deepcopy(optimizer)
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
