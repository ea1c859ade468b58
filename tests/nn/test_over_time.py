"""Lengths, pools over time and attention: padding has no weight."""

from __future__ import annotations

import pytest
import torch

from gipi.nn import (
    AdditiveAttention,
    AttentionPool,
    DotAttention,
    masked_softmax,
    max_over_time,
    mean_over_time,
    row_lengths,
    within,
)

B, T, K = 4, 6, 3
LENGTHS = torch.tensor([6, 2, 0, 1])
MASK = within(LENGTHS, T)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def disturbed(x):
    return torch.where(MASK[..., None], x, rows(*x.shape, seed=9) * 100)


def test_a_row_ends_behind_its_last_token():
    tokens = torch.tensor([[4, 9, 4, 4], [9, 9, 9, 9], [4, 4, 4, 4], [9, 4, 9, 4]])
    assert row_lengths(tokens, 4).tolist() == [2, 4, 0, 3]
    assert row_lengths(tokens[:, :0], 4).tolist() == [0, 0, 0, 0]
    assert within(torch.tensor([2, 0, 3]), 3).sum(1).tolist() == [2, 0, 3]


def pools():
    return {
        "mean": mean_over_time,
        "max": max_over_time,
        "attention": AttentionPool(K, generator()).double(),
    }


@pytest.mark.parametrize("name", ["mean", "max", "attention"])
def test_a_pool_sees_a_rows_own_steps_alone(name):
    pool, x = pools()[name], rows(B, T, K) - 3
    out = pool(x, MASK)
    assert torch.equal(out, pool(disturbed(x), MASK))
    assert not out[2].any()
    for i, length in enumerate(LENGTHS.tolist()):
        if length:
            own = x[i : i + 1, :length]
            torch.testing.assert_close(out[i : i + 1], pool(own, MASK[:1, :length]))
    own = {"mean": x[1, :2].mean(0), "max": x[1, :2].amax(0)}
    if name in own:
        torch.testing.assert_close(out[1], own[name])
    assert pool(x[:, :0], MASK[:, :0]).shape == (B, K)


def test_masked_softmax_is_softmax_of_what_is_allowed():
    scores = rows(B, T) * 5
    weights = masked_softmax(scores, MASK)
    torch.testing.assert_close(weights.sum(1), (LENGTHS > 0).double())
    assert not weights[~MASK].any()
    torch.testing.assert_close(weights[1, :2], scores[1, :2].softmax(0))
    half = masked_softmax(scores.half(), MASK)
    assert torch.isfinite(half).all()


def test_attention_pool_is_its_formula():
    pool, x = AttentionPool(K, generator()).double(), rows(B, T, K)
    energy = torch.tanh(x @ pool.project.weight.T + pool.project.bias) @ pool.energy.weight[0]
    weights = energy[0].softmax(0)
    torch.testing.assert_close(pool.weights(x, MASK)[0], weights)
    torch.testing.assert_close(pool(x, MASK)[0], weights @ x[0])


# ------------------------------------------------------------------------ attention of a decoder


def attentions(memory=K, query=5):
    return {
        "additive": AdditiveAttention(query, memory, width=4, generator=generator()).double(),
        "dot": DotAttention(query, memory, generator=generator()).double(),
    }


@pytest.mark.parametrize("name", ["additive", "dot"])
def test_weights_sum_to_one_and_ignore_padding(name):
    attention, query, memory = attentions()[name], rows(B, 2, 5), rows(B, T, K)
    found = [
        attention(query, attention.keys(given), memory_BSM=given, mask_BS=MASK)
        for given in (memory, disturbed(memory))
    ]
    (context, weights), (other, others) = found
    torch.testing.assert_close(context, other)
    assert torch.equal(weights, others)
    torch.testing.assert_close(weights.sum(2), (LENGTHS > 0).double()[:, None].expand(-1, 2))
    assert not weights.transpose(1, 2)[~MASK].any()
    assert not context[2].any()
    torch.testing.assert_close(context[1], weights[1, :, :2] @ memory[1, :2])


def test_energies_are_their_formulas():
    query, memory, mask = rows(1, 1, 5), rows(1, T, K), torch.ones(1, T, dtype=torch.bool)
    net = attentions()["additive"]
    weights = net(query, net.keys(memory), memory_BSM=memory, mask_BS=mask)[1]
    inner = query[0] @ net.query.weight.T + net.query.bias + memory[0] @ net.memory.weight.T
    torch.testing.assert_close(weights[0, 0], (inner.tanh() @ net.energy.weight[0]).softmax(0))
    net = attentions()["dot"]
    weights = net(query, net.keys(memory), memory_BSM=memory, mask_BS=mask)[1]
    general = query[0, 0] @ (memory[0] @ net.memory.weight.T).T
    torch.testing.assert_close(weights[0, 0], general.softmax(0))
    net = attentions(memory=5)["dot"]
    assert not list(net.parameters())
    wide = rows(1, T, 5, seed=2)
    weights = net(query, net.keys(wide), memory_BSM=wide, mask_BS=mask)[1]
    torch.testing.assert_close(weights[0, 0], (wide[0] @ query[0, 0]).softmax(0))
