"""Ids that mean other words in validation, and ids beyond the embedding, are found."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import Reader, experiment, findings, seen, token_rows
from torch import nn
from torch.nn.functional import cross_entropy

from gipi.doctor.rules.tokenizer_mismatch import RULE, divergence, matched


def test_other_ids_in_validation_are_named() -> None:
    train, (V, v) = token_rows()
    other = torch.cat([torch.tensor([0, 1]), 2 + torch.randperm(38)])
    exp = experiment(Reader(), (train, (other[V], v)))
    first = seen(exp, RULE).findings[0]
    assert (first.code, first.severity, first.confirmed) == ("tokenizer_mismatch", "problem", True)
    assert first.repairs[0].mode == "ask"


def test_an_embedding_smaller_than_the_vocabulary_is_named() -> None:
    exp = experiment(Reader(), token_rows(), declared={"vocabulary": 64})
    assert seen(exp, RULE).findings[0].evidence == {"ids": 64, "embedding": 40}
    padded = experiment(Reader(64), token_rows(), declared={"vocabulary": 40})
    assert findings(padded, RULE) == []


def test_healthy_twins_are_left_alone() -> None:
    for seed in range(3):
        assert findings(experiment(Reader(), token_rows(seed=seed)), RULE) == []
    assert findings(experiment(Reader(), token_rows(rows=60)), RULE) == []


def test_divergence_is_nothing_for_equal_and_one_bit_for_disjoint_histograms() -> None:
    a, b = torch.tensor([3.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 2.0, 5.0])
    assert abs(divergence(a, a)) < 1e-6
    assert abs(divergence(a.double(), b.double()) - 1) < 1e-9


def chain(table: torch.Tensor, rows: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    text = [torch.randint(len(table), (rows,), generator=g)]
    for _ in range(16):
        text.append(torch.multinomial(table[text[-1]], 1, generator=g)[:, 0])
    return torch.stack(text, 1)


def even_chain(g: torch.Generator) -> torch.Tensor:
    """Return which of ten words follows which, every word equally frequent."""
    table = (2.5 * torch.randn(10, 10, generator=g)).exp()
    for _ in range(50):
        table = table / table.sum(0)
        table = table / table.sum(1, keepdim=True)
    return table


def reads(train: torch.Tensor, val: torch.Tensor):
    pairs = tuple((ids[:, :-1], ids[:, 1:]) for ids in (train, val))
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10))
    return experiment(model, pairs, loss=lambda said, y: cross_entropy(said.mT, y))


def test_few_words_under_other_numbers_are_told_by_what_follows_what() -> None:
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        table, elsewhere = even_chain(g), even_chain(g)
        train, val = chain(table, 300, seed), chain(table, 120, seed + 9)
        other = torch.randperm(10, generator=g)
        first = seen(reads(train, other[val]), RULE).findings[0]
        assert (first.severity, first.confirmed) == ("problem", True)
        assert first.evidence["renumbered"] < 0.1 * first.evidence["divergence_of_pairs"]
        assert findings(reads(train, val), RULE) == []
        for found in seen(reads(train, chain(elsewhere, 120, seed)), RULE).findings:
            assert "renumbered" not in found.evidence  # no other numbers make it the same text


def test_tokens_are_matched_by_what_stands_beside_them() -> None:
    pairs = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)).double() ** 3
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    number, left = matched(pairs, pairs[order][:, order])
    assert torch.equal(order[number], torch.arange(8))
    assert abs(left) < 1e-9


def test_other_shares_of_four_letters_and_a_single_row_are_no_other_numbers() -> None:
    g = torch.Generator().manual_seed(0)
    some, others = torch.tensor([0.4, 0.1, 0.1, 0.4]), torch.tensor([0.1, 0.4, 0.4, 0.1])
    train, val = (torch.multinomial(p, 6000, replacement=True, generator=g).reshape(300, 20)
                  for p in (some, others))  # fmt: skip
    diagnosis = seen(reads(train, val), RULE)
    assert [f.severity for f in diagnosis.findings] in ([], ["hint"])
    assert not any("renumbered" in f.evidence for f in diagnosis.findings)
    one = seen(reads(train.reshape(1, -1), val[:1].repeat(1, 100)), RULE)
    assert one.broken == {}


class Columns(nn.Module):
    """Vectors of its own for every column of a table of codes; others: beyond are the last one."""

    def __init__(self, *sizes: int, others: bool = True) -> None:
        super().__init__()
        self.others = others
        self.tables = nn.ModuleList(nn.Embedding(size, 4) for size in sizes)
        self.end = nn.Linear(4 * len(sizes), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pairs = zip(self.tables, x.unbind(1), strict=True)
        read = [t(c.clamp_max(len(t.weight) - 1) if self.others else c) for t, c in pairs]
        return self.end(torch.cat(read, -1))


def table(rows: int, *sizes: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    X = torch.stack([torch.randint(size, (rows,), generator=g) for size in sizes], 1)
    return X, X.float().mean(1, keepdim=True) / max(sizes)


def test_columns_that_have_vectors_of_their_own_are_no_text() -> None:
    train, val = table(400, 5, 30), table(200, 5, 30, seed=1)
    assert findings(experiment(Columns(5, 30), (train, val)), RULE) == []
    assert findings(experiment(Columns(5, 30), (train, table(300, 5, 8))), RULE) == []


def test_a_column_beyond_its_own_vectors_is_named() -> None:
    V, v = table(200, 5, 30, seed=1)
    V[150, 0] = 7
    exp = experiment(Columns(5, 30, others=False), (table(400, 5, 30), (V, v)))
    (first,) = seen(exp, RULE).findings
    assert (first.evidence, first.confirmed) == ({"ids": 8, "embedding": 5}, True)
    assert "column" in first.message


@pytest.mark.parametrize("error", [AssertionError, KeyError])
def test_a_model_may_refuse_ids_by_an_error_of_its_own(error: type[Exception]) -> None:
    class Strict(Columns):
        def forward(self, x):
            if int(x[:, 0].max()) >= 5:
                raise error("unknown")
            return super().forward(x)

    V, v = table(200, 5, 30, seed=1)
    V[150, 0] = 7
    exp = experiment(Strict(5, 30), (table(400, 5, 30), (V, v)))
    assert findings(exp, RULE) == ["tokenizer_mismatch"]


def test_ids_that_the_model_makes_others_are_no_other_tokenizer() -> None:
    X, y = table(400, 5, 30)
    X[::3, 0] += 3
    V, v = table(200, 5, 30, seed=1)
    assert findings(experiment(Columns(5, 30), ((X, y), (V, v))), RULE) == []
    V[3, 0] = 7
    assert findings(experiment(Columns(5, 30), (table(400, 5, 30), (V, v))), RULE) == []


class Kinds(Reader):
    """Adds vectors of places and of what is padding, as many of each as there are ids."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.kind = nn.Embedding(12, 8), nn.Embedding(2, 8)
        self.more = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = torch.arange(x.shape[1]).expand_as(x)
        both = self.place(at) + self.kind(x.new_zeros(x.shape)) + self.kind((x > 0).long())
        return self.more(both.mean(1)) + super().forward(x)


def test_vectors_of_places_and_kinds_read_no_ids() -> None:
    assert findings(experiment(Kinds(), token_rows()), RULE) == []
    exp = experiment(Kinds(), token_rows(), declared={"vocabulary": 64})
    assert seen(exp, RULE).findings[0].evidence == {"ids": 64, "embedding": 40}


def test_frequencies_that_have_nothing_to_do_with_each_other_are_other_numbers() -> None:
    """Every word has a tag, by its number alone: no row has a target of its own."""
    g = torch.Generator().manual_seed(0)
    rare = 1.0 / torch.arange(1, 101).float() ** 0.6
    train, val = (torch.multinomial(rare, 12 * n, replacement=True, generator=g).reshape(n, 12)
                  for n in (500, 200))  # fmt: skip
    other = torch.randperm(100, generator=g)

    def tagged(V: torch.Tensor):
        model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 5))
        pairs = (train, train % 5), (V, val % 5)
        return experiment(model, pairs, loss=lambda said, y: cross_entropy(said.mT, y))

    (first,) = seen(tagged(other[val]), RULE).findings
    assert (first.severity, first.confirmed) == ("problem", True)
    assert findings(tagged(val), RULE) == []
    # Another kind of text: a third of what it says are words of its own.
    own = torch.rand(val.shape, generator=g) < 0.33
    some = seen(tagged(torch.where(own, 50 + val // 2, val)), RULE).findings
    assert [f.severity for f in some] in ([], ["hint"])


def opinions(rows: int, seed: int):
    """Return rows of equally frequent words, each of which one of two kinds prefers."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (rows,), generator=g)
    other = torch.rand(rows, 12, generator=g) < 0.3
    return 2 + 2 * torch.randint(19, (rows, 12), generator=g) + (y[:, None] ^ other.long()), y


def test_numbers_that_leave_words_as_frequent_are_told_by_what_they_say() -> None:
    train, (V, v) = opinions(600, 0), opinions(300, 1)
    other = torch.cat([torch.tensor([0, 1]), 2 + torch.randperm(38)])
    (found,) = seen(experiment(Reader(), (train, (other[V], v))), RULE).findings
    assert (found.severity, found.confirmed) == ("problem", True)
    assert found.evidence["explained_val"] < 0.2
    assert found.evidence["by_itself"] > 0.4
    for other_targets in (v, 1 - v, v[torch.randperm(300)]):
        assert findings(experiment(Reader(), (train, (V, other_targets))), RULE) == []
