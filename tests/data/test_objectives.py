"""Pre-training objectives: shares, inverses, and the same row whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gipi.core.errors import ConfigError, DataError
from gipi.core.seed import derive
from gipi.data.objectives import (
    MaskRule,
    SpanRule,
    causal,
    corrupt_spans,
    join_pairs,
    mask_tokens,
    next_sentence,
    pair_starts,
    span_lengths,
    window_for,
)
from gipi.data.objectives.draw import token_uniform
from gipi.data.objectives.spans import noise_counts

V, SPECIAL = 50, (0, 1, 2, 3)
RULE = MaskRule(mask=3, vocab=V, special=SPECIAL)
SPANS = SpanRule(sentinels=tuple(range(99, 69, -1)))
few = settings(max_examples=40, deadline=None)


def rows(n, width, seed=0):
    """Rows [1] words [2] padding, of different lengths."""
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, V, (n, width), generator=g)
    tokens[:, 0] = 1
    ends = torch.randint(2, width, (n,), generator=g)
    at = torch.arange(width)
    tokens = tokens.masked_fill(at == ends[:, None], 2)
    return tokens.masked_fill(at > ends[:, None], 0)


# ------------------------------------------------------------------ random numbers


def test_numbers_of_positions_are_uniform_and_unrelated():
    u = token_uniform(derive(0, "x"), torch.arange(2000), 50).numpy()
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / u.size)
    counts = np.histogram(u, 20, (0, 1))[0]
    expected = u.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi square, 19 degrees: p < 1e-4
    across = np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]
    down = np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]
    slant = np.corrcoef(u[:-1, 1:].ravel(), u[1:, :-1].ravel())[0, 1]
    assert max(abs(across), abs(down), abs(slant)) < 4 / np.sqrt(u.size)


# ------------------------------------------------------------------ masking


def test_fifteen_percent_are_chosen_and_replaced_as_80_10_10():
    tokens = rows(3000, 64)
    found = mask_tokens(tokens, torch.arange(3000), rule=RULE, seed=0, epoch=0)
    chosen = found.labels != -100
    free = ~torch.isin(tokens, torch.tensor(SPECIAL))
    assert not (chosen & ~free).any()
    each = free.sum(1)
    assert chosen.sum(1).tolist() == [RULE.most(int(n)) for n in each]
    assert bool((chosen.sum(1) >= (each > 0).long()).all())
    n = int(chosen.sum())
    hidden = (found.tokens == 3)[chosen].float().mean().item()
    kept = (found.tokens == tokens)[chosen].float().mean().item()
    # A random id equals the old one in 1 of 46 draws. Bounds: four standard deviations.
    assert abs(hidden - 0.8) < 4 * (0.8 * 0.2 / n) ** 0.5
    assert abs(kept - (0.1 + 0.1 / 46)) < 4 * (0.1 * 0.9 / n) ** 0.5
    drawn = found.tokens[chosen & (found.tokens != 3) & (found.tokens != tokens)]
    assert not torch.isin(drawn, torch.tensor(SPECIAL)).any()
    counts = torch.bincount(drawn, minlength=V)[4:].double()
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 100  # 45 degrees: p < 1e-5
    assert bool((found.tokens == tokens)[~chosen].all())
    assert bool((found.labels[chosen] == tokens[chosen]).all())


def test_every_ordinary_position_is_chosen_equally_often():
    tokens = torch.full((20_000, 20), 7)
    found = mask_tokens(tokens, torch.arange(20_000), rule=RULE, seed=1, epoch=0)
    share = (found.labels != -100).double().mean(0)
    assert float((share - 0.15).abs().max()) < 4.5 * (0.15 * 0.85 / 20_000) ** 0.5


def test_positions_and_targets_are_the_labels_in_short():
    tokens = rows(40, 32)
    found = mask_tokens(tokens, torch.arange(40), rule=RULE, seed=0, epoch=3)
    assert found.positions.shape == (40, RULE.most(32)) == found.targets.shape
    for b in range(40):
        at = (found.labels[b] != -100).nonzero().flatten().tolist()
        used = len(at)
        assert found.positions[b, :used].tolist() == at
        assert found.targets[b, :used].tolist() == tokens[b, at].tolist()
        assert (found.targets[b, used:] == -100).all()
        assert (found.positions[b, used:] == 0).all()


@few
@given(st.integers(0, 5), st.permutations(list(range(9))), st.integers(1, 8), st.booleans())
def test_a_row_is_masked_alike_in_any_batch_and_at_any_padding(epoch, order, cut, whole):
    tokens, ids = rows(9, 24), torch.arange(100, 109)
    words = torch.arange(24).expand(9, 24) // 3 if whole else None

    def run(select, width):
        wide = torch.zeros(len(select), width, dtype=torch.long)
        wide[:, :24] = tokens[select]
        named = None
        if words is not None:
            named = torch.full((len(select), width), 99)
            named[:, :24] = words[select]
        return mask_tokens(wide, ids[select], rule=RULE, seed=4, epoch=epoch, words=named)

    everything = run(list(range(9)), 24)
    for part in (order[:cut], order[cut:]):
        found = run(part, 40)
        assert found.tokens[:, :24].tolist() == everything.tokens[part].tolist()
        assert found.labels[:, :24].tolist() == everything.labels[part].tolist()
    again = mask_tokens(tokens, ids, rule=RULE, seed=4, epoch=epoch + 1)
    assert again.labels.tolist() != everything.labels.tolist()


@few
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_whole_words_are_hidden_whole(seed, longest):
    g = np.random.default_rng(seed)
    width = 40
    sizes = g.integers(1, longest + 1, width)
    words = torch.from_numpy(np.repeat(np.arange(width), sizes)[:width]).expand(6, width)
    tokens = torch.from_numpy(g.integers(4, V, (6, width)))
    tokens[:, 0] = 1
    words = words.clone()
    words[:, 0] = -1  # a special token is no part of the word behind it
    found = mask_tokens(tokens, torch.arange(6), rule=RULE, seed=seed, epoch=0, words=words)
    chosen = found.labels != -100
    wanted = RULE.most(width - 1)
    for b in range(6):
        for word in set(words[b, 1:].tolist()):
            inside = words[b] == word
            assert chosen[b, inside].all() or not chosen[b, inside].any()
        assert wanted <= int(chosen[b].sum()) < wanted + longest


def test_rows_without_ordinary_tokens_and_very_short_rows():
    tokens = torch.tensor([[1, 2, 0, 0], [1, 9, 2, 0]])
    found = mask_tokens(tokens, torch.arange(2), rule=RULE, seed=0, epoch=0)
    assert found.labels.tolist() == [[-100] * 4, [-100, 9, -100, -100]]
    assert found.targets.tolist() == [[-100], [9]]


# ------------------------------------------------------------------ spans


def rebuilt(inputs, targets, rule):
    """Put the spans of the targets back where their sentinels stand in the inputs."""
    spans, current = {}, None
    for token in targets[:-1]:
        if token in rule.sentinels:
            current = token
            spans[current] = []
        else:
            spans[current].append(token)
    out = []
    for token in inputs[:-1]:
        out += spans.pop(token) if token in spans else [token]
    assert spans == {}
    return out


@few
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.15, 0.3, 0.5]))
def test_inputs_and_targets_together_are_the_text(seed, width, density):
    rule = SpanRule(SPANS.sentinels, density=density)
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 60, (5, width), generator=g)
    lengths = torch.randint(1, width + 1, (5,), generator=g)
    lengths[0] = width
    tokens = tokens.masked_fill(torch.arange(width) >= lengths[:, None], 0)
    found = corrupt_spans(tokens, torch.arange(5), rule=rule, seed=seed, epoch=0, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        n_in, n_out = int(found.input_lengths[b]), int(found.target_lengths[b])
        assert (n_in, n_out) == span_lengths(n, rule)
        inputs, targets = found.inputs[b].tolist(), found.targets[b].tolist()
        assert inputs[n_in - 1] == targets[n_out - 1] == 1
        assert set(inputs[n_in:]) <= {0}
        assert set(targets[n_out:]) <= {0}
        assert rebuilt(inputs[:n_in], targets[:n_out], rule) == tokens[b, :n].tolist()
        used = [t for t in inputs[:n_in] if t in rule.sentinels]
        assert used == list(rule.sentinels[: noise_counts(n, rule)[1]])
        assert used == [t for t in targets[:n_out] if t in rule.sentinels]
        assert found.labels[b].tolist() == [*targets[:n_out], *[-100] * (len(targets) - n_out)]
        if n > 1:
            assert inputs[0] == tokens[b, 0]  # a kept run comes first


def test_lengths_are_those_of_the_paper():
    """T5: windows of 568 tokens give inputs of 512 and targets of 114."""
    assert window_for(512, SPANS) == (568, 114)
    assert span_lengths(568, SPANS) == (512, 114)
    # round(0.15 n) tokens, round(that / 3) spans, halves to the even number
    counts = {
        1: (0, 0),
        2: (1, 1),
        10: (2, 1),
        30: (4, 1),
        100: (15, 5),
        113: (17, 6),
        512: (77, 26),
    }
    assert {n: noise_counts(n, SPANS) for n in counts} == counts
    for inputs in range(8, 300):
        tokens, _ = window_for(inputs, SPANS)
        assert span_lengths(tokens, SPANS)[0] <= inputs < span_lengths(tokens + 1, SPANS)[0]


def test_the_mean_span_and_the_density_are_as_asked():
    tokens = torch.full((400, 200), 5)
    found = corrupt_spans(tokens, torch.arange(400), rule=SPANS, seed=0, epoch=0)
    assert int((found.targets == 5).sum()) == 400 * 30
    assert int((found.targets >= 70).sum()) == 400 * 10


def test_all_partitions_are_alike_probable():
    """4 cut tokens in 2 spans: (1, 3), (2, 2), (3, 1) a third each."""
    rule = SpanRule((98, 97), density=0.4, mean_span=2.0)
    assert noise_counts(10, rule) == (4, 2)
    tokens = torch.full((6000, 10), 5)
    found = corrupt_spans(tokens, torch.arange(6000), rule=rule, seed=0, epoch=0)
    second = (found.targets == 97).long().argmax(1)  # place of the second sentinel
    counts = torch.bincount(second, minlength=5)[2:5].double()
    assert counts.sum() == 6000
    assert float((counts - 2000).abs().max()) < 4 * (6000 * 2 / 9) ** 0.5
    first = (found.inputs == 98).long().argmax(1)  # length of the first kept run, 1 .. 5
    counts = torch.bincount(first, minlength=6)[1:6].double()
    assert counts.sum() == 6000
    assert float((counts - 1200).abs().max()) < 4 * (6000 * 0.16) ** 0.5


@few
@given(st.permutations(list(range(7))), st.integers(1, 6), st.integers(0, 3))
def test_a_row_is_cut_alike_in_any_batch_and_at_any_padding(order, cut, epoch):
    lengths = torch.tensor([30, 4, 17, 1, 25, 30, 9])
    tokens = torch.randint(2, 60, (7, 30), generator=torch.Generator().manual_seed(1))
    tokens = tokens.masked_fill(torch.arange(30) >= lengths[:, None], 0)

    def run(select, width):
        wide = torch.zeros(len(select), width, dtype=torch.long)
        wide[:, :30] = tokens[select]
        found = corrupt_spans(
            wide, torch.tensor(select), rule=SPANS, seed=0, epoch=epoch, lengths=lengths[select]
        )
        return [
            (found.inputs[i, : found.input_lengths[i]].tolist(),
             found.targets[i, : found.target_lengths[i]].tolist())
            for i in range(len(select))
        ]  # fmt: skip

    everything = run(list(range(7)), 30)
    for part in (order[:cut], order[cut:]):
        assert run(part, 45) == [everything[i] for i in part]


# ------------------------------------------------------------------ next sentence


def test_half_the_seconds_follow_and_the_others_are_from_any_other_document():
    documents = torch.repeat_interleave(torch.arange(40), 10)
    first = pair_starts(documents)
    assert len(first) == 40 * 9
    assert bool((documents[first] == documents[first + 1]).all())
    counts = torch.zeros(400)
    follows = 0
    for epoch in range(40):
        second, label = next_sentence(documents, first, seed=0, epoch=epoch)
        assert bool((second == first + 1)[label == 0].all())
        assert bool((documents[second] != documents[first])[label == 1].all())
        follows += int((label == 0).sum())
        counts += torch.bincount(second[label == 1], minlength=400)
    total = 40 * len(first)
    assert abs(follows / total - 0.5) < 4 * (0.25 / total) ** 0.5
    mean = counts.sum() / 400
    assert float(((counts - mean) ** 2 / mean).sum()) < 520  # chi square, 399 degrees: p < 1e-4


def test_a_pair_is_a_function_of_its_first_unit():
    documents = torch.repeat_interleave(torch.arange(5), torch.tensor([3, 1, 4, 2, 6]))
    first = pair_starts(documents)
    assert first.tolist() == [0, 1, 4, 5, 6, 8, 10, 11, 12, 13, 14]
    everything = next_sentence(documents, first, seed=2, epoch=1)
    for some in (torch.arange(11).flip(0), torch.tensor([7, 0, 4])):
        for got, expected in zip(
            next_sentence(documents, first[some], seed=2, epoch=1), everything, strict=True
        ):
            assert got.tolist() == expected[some].tolist()
    assert next_sentence(documents, first, seed=2, epoch=2)[0].tolist() != everything[0].tolist()


@few
@given(st.integers(0, 10**6), st.integers(5, 24))
def test_pairs_are_joined_and_the_longer_text_is_cut_first(seed, width):
    g = np.random.default_rng(seed)
    sizes = g.integers(1, 12, 6)
    values = torch.from_numpy(g.integers(10, 90, sizes.sum()))
    offsets = torch.from_numpy(np.concatenate([[0], sizes.cumsum()]))
    first, second = torch.tensor([0, 2, 5]), torch.tensor([1, 4, 3])
    tokens, segments, cut = join_pairs(
        values, offsets, first=first, second=second, width=width, begin=1, separator=2, pad=0
    )
    lying = join_pairs(
        values.numpy().astype(np.uint16), offsets, first=first, second=second, width=width,
        begin=1, separator=2, pad=0,
    )[0]  # fmt: skip
    assert lying.dtype == torch.int64
    assert torch.equal(lying, tokens)
    for i, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        left = values[offsets[a] : offsets[a + 1]].tolist()
        right = values[offsets[b] : offsets[b + 1]].tolist()
        lost = 0
        while len(left) + len(right) > width - 3:
            longer = left if len(left) > len(right) else right
            longer.pop()
            lost += 1
        row = [1, *left, 2, *right, 2]
        assert tokens[i].tolist() == row + [0] * (width - len(row))
        ones = len(right) + 1
        zeros = width - len(row)
        assert segments[i].tolist() == [0] * (len(left) + 2) + [1] * ones + [0] * zeros
        assert cut[i] == lost


# ------------------------------------------------------------------ causal


def test_causal_labels_are_one_ahead():
    tokens = torch.tensor([[5, 6, 7, 8], [5, 9, 0, 0]])
    inputs, labels = causal(tokens, lengths=torch.tensor([4, 2]), prompt=torch.tensor([2, 0]))
    assert inputs.tolist() == [[5, 6, 7], [5, 9, 0]]
    assert labels.tolist() == [[-100, 7, 8], [9, -100, -100]]
    assert causal(tokens)[1].data_ptr() == tokens[:, 1:].data_ptr()


def test_an_end_that_is_also_padding_is_learned_once():
    """GPT-2 pads with the end of a text: it must be predicted where it ends one."""
    _, labels = causal(torch.tensor([[5, 6, 0, 0, 0]]), lengths=torch.tensor([3]))
    assert labels.tolist() == [[6, 0, -100, -100]]


# ------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (ConfigError, lambda: MaskRule(3, V, SPECIAL, share=1.5), ["share=1.5", "0.15 is usual"]),
        (ConfigError, lambda: MaskRule(3, V, SPECIAL, hidden=0.9, random=0.2),
         ["hidden=0.9", "random=0.2"]),
        (ConfigError, lambda: MaskRule(50, V, SPECIAL), ["special id 50", "50 ids", "0 to 49"]),
        (ConfigError, lambda: MaskRule(0, 2, (0, 1)), ["all of them special"]),
        (ConfigError, lambda: SpanRule((5,), density=0), ["density=0"]),
        (ConfigError, lambda: SpanRule((5,), mean_span=0.5), ["mean_span=0.5"]),
        (ConfigError, lambda: SpanRule((5, 5)), ["2 sentinels, 1 of them different"]),
        (ConfigError, lambda: corrupt_spans(torch.full((1, 100), 9), torch.zeros(1).long(),
                                            rule=SpanRule((5, 6)), seed=0, epoch=0),
         ["100 tokens", "5 spans", "2 sentinels"]),
        (DataError, lambda: causal(torch.zeros(2, 1)), ["rows of 1 tokens", "at least two"]),
        (DataError, lambda: pair_starts(torch.arange(4)),
         ["one unit each", "leave next-sentence prediction out"]),
        (DataError, lambda: pair_starts(torch.zeros(4).long()), ["one document", "blank line"]),
        (DataError, lambda: join_pairs(torch.arange(4), torch.tensor([0, 2, 4]),
                                       first=torch.tensor([0]), second=torch.tensor([1]), width=4,
                                       begin=1, separator=2, pad=0), ["rows of 4", "at least 5"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(error, call, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
