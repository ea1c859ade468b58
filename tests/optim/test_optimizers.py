"""Records, options, groups and the two penalties."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gipi import optim
from gipi.core.errors import ConfigError, UnknownName
from gipi.optim.muon import Muon, orthogonalise


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.body = nn.Sequential(
            nn.Conv1d(1, 2, 3, bias=False), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten()
        )
        self.hidden = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, codes):
        x = self.table(codes).unsqueeze(1)
        return self.head(self.hidden(self.body(x)).relu())


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def loss(model: nn.Module, seed: int = 0) -> torch.Tensor:
    codes = torch.randint(0, 5, (16,), generator=torch.Generator().manual_seed(seed))
    return (model(codes)[:, 0] - codes).square().mean()


@pytest.mark.parametrize("record", list(optim.OPTIMIZERS), ids=lambda r: r.name)
def test_every_record_builds_says_what_it_is_and_learns(record):
    assert record.summary
    assert record.citation
    model = net()
    lr = record.facts["lr"]
    optimizer = optim.build_optimizer(record.name, model, lr=lr)
    before = loss(model).item()

    def closure():
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        return value

    if "closure" in record.tags:
        for _ in range(5):
            optimizer.step(closure)
    else:
        step = optim.bind(optimizer)
        for _ in range(600):
            closure()
            step(lr, None, None)
    assert loss(model).item() < 0.3 * before


@pytest.mark.parametrize("record", list(optim.OPTIMIZERS), ids=lambda r: r.name)
def test_state_dict_round_trip(record):
    model = net()
    optimizer = optim.build_optimizer(record.name, model, lr=0.01)

    def closure():
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        return value

    for _ in range(2):
        optimizer.step(closure)
    saved = copy.deepcopy(optimizer.state_dict())
    other = optim.build_optimizer(record.name, model, lr=0.01)
    other.load_state_dict(saved)
    assert str(other.state_dict()) == str(saved)
    names = [n for g in saved["param_groups"] for n in g["param_names"]]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())


def test_norms_biases_and_embeddings_are_not_decayed():
    optimizer = optim.build_optimizer("adamw", net(), lr=0.1, weight_decay=0.3)
    decayed, rest = optimizer.param_groups
    assert decayed["param_names"] == ["body.0.weight", "hidden.weight", "head.weight"]
    assert decayed["weight_decay"] == 0.3
    assert rest["weight_decay"] == 0.0
    assert "table.weight" in rest["param_names"]
    assert "body.1.weight" in rest["param_names"]


def test_a_shared_parameter_is_stepped_once():
    model = net()
    model.tied = model.head
    optimizer = optim.build_optimizer("sgd", model, lr=0.1)
    ids = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert len(ids) == len(set(ids))


def one_step(name: str, **penalties: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight before and after a step with zero gradient and momentum-free history."""
    model = nn.Linear(2, 2, bias=False)
    optimizer = optim.build_optimizer(name, model, lr=0.1, **penalties)
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    optim.bind(optimizer)(0.1, None, None)
    return before, model.weight.detach()


@pytest.mark.parametrize(
    "name", [r.name for r in optim.OPTIMIZERS if r.name not in ("lbfgs", "muon")]
)
def test_decoupled_decay_shrinks_weights_by_lr_times_decay_whatever_the_optimizer(name):
    before, after = one_step(name, weight_decay=0.5)
    torch.testing.assert_close(after, before * (1 - 0.1 * 0.5))


@pytest.mark.parametrize(
    "name",
    ["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "nadam",
     "radam", "muon"],
)  # fmt: skip
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_l2_is_the_gradient_of_the_penalty_whatever_the_optimizer(name, decay):
    """Steps with l2 equal steps on loss + l2/2 |w|^2 written into the loss."""
    ours, theirs = net().double(), net().double()
    a = optim.build_optimizer(name, ours, lr=0.05, l2=0.3, weight_decay=decay)
    b = optim.build_optimizer(name, theirs, lr=0.05, weight_decay=decay)
    step_a, step_b = optim.bind(a), optim.bind(b)
    for t in range(4):
        a.zero_grad()
        loss(ours, t).backward()
        step_a(0.05, None, None)
        b.zero_grad()
        decayed = [theirs.body[0].weight, theirs.hidden.weight, theirs.head.weight]
        (loss(theirs, t) + 0.15 * sum(p.square().sum() for p in decayed)).backward()
        step_b(0.05, None, None)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def test_momentum_tells_decoupled_from_coupled():
    """Under momentum the two penalties differ: the coupled one is accelerated."""
    sizes = {}
    for key in ("l2", "weight_decay"):
        model = nn.Linear(2, 2, bias=False)
        nn.init.ones_(model.weight)
        optimizer = optim.build_optimizer("momentum", model, lr=0.1, **{key: 0.1})
        step = optim.bind(optimizer)
        for _ in range(10):
            model.weight.grad = torch.zeros_like(model.weight)
            step(0.1, None, None)
        sizes[key] = float(model.weight.detach().mean())
    assert sizes["weight_decay"] == pytest.approx(0.99**10, rel=1e-5)
    assert sizes["l2"] < 0.8


def test_lbfgs_with_l2_finds_the_ridge_solution():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double()
    optimizer = optim.build_optimizer("lbfgs", model, lr=1.0, l2=2.0)

    def closure():
        optimizer.zero_grad()
        value = 0.5 * (model(x) - y).square().sum()
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(closure)
    ridge = torch.linalg.solve(x.T @ x + 2.0 * torch.eye(3, dtype=torch.float64), x.T @ y)
    torch.testing.assert_close(model.weight.T, ridge, rtol=1e-5, atol=1e-6)


def test_l1_adds_the_sign_of_decayed_weights_only():
    model = net()
    optimizer = optim.build_optimizer("sgd", model, lr=0.1)
    loss(model).backward()
    before = {n: p.grad.clone() for n, p in model.named_parameters()}
    optim.bind_l1(optimizer, 0.01)()
    for name, p in model.named_parameters():
        decayed = name in ("body.0.weight", "hidden.weight", "head.weight")
        expected = before[name] + (0.01 * p.detach().sign() if decayed else 0)
        torch.testing.assert_close(p.grad, expected)


def test_l1_makes_weights_vanish():
    model = nn.Linear(4, 1, bias=False)
    optimizer = optim.build_optimizer("sgd", model, lr=0.01)
    step, penalty = optim.bind(optimizer), optim.bind_l1(optimizer, 1.0)
    for _ in range(200):
        model.weight.grad = torch.zeros_like(model.weight)
        penalty()
        step(0.01, None, None)
    assert float(model.weight.detach().abs().max()) <= 0.01 + 1e-6


def test_frozen_parameters_do_not_move_and_get_no_gradient():
    model = net()
    before = model.hidden.weight.detach().clone()
    optimizer = optim.build_optimizer("sgd", model, lr=0.5, freeze=("hidden", "body.*"))
    loss(model).backward()
    optim.bind(optimizer)(0.5, None, None)
    assert model.hidden.weight.grad is None
    assert torch.equal(model.hidden.weight, before)
    moved = [n for g in optimizer.param_groups for n in g["param_names"]]
    assert sorted(moved) == ["head.bias", "head.weight", "table.weight"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: optim.build_optimizer("adm", m, lr=1), UnknownName, "'adam'"),
        (lambda m: optim.build_optimizer("adam", m, lr=1, options={"beta": 1}), ConfigError,
         "did you mean 'betas'"),
        (lambda m: optim.build_optimizer("sgd", m, lr=1, options={"betas": 1}), ConfigError,
         "no options"),
        (lambda m: optim.build_optimizer("adam", m, lr=1, options={"betas": [2, 3]}), ConfigError,
         "beta"),
        (lambda m: optim.build_optimizer("adam", m, lr=1, momentum=0.9), ConfigError, "momentum"),
        (lambda m: optim.build_optimizer("nesterov", m, lr=1, momentum=0.0), ConfigError, "'sgd'"),
        (lambda m: optim.build_optimizer("sgd", m, lr=-1), ConfigError, "lr=-1"),
        (lambda m: optim.build_optimizer("sgd", m, lr=1, l2=float("nan")), ConfigError, "l2=nan"),
        (lambda m: optim.build_optimizer("lbfgs", m, lr=1, weight_decay=1), ConfigError, "use l2"),
        (lambda m: optim.build_optimizer("sgd", m, lr=1, freeze=("hiden",)), ConfigError,
         "freeze='hiden'"),
        (lambda m: optim.build_optimizer("sgd", m, lr=1, freeze=("*",)), ConfigError, "trainable"),
        (lambda m: optim.bind_l1(optim.build_optimizer("lbfgs", m, lr=1), 0.1), ConfigError, "l1"),
    ],
)  # fmt: skip
def test_wrong_requests_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(net())


@pytest.mark.parametrize("shape", [(6, 6), (12, 5), (5, 12), (1, 7)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    q = orthogonalise(x)
    assert q.shape == x.shape
    assert float((u.T @ q @ v.T).diagonal().sub(1).abs().max()) < 0.5
    assert float((u.T @ q @ v.T - torch.diag((u.T @ q @ v.T).diagonal())).abs().max()) < 1e-9


def test_muon_takes_hidden_matrices_and_kernels_and_adamw_the_rest():
    optimizer = optim.build_optimizer("muon", net(), lr=0.01)
    assert isinstance(optimizer, Muon)
    by_name = {n: g["muon"] for g in optimizer.param_groups for n in g["param_names"]}
    assert {n for n, muon in by_name.items() if muon} == {"body.0.weight", "hidden.weight"}


def test_muon_agrees_with_torch_on_a_matrix():
    ours, theirs = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    theirs.load_state_dict(ours.state_dict())
    mine = Muon([{"params": [ours.weight], "muon": True}], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(
        theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for t in range(5):
        grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(t))
        ours.weight.grad, theirs.weight.grad = grad.clone(), grad.clone()
        mine.step()
        reference.step()
    # torch multiplies in bfloat16, so the two agree to its 8 bits.
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0.02, atol=2e-3)


def test_a_pattern_takes_the_parameters_of_a_phase():
    model = net()
    for name in ("adamw", "muon", "lbfgs"):
        optimizer = optim.build_optimizer(name, model, lr=0.1, params="h*")
        taken = [n for g in optimizer.param_groups for n in g["param_names"]]
        assert sorted(taken) == ["head.bias", "head.weight", "hidden.bias", "hidden.weight"]
    with pytest.raises(ConfigError, match=r"'generator\.\*'"):
        optim.build_optimizer("adamw", model, lr=0.1, params="generator.*")
