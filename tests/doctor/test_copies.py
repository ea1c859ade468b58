"""What is put aside comes back: after a step, and after passes alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tests.doctor.patients import blobs, experiment
from torch import nn

from gipi.doctor.copies import left_alone, peeking, untouched
from gipi.doctor.experiment import batches, rows_of, take_step, whole


def made():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 4))
    exp = experiment(net, blobs())
    for xb, yb in batches(exp, 0):
        take_step(exp, xb, yb)
    net.eval()
    return exp


def state(exp):
    held = [*exp.model.state_dict().values(), *(p.grad for p in exp.model.parameters())]
    modes = [m.training for m in exp.model.modules()]
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    return [t.clone() for t in held], modes, drawn


def same(one, other) -> bool:
    tensors = all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    generators = torch.equal(one[2][0], other[2][0]) and one[2][1] == other[2][1]
    return tensors and one[1] == other[1] and generators and bool((one[2][2] == other[2][2]).all())


def test_passes_leave_no_trace() -> None:
    exp = made()
    before, head = state(exp), exp.model[-1].weight
    with peeking(exp, weights=[head]):
        exp.model.train()
        assert all(p.grad is None for p in exp.model.parameters())
        X, y = exp.train
        exp.loss(exp.model(X), y).backward()
        with torch.no_grad():
            head.add_(1.0)
        random.random(), np.random.rand()  # noqa: NPY002
    assert same(before, state(exp))


def test_steps_leave_no_trace() -> None:
    exp = made()
    before, moments = state(exp), {k: v["exp_avg"].clone() for k, v in exp.optimizer.state.items()}
    with untouched(exp):
        exp.model.train()
        take_step(exp, *exp.train)
        assert not same(before, state(exp))
    assert same(before, state(exp))
    now = list(exp.optimizer.state.values())
    assert all(torch.equal(m, v["exp_avg"]) for m, v in zip(moments.values(), now, strict=True))


def test_one_number_that_stands_for_many_is_put_back() -> None:
    exp = made()
    exp.model.register_buffer("scale", torch.ones(1, 3).expand(4, 3))
    for aside in (left_alone, peeking, untouched):
        with aside(exp):
            exp.model.scale[:1].mul_(2.0)
            assert float(exp.model.scale[3, 0]) == 2.0
        assert torch.equal(exp.model.scale, torch.ones(4, 3))


def test_rows_are_counted_whatever_inputs_are() -> None:
    X, y = torch.zeros(8, 3), torch.zeros(8)
    parts = {"a": X, "b": (X, y), "size": 3}
    assert [rows_of(v) for v in (X, y.numpy(), parts, [X, y], [1, 2], "abc")] == [8, 8, 8, 8, 0, 0]
    assert rows_of((X, torch.zeros(7))) == rows_of(torch.zeros(())) == rows_of(None) == 0
    asked = []

    def stream():
        for _ in range(10):
            asked.append(1)
            yield {"a": X, "b": X}, {"target": y}

    whole(stream(), 24, torch.device("cpu"))
    assert len(asked) == 1  # of mappings no more than the first batch comes back
    pairs = (((X, X), y) for _ in range(10) if not asked.append(1))
    first = whole(pairs, 24, torch.device("cpu"))
    assert len(asked) == 1 + 3
    assert [len(x) for x in first[0]] == [24, 24]


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_buffers_are_put_back(layout) -> None:
    exp = made()
    dense = torch.eye(4) * 3
    sparse = dense.to_sparse() if layout is torch.sparse_coo else dense.to_sparse_csr()
    exp.model.register_buffer("adjacency", sparse)
    for aside in (left_alone, peeking, untouched):
        with aside(exp):
            exp.model.adjacency.values().mul_(2.0) if layout is torch.sparse_csr else None
        assert torch.equal(exp.model.adjacency.to_dense(), dense)
