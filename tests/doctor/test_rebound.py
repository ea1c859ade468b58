"""A function that reaches a copied model reaches the copy, whichever way it goes."""

from __future__ import annotations

from functools import partial
from itertools import count

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch import nn
from torch.nn import functional as F

from gipi.doctor.copies import duplicate
from gipi.doctor.rebound import rebound

HELD = mlp()


def squares(model):
    return sum(p.pow(2).sum() for p in model.parameters())


def of_global(said, y):
    return F.cross_entropy(said, y) + squares(HELD)


def with_weights(said, y, *, weights):
    return F.cross_entropy(said, y) + sum(w.pow(2).sum() for w in weights)


class Penalised:
    def __init__(self, model):
        self.model = model

    def __call__(self, said, y):
        return F.cross_entropy(said, y) + squares(self.model)

    def told(self, said, y):
        return self(said, y)


@pytest.mark.parametrize("way", ["closure", "global", "partial", "object", "method", "list"])
def test_a_penalty_pulls_at_the_copy(way) -> None:
    model = HELD
    parts = [model[0], model[2]]
    losses = {
        "closure": lambda said, y: F.cross_entropy(said, y) + squares(model),
        "global": of_global,
        "partial": partial(with_weights, weights=list(model.parameters())),
        "object": Penalised(model),
        "method": Penalised(model).told,
        "list": lambda said, y: F.cross_entropy(said, y) + sum(map(squares, parts)),
    }
    exp = experiment(model, blobs(), loss=losses[way])
    for twin in (duplicate(exp), duplicate(duplicate(exp))):
        with torch.no_grad():
            for p in twin.model.parameters():
                p.zero_()
            said, y = torch.zeros(4, 4), torch.zeros(4, dtype=torch.long)
            assert float(twin.loss(said, y)) == pytest.approx(float(F.cross_entropy(said, y)))
            assert float(exp.loss(said, y)) > 1.5


def test_what_does_not_speak_of_the_model_stays_the_same_function() -> None:
    other, counter = mlp(), count()

    def step(now, xb, yb):
        next(counter)
        return now.loss(now.model(xb), yb) + 0 * squares(other)

    exp = experiment(mlp(), blobs(), loss=nn.functional.cross_entropy, step=step)
    twin = duplicate(exp)
    assert twin.step is exp.step
    assert twin.loss is exp.loss


def test_functions_that_call_each_other_come_to_an_end() -> None:
    model = mlp()

    def one(deep):
        return squares(model) if deep == 0 else other(deep - 1)

    def other(deep):
        return one(deep)

    memo = {id(model): nn.Linear(1, 1)}
    with torch.no_grad():
        assert float(rebound(one, memo)(0)) != float(one(0))
