"""The chain of tags against all ways to tag, written out."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gipi.core.errors import ModelError
from gipi.nn import Chain, LinearChain, best_tags, chain_loss
from gipi.nn.crf import log_partition, score, viterbi

B, T, K = 4, 5, 3
LENGTHS = torch.tensor([5, 3, 1, 0])


def chain(seed: int = 0) -> Chain:
    """Return scores that are not small."""
    draw = torch.Generator().manual_seed(seed)
    sizes = ((B, T, K), (K, K), (K,), (K,))
    return Chain(*(torch.randn(s, generator=draw, dtype=torch.float64) * 2 for s in sizes))


def ways(found: Chain, row: int, length: int) -> dict[tuple[int, ...], float]:
    """Return the score of every way to tag a row, added up as the formula says."""
    out = {}
    for tags in itertools.product(range(K), repeat=length):
        total = found.start[tags[0]] + found.end[tags[-1]]
        for t, tag in enumerate(tags):
            total = total + found.unary[row, t, tag]
            if t:
                total = total + found.pair[tags[t - 1], tag]
        out[tags] = float(total)
    return out


def labels(seed: int = 1) -> Tensor:
    """Return tags of rows of `LENGTHS`, -100 behind their ends."""
    tags = torch.randint(K, (B, T), generator=torch.Generator().manual_seed(seed))
    return tags.masked_fill(torch.arange(T) >= LENGTHS[:, None], -100)


def test_the_sum_and_the_best_are_those_of_all_ways() -> None:
    found = chain()
    logs, best = log_partition(found, LENGTHS), viterbi(found, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        if not length:
            assert float(logs[row]) == 0.0
            continue
        every = ways(found, row, length)
        total = torch.tensor(list(every.values()), dtype=torch.float64).logsumexp(0)
        torch.testing.assert_close(logs[row], total)
        assert tuple(best[row, :length].tolist()) == max(every, key=every.__getitem__)


def test_the_loss_is_minus_the_log_probability() -> None:
    found, tags = chain(), labels()
    total, count = chain_loss(found, tags)
    wanted = 0.0
    for row, length in enumerate(LENGTHS.tolist()):
        if length:
            every = ways(found, row, length)
            logs = torch.tensor(list(every.values()), dtype=torch.float64).logsumexp(0)
            wanted += float(logs) - every[tuple(tags[row, :length].tolist())]
    assert float(total) == pytest.approx(wanted)
    assert int(count) == int(LENGTHS.sum())


def test_positions_without_a_tag_are_as_if_they_were_not_there() -> None:
    found, tags = chain(), labels()
    gaps = torch.tensor([2, 0, 4, 6, 8])  # where the positions stand in a wider row
    wide = Chain(torch.randn(B, 10, K, dtype=torch.float64), *found[1:])
    wide.unary[:, gaps.sort().values] = found.unary
    spread = torch.full((B, 10), -100).index_copy(1, gaps.sort().values, tags)
    torch.testing.assert_close(chain_loss(wide, spread)[0], chain_loss(found, tags)[0])
    said = best_tags(wide, spread != -100)
    assert torch.equal(said[:, gaps.sort().values], best_tags(found, tags != -100))
    assert (said[spread == -100] == -1).all()


def test_weights_count_rows() -> None:
    found, tags = chain(), labels()
    weight = torch.tensor([1.0, 0.0, 2.0, 3.0], dtype=torch.float64)
    total, count = chain_loss(found, tags, weight_B=weight)
    each = [chain_loss(Chain(found.unary[r : r + 1], *found[1:]), tags[r : r + 1])[0]
            for r in range(B)]  # fmt: skip
    torch.testing.assert_close(total, (torch.stack(each) * weight).sum())
    assert float(count) == float((LENGTHS * weight).sum())


def test_gradients() -> None:
    parts = tuple(t.requires_grad_() for t in chain())
    tags = labels()
    assert torch.autograd.gradcheck(lambda *p: chain_loss(Chain(*p), tags)[0], parts)


def test_what_is_padding_gets_no_gradient() -> None:
    found = chain()
    unary = found.unary.requires_grad_()
    chain_loss(Chain(unary, *found[1:]), labels())[0].backward()
    assert unary.grad is not None
    assert (unary.grad[1, 3:] == 0).all()
    assert (unary.grad[3] == 0).all()
    assert unary.grad[1, :3].abs().min() > 0


def test_half_precision_is_summed_in_whole() -> None:
    found = Chain(*(t.bfloat16() for t in chain()))
    total, _ = chain_loss(found, labels())
    assert total.dtype == torch.float32
    exact = chain_loss(Chain(*(t.float() for t in found)), labels())[0]
    assert float(total) == float(exact)


def test_nothing_at_all() -> None:
    found = Chain(torch.zeros(2, 0, K), *(t.float() for t in chain()[1:]))
    total, count = chain_loss(found, torch.zeros(2, 0, dtype=torch.long))
    assert (float(total), int(count)) == (0.0, 0)
    assert viterbi(found, torch.zeros(2, dtype=torch.long)).shape == (2, 0)
    assert score(found, torch.zeros(2, 0, dtype=torch.long), torch.zeros(2)).tolist() == [0, 0]


def test_shapes_that_do_not_belong_together() -> None:
    with pytest.raises(ModelError, match="one row of scores for each position"):
        chain_loss(chain(), torch.zeros(B, T + 1, dtype=torch.long))


def test_a_chain_learns_what_follows_what() -> None:
    """Tags alternate, and the positions say nothing: only neighbours can tell."""
    layer = LinearChain(2, generator=torch.Generator().manual_seed(0))
    tags = torch.tensor([[0, 1, 0, 1, 0, 1]])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        chain_loss(layer(torch.zeros(1, 6, 2)), tags)[0].backward()
        optimizer.step()
    found = best_tags(layer(torch.zeros(1, 6, 2)), torch.ones(1, 6, dtype=torch.bool))
    assert torch.equal(found, tags)
