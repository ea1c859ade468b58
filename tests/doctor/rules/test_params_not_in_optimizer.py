"""Weights that the optimizer lacks are found, whether forgotten, listed or another model's."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, halves, mlp, problems
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor.experiment import call
from gipi.doctor.rules.params_not_in_optimizer import RULE


def learned(model: nn.Module, data, *, steps: int = 150) -> nn.Module:
    """Return the model after training, with a new head."""
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
        optimizer.step()
    model[-1].reset_parameters()
    optimizer.zero_grad()
    return model


def rings(rows=500):
    """Return two classes that differ in their distance from the origin in two columns."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 8, generator=g)
    return halves(X, (X[:, :2].norm(dim=1) > 1.2).long())


def with_optimizer(model, params, data, **more):
    exp = experiment(model, data, epochs=4, **more)
    exp.optimizer = torch.optim.Adam(params, 0.01)
    return exp


def test_another_models_weights() -> None:
    torch.manual_seed(0)
    exp = with_optimizer(mlp(), mlp().parameters(), blobs())
    assert "another model" in named(exp, RULE).findings[0].message
    treatment = cured(exp, RULE)
    assert treatment.after["loss"] < 0.5 * treatment.before["loss"]


def test_a_head_that_was_replaced_after_the_optimizer_was_made() -> None:
    torch.manual_seed(0)
    model = mlp()
    params = list(model.parameters())
    model[-1] = nn.Linear(32, 4)
    exp = with_optimizer(model, params, blobs())
    assert named(exp, RULE).findings[0].where == ("2.weight", "2.bias")
    cured(exp, RULE)


def test_a_body_of_random_weights_that_was_forgotten() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), *mlp(12))
    cured(with_optimizer(model, model[-1].parameters(), blobs(apart=1.0)), RULE)


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(8, 16), nn.ReLU()]
        self.more = {"one": nn.Linear(16, 16)}
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(self.more["one"](x).relu())


def test_layers_in_a_list_and_a_dict_are_registered() -> None:
    torch.manual_seed(0)
    treatment = cured(experiment(Listed(), blobs(), epochs=4), RULE)
    assert treatment.proof.after > treatment.proof.before


def test_features_that_were_learned_before_are_left_alone() -> None:
    torch.manual_seed(0)
    data = rings()
    model = learned(mlp(out=2), data)
    assert findings(with_optimizer(model, model[-1].parameters(), data), RULE) == []
    easy = blobs(apart=1.0)  # random features do as well: that is no problem either
    model = learned(mlp(), easy)
    assert problems(with_optimizer(model, model[-1].parameters(), easy), RULE) == []


def test_two_optimizers_declared_parts_and_healthy_runs_are_silent() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    model = mlp()
    declared = {"frozen": ["0.*"]}
    exp = with_optimizer(model, model[-1].parameters(), blobs(), declared=declared)
    assert findings(exp, RULE) == []

    model = mlp()
    other = torch.optim.SGD(model[0].parameters(), 0.01)

    def step(exp, xb, yb):
        other.zero_grad()
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        exp.optimizer.step()
        other.step()
        return loss.detach()

    assert findings(with_optimizer(model, model[-1].parameters(), blobs(), step=step), RULE) == []
