"""Tasks made of running text: what they ask, what they count, and what a teacher adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gipi import losses, models, tasks
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError, DataError, ModelError
from gipi.core.schema import Signature
from gipi.data.objectives import SpanRule
from gipi.data.pretext import (
    Marks,
    PretextStream,
    marks_of,
    masked_rows,
    paired_rows,
    span_rows,
)
from gipi.metrics import follows_accuracy, hidden_accuracy, hidden_perplexity
from gipi.models import every_second
from gipi.tasks.pretrain import taught
from gipi.text import train_tokenizer

V, T = 40, 20
MARKS = Marks(begin=2, separator=3, mask=4, pad=0, end=5, special=(0, 1, 2, 3, 4, 5), vocab=V)
SIGN = Signature(vocab=V, length=T, pad=0, outputs=V)


def text(total: int = 600, *, documents: int = 6) -> np.ndarray:
    """Return tokens in which one tells the next, with documents."""
    tokens = (np.arange(total) * 7 % (V - 6) + 6).astype(np.uint16)
    tokens[:: total // documents] = 5
    return tokens


def same() -> np.ndarray:
    """Return windows of one token each."""
    return np.repeat(np.arange(64) % (V - 6) + 6, T - 2).astype(np.uint16)


def net(head: str = "words", *, layers: int = 2, seed: int = 0) -> nn.Module:
    """Return a tiny encoder."""
    options = {"width": 16, "layers": layers, "heads": 2, "head": head, "dropout": 0.0}
    return models.build("bert", SIGN, seed=seed, options=options)


def batches(rows: int = 8, **more: object) -> list[Batch]:
    """Return the batches of one epoch of masked windows."""
    number, make = masked_rows(text(), MARKS, length=T, seed=0, **more)  # type: ignore[arg-type]
    return list(PretextStream(number, make, batch_size=rows).epoch(0))


def test_masked_rows_are_framed_windows_that_can_be_put_together_again() -> None:
    tokens = text()
    number, make = masked_rows(tokens, MARKS, length=T, seed=0)
    assert number == len(tokens) // (T - 2)
    inputs, target = make(torch.arange(number), 0)
    rows, at = inputs["tokens"].clone(), inputs["positions"]
    assert bool((rows[:, 0] == 2).all() and (rows[:, -1] == 3).all())
    asked = target != -100
    full = rows.scatter(1, at, torch.where(asked, target, rows.gather(1, at)))
    assert torch.equal(full[:, 1:-1].flatten(), torch.from_numpy(
        tokens[: number * (T - 2)].astype(np.int64)))  # fmt: skip
    again, _ = make(torch.tensor([3]), 0)
    assert torch.equal(again["tokens"][0], inputs["tokens"][3])  # a row does not see its batch
    other, _ = make(torch.tensor([3]), 1)
    assert not torch.equal(other["tokens"], again["tokens"])


def test_rows_without_room_for_a_pair_are_named() -> None:
    with pytest.raises(ConfigError, match="max_length=4 for pairs of texts"):
        paired_rows(text(), MARKS, length=4, seed=0)


def test_whole_words_are_hidden_together() -> None:
    tokens = text()
    words = np.arange(len(tokens)) // 2
    number, make = masked_rows(tokens, MARKS, length=T, seed=0, words=words)
    inputs, target = make(torch.arange(number), 0)
    for row, at, said in zip(range(number), inputs["positions"], target, strict=True):
        places = (at[said != -100] - 1 + row * (T - 2)).tolist()
        ordinary = {p for p in places if tokens[p] not in MARKS.special}
        for p in ordinary:
            mate = p ^ 1
            inside = row * (T - 2) <= mate < (row + 1) * (T - 2)
            assert not inside or tokens[mate] in MARKS.special or mate in ordinary


def test_pairs_follow_or_do_not() -> None:
    number, make = paired_rows(text(), MARKS, length=T, seed=0)
    inputs, target = make(torch.arange(number), 0)
    assert set(target[:, -1].tolist()) == {0, 1}
    assert inputs["segments"].max() == 1
    assert inputs["tokens"].shape == (number, T)
    with pytest.raises(DataError) as error:
        paired_rows(text()[text() != 5], MARKS, length=T, seed=0)
    assert "without a token between its documents" in error.value.found


def test_spans_shift_their_target() -> None:
    rule = SpanRule(tuple(range(V - 1, V - 9, -1)), end=5, pad=0)
    number, make = span_rows(text(), rule, length=T, seed=0)
    inputs, target = make(torch.arange(number), 0)
    assert torch.equal(inputs["target_in"][:, 1:], target[:, :-1])
    assert bool((inputs["target_in"][:, 0] == 0).all())
    with pytest.raises(DataError) as error:
        span_rows(text()[:5], rule, length=T, seed=0)
    assert "at least 20, one window" in error.value.needed


def test_a_stream_is_the_same_for_any_number_of_ranks_and_goes_on_anywhere() -> None:
    number, make = masked_rows(text(), MARKS, length=T, seed=0)
    whole = list(PretextStream(number, make, batch_size=8, seed=3).epoch(1))
    parts = [list(PretextStream(number, make, batch_size=8, seed=3, rank=r, world=3).epoch(1))
             for r in range(3)]  # fmt: skip
    for step, batch in enumerate(whole):
        shares = [p[step] for p in parts if p[step].weight is None]
        assert torch.equal(torch.cat([b.inputs["tokens"] for b in shares]), batch.inputs["tokens"])
        assert {b.rows for b in shares} == {len(batch)}
    rest = list(PretextStream(number, make, batch_size=8, seed=3).epoch(1, skip=2))
    assert torch.equal(rest[0].inputs["tokens"], whole[2].inputs["tokens"])


@pytest.mark.parametrize("task", [tasks.masked(), tasks.masked(next_sentence=True)])
def test_micro_batches_change_neither_loss_nor_gradient(task: tasks.Task) -> None:
    pairs = task.spec[1]["next_sentence"]
    make_rows = paired_rows if pairs else masked_rows
    number, make = make_rows(text(), MARKS, length=T, seed=0)
    batch = next(PretextStream(number, make, batch_size=9).epoch(0))
    model = net("pretrain" if pairs else "words").double()
    whole = task.phases[0].loss(model, batch)
    whole.total.backward()
    slope = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    parts = [task.phases[0].loss(model, piece) for piece in batch.split(2)]
    sum(p.total for p in parts).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(sum(p.total.item() for p in parts), whole.total.item())
    assert sum(float(p.count) for p in parts) == float(whole.count)
    for a, p in zip(slope, [p for p in model.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(p.grad, a, rtol=1e-9, atol=1e-12)


def test_the_loss_is_that_of_a_head_at_every_place() -> None:
    batch, model = batches()[0], net()
    found = tasks.masked().phases[0].loss(model, batch)
    out = model.body(batch.inputs["tokens"], batch.inputs["tokens"].ne(0)).logits
    labels = torch.full(batch.inputs["tokens"].shape, -100)
    assert batch.target is not None
    asked = batch.target != -100
    row = torch.arange(len(labels))[:, None].expand_as(asked)[asked]
    labels[row, batch.inputs["positions"][asked]] = batch.target[asked]
    total = F.cross_entropy(out.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(found.total, total)
    assert float(found.count) == float((labels != -100).sum())
    right = ((out.argmax(-1) == labels) & (labels != -100)).sum()
    accuracy, perplexity = hidden_accuracy(), hidden_perplexity()
    for metric, value in ((accuracy, right / found.count), (perplexity,
                          (total / found.count).exp())):  # fmt: skip
        state = metric.init("cpu")
        metric.update(state, found.outputs, batch.target, None)
        assert metric.compute(state) == pytest.approx(value.item(), rel=1e-5)


def test_whether_texts_follow_is_measured_only_where_it_was_asked() -> None:
    rows = torch.tensor([[1.0, 1, 2, 1], [1, 0, 2, 0], [1, 1, 1, torch.nan]])
    metric = follows_accuracy()
    state = metric.init("cpu")
    metric.update(state, rows, torch.zeros(3), None)
    assert metric.compute(state) == 0.5


def test_a_tiny_net_learns_hidden_tokens_and_a_student_from_its_teacher() -> None:
    """Every window says one token again and again: a hidden one is what the others are."""
    task, teacher = tasks.masked(), net(layers=4)
    _train(teacher, task, 100)
    good = _score(teacher, task)
    student = net(layers=2, seed=1)
    assert every_second(student.body, teacher.body) == 2
    torch.testing.assert_close(student.body.encoder.blocks[1].feed.up.weight,
                               teacher.body.encoder.blocks[2].feed.up.weight)  # fmt: skip
    before = [p.clone() for p in teacher.parameters()]
    lesson = taught(task, teacher)
    _train(student, lesson, 40)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert good < 1.0
    assert _score(student, lesson) < 1.0  # chance: log 34 = 3.5


def _train(model: nn.Module, task: tasks.Task, steps: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    number, make = masked_rows(same(), MARKS, length=T, seed=0)
    stream, epoch = PretextStream(number, make, batch_size=32), 0
    while steps > 0:
        for batch in stream.epoch(epoch):
            loss = task.phases[0].loss(model, batch)
            optimizer.zero_grad()
            (loss.total / loss.count).backward()
            optimizer.step()
            steps -= 1
        epoch += 1


def _score(model: nn.Module, task: tasks.Task) -> float:
    with torch.no_grad():
        model.eval()
        number, make = masked_rows(same(), MARKS, length=T, seed=0)
        batch = next(PretextStream(number, make, batch_size="full").epoch(9))
        found = task.phases[0].loss(model, batch)
    return float(found.total / found.count)


def test_the_teacher_teaches_all_three_parts_at_hidden_places() -> None:
    batch, student, teacher = batches()[0], net(), net(seed=5)
    student.train()
    found = taught(tasks.masked(), teacher).phases[0].loss(student, batch)
    out, said = student(*batch.inputs.values()), teacher(*batch.inputs.values())
    assert batch.target is not None
    asked = batch.target != -100
    total, count = losses.distil_triple(
        out.logits[asked], batch.target[asked], teacher=said.logits[asked],
        hidden=out.hidden[asked], teacher_hidden=said.hidden[asked],
    )  # fmt: skip
    torch.testing.assert_close(found.total, total)
    assert float(found.count) == float(count)


def test_t5_writes_spans() -> None:
    rule = SpanRule(tuple(range(V - 1, V - 9, -1)), end=5, pad=0)
    number, make = span_rows(text(), rule, length=T, seed=0)
    batch = next(PretextStream(number, make, batch_size=4).epoch(0))
    for gated in (False, True):
        options = {"width": 16, "layers": 1, "heads": 2, "buckets": 8, "gated": gated}
        model = models.build("t5", SIGN, seed=0, options=options)
        loss = tasks.spans().phases[0].loss(model, batch)
        (loss.total / loss.count).backward()
        assert all(p.grad is not None for p in model.parameters())
        assert (loss.total / loss.count).item() < 2.5 * np.log(V)  # first weights say little
        again = models.build("t5", SIGN, seed=0, options=options)
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(),
                   again.state_dict().values(), strict=True))  # fmt: skip


# ------------------------------------------------------------------ what is refused


def test_what_cannot_be_is_refused_by_name() -> None:
    for call, words in (
        (lambda: tasks.masked(share=1.5), "task.share=1.5"),
        (lambda: tasks.masked(whole_words=True, next_sentence=True), "task.whole_words and"),
        (lambda: tasks.spans(density=0.0), "task.density=0.0"),
        (lambda: tasks.spans(mean_span=0.5), "task.mean_span=0.5"),
        (lambda: taught(tasks.spans(), net()), "a teacher for the task spans"),
        (lambda: masked_rows(text(), MARKS, length=2, seed=0), "max_length=2"),
    ):
        with pytest.raises(ConfigError) as error:
            call()
        assert words in error.value.found
    with pytest.raises(ModelError) as shape:
        every_second(net(layers=4).body, net(layers=2).body)
    assert "a student of 4 blocks" in shape.value.found
    bare = train_tokenizer(["a b c"] * 9, kind="bpe", vocab=300, special=("pad", "unk"))
    with pytest.raises(DataError) as lost:
        marks_of(bare)
    assert "no cls and no sep and no mask token" in lost.value.found
