"""Many unknown tokens are found; few are left alone."""

from __future__ import annotations

import torch
from tests.doctor.patients import Reader, experiment, findings, seen, token_rows

from gipi.doctor.rules.tokenizer_oov import RULE

KNOWN = {"tokens": {"pad": 0, "unknown": 1}}


def unknown(splits, share: float):
    g = torch.Generator().manual_seed(0)
    return tuple(
        (X.masked_fill((torch.rand(X.shape, generator=g) < share) & (X != 0), 1), y)
        for X, y in splits
    )


def test_many_unknown_tokens_are_named() -> None:
    first = seen(experiment(Reader(), unknown(token_rows(), 0.3), declared=KNOWN), RULE).findings[0]
    assert (first.code, first.severity) == ("tokenizer_oov", "problem")
    assert 0.25 < first.evidence["train"] < 0.35


def test_validation_alone_is_worth_a_look_where_nobody_declared_the_id() -> None:
    train, val = token_rows()
    exp = experiment(Reader(), (train, unknown((val,), 0.3)[0]))
    assert seen(exp, RULE).findings[0].severity == "hint"


def test_few_unknown_tokens_are_left_alone() -> None:
    assert findings(experiment(Reader(), token_rows(), declared=KNOWN), RULE) == []
    assert findings(experiment(Reader(), unknown(token_rows(), 0.02), declared=KNOWN), RULE) == []
    assert findings(experiment(Reader(), token_rows()), RULE) == []
