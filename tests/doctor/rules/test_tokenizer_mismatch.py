"""Ids that mean other words in validation, and ids beyond the embedding, are found."""

from __future__ import annotations

import torch
from tests.doctor.patients import Reader, experiment, findings, seen, token_rows

from gipi.doctor.rules.tokenizer_mismatch import RULE, divergence


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
