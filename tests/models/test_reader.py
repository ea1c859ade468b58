"""The recurrent reader: ends of an answer, by the likeness of each place to the question."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gipi import models, tasks
from gipi.core.batch import Batch
from gipi.core.errors import ModelError
from gipi.core.schema import Signature
from gipi.models.reader import Reader

SPANS = Signature(vocab=30, length=16, outputs=2, per="span")
SMALL: dict[str, Any] = {"embedding": 8, "side": 4, "width": 7, "dropout": 0.0}
ASKED = 4  # tokens of the question and its marks


def net(**options: Any) -> Reader:
    found = models.build("bilstm-reader", SPANS, options={**SMALL, **options})
    assert isinstance(found, Reader)
    return found


def rows(lengths: tuple[int, ...] = (12, 9), width: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, segments and context: [mark, question.., mark, context.., mark]."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 30, (len(lengths), width), generator=draw)
    places = torch.arange(width)
    ends = torch.tensor(lengths)[:, None]
    tokens = tokens.masked_fill(places >= ends, 0)
    second = (places >= ASKED) & (places < ends)
    return tokens, second.long(), (second & (places < ends - 1)).long()


def test_it_answers_with_both_ends_within_the_context() -> None:
    found = net()(*rows())
    assert found.shape == (2, 12, 2)
    open_BT = found.isfinite().all(2)
    assert open_BT.tolist() == [
        [t == 0 or ASKED <= t < length - 1 for t in range(12)] for length in (12, 9)
    ]  # fmt: skip


def test_parameters_are_counted() -> None:
    lstm = 2 * 4 * 7 * (8 + 4 + 7 + 2)
    pool = 14 * 14 + 14 + 14
    assert sum(p.numel() for p in net().parameters()) == 30 * 8 + 3 * 4 + lstm + pool + 14 * 28


def test_padding_changes_nothing_and_an_empty_row_gives_no_nan() -> None:
    model = net().double()
    short, long = model(*rows()), model(*(nn.functional.pad(x, (0, 5)) for x in rows()))
    torch.testing.assert_close(long[:, :12], short)
    assert not long[:, 12:].isfinite().any()
    empty = torch.zeros(2, 6, dtype=torch.int64)
    assert not model(empty, empty, empty).isnan().any()


def test_a_word_of_the_question_is_known_in_the_context() -> None:
    tokens, segments, context = rows((12,))
    tokens[0, 6] = tokens[0, 2]  # asked for, and there
    model = net()
    sides = model._sides(tokens, (segments == 0) & (tokens != 0), context)
    asked = set(tokens[0, :ASKED].tolist())
    for place, side in enumerate(sides[0].tolist()):
        inside = bool(context[0, place])
        assert side == inside + (inside and int(tokens[0, place]) in asked)
    assert sides[0, 6] == 2


def test_the_question_decides() -> None:
    tokens, segments, context = rows((12, 12))
    tokens[1, ASKED:] = tokens[0, ASKED:]
    found = net()(tokens, segments, context)
    assert not torch.allclose(found[0, ASKED:11], found[1, ASKED:11])


def test_it_learns_to_find_the_word_that_was_asked_for() -> None:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.stack([torch.randperm(27, generator=draw)[:12] + 3 for _ in range(64)])
    at = torch.randint(ASKED, 11, (64,), generator=draw)
    tokens[:, 2] = tokens[torch.arange(64), at]
    second = (torch.arange(12) >= ASKED).expand(64, 12)
    context = second & (torch.arange(12) < 11)
    batch = Batch({"tokens": tokens, "segments": second.long(), "context": context.long()},
                  torch.stack([at, at], 1))  # fmt: skip
    model, task = net(width=16), tasks.answer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = task.phases[0].loss(model, batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    found = task.forward(model, batch)
    assert (found[:, :2] == batch.target).all(1).float().mean() > 0.9  # by chance: 1 of 7


def test_other_data_is_refused() -> None:
    with pytest.raises(ModelError, match="data that is not questions with contexts"):
        models.build("bilstm-reader", Signature(vocab=30, length=9, outputs=2))
