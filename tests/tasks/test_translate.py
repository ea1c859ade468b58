"""Writing texts: the loss is that of target tokens, answers are those of a plain loop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sacrebleu
import torch
from tests.data.pairs import dataset
from torch.nn import functional as F

from gipi import models, tasks
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import IGNORED_TOKEN
from gipi.tasks.translate import WRONG, summarise, translate
from gipi.train import evaluate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.data import Dataset

SMALL = {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0, "positions": 40}
RECURRENT = {"topology": "encoder-decoder", "width": 12, "embedding": 10}


def made(name: str = "transformer", rows: int = 60) -> tuple[Dataset, nn.Module]:
    """Return data and a net for it, with weights large enough for answers that differ."""
    data = dataset(rows)
    options = SMALL if name == "transformer" else RECURRENT
    model = models.build(name, data.signature(translate().outputs(data.schema)), seed=3,
                         options=options)  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(1.6 if name == "transformer" else 4.0)
    return data, model.eval()


def batch_of(data: Dataset, size: int = 8) -> Batch:
    return next(iter(data.stream("train", batch_size=size).epoch(0)))


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    out: Tensor = model(*batch.inputs.values())
    return out


@pytest.mark.parametrize("name", ["transformer", "gru"])
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_that_of_the_target_tokens(name: str, training: bool) -> None:
    data, model = made(name)
    batch, task = batch_of(data), translate(label_smoothing=0.2)
    model.train(training)  # without dropout the outputs are the same
    assert batch.target is not None
    found = task.phases[0].loss(model, batch)
    logits, real = logits_of(model, batch), batch.target != IGNORED_TOKEN
    right = F.cross_entropy(logits[real], batch.target[real], reduction="sum",
                            label_smoothing=0.2 if training else 0.0)  # fmt: skip
    assert float(found.total.detach()) == pytest.approx(float(right.detach()), rel=1e-5)
    assert int(found.count) == int(real.sum())
    best = logits.argmax(-1)
    assert torch.equal(found.outputs == batch.target, (best == batch.target) & real)
    assert set(found.outputs[found.outputs != batch.target].tolist()) == {WRONG}


def test_a_model_that_cannot_pick_places_has_the_same_loss() -> None:
    class Plain(torch.nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, tokens: Tensor, target_in: Tensor) -> Tensor:
            out: Tensor = self.inner(tokens, target_in)
            return out

    data, model = made()
    batch = replace_weight(batch_of(data))
    loss = translate().phases[0].loss
    one, other = loss(model, batch), loss(Plain(model).eval(), batch)
    assert one.total.item() == pytest.approx(other.total.item(), rel=1e-5)
    assert one.count.item() == pytest.approx(other.count.item())  # type: ignore[union-attr]
    assert batch.target is not None
    real = batch.target != IGNORED_TOKEN
    assert torch.equal(one.outputs[real], other.outputs[real])


def test_a_model_that_cannot_be_asked_is_named() -> None:
    data, _ = made()
    task = translate()
    assert task.predict is not None
    with pytest.raises(
        ModelError, match=r"(?s)Linear cannot be asked for one token.*start\(source"
    ):
        task.predict(torch.nn.Linear(2, 2), batch_of(data), data.schema)


def replace_weight(batch: Batch) -> Batch:
    return replace(batch, weight=torch.arange(1.0, len(batch) + 1))


def test_a_row_of_weight_two_is_the_row_twice() -> None:
    data, model = made()
    batch, loss = batch_of(data, 4), translate().phases[0].loss
    doubled = loss(model, replace(batch, weight=torch.tensor([1.0, 2.0, 1.0, 1.0])))
    alone = loss(model, batch.slice(1, 2))
    whole = loss(model, batch)
    assert doubled.total.item() == pytest.approx((whole.total + alone.total).item(), rel=1e-5)
    assert float(doubled.count) == float(whole.count + alone.count)


@pytest.mark.parametrize("name", ["transformer", "gru"])
def test_padding_changes_nothing(name: str) -> None:
    data, model = made(name)
    batch = batch_of(data)
    pad = data.signature(1).pad
    assert batch.target is not None
    wide = replace(
        batch,
        inputs={k: F.pad(v, (0, 9), value=pad) for k, v in batch.inputs.items()},
        target=F.pad(batch.target, (0, 9), value=IGNORED_TOKEN),
    )
    loss = translate().phases[0].loss
    same = loss(model, batch).total.item()
    assert loss(model, wide).total.item() == pytest.approx(same, rel=1e-5)
    assert said(model, wide, data, beams=2) == said(model, batch, data, beams=2)


def said(model: nn.Module, batch: Batch, data: Dataset, **options: Any) -> list[list[int]]:
    task = translate(**options)
    assert task.predict is not None
    out = task.predict(model, batch, data.schema)
    pad = data.signature(1).pad
    return [[i for i in row if i != pad] for row in out.tolist()]


@pytest.mark.parametrize("name", ["transformer", "gru"])
def test_greedy_is_the_plain_loop(name: str) -> None:
    data, model = made(name)
    batch = batch_of(data, 6)
    stats = data.schema.inputs[0].stats
    begin, end, pad = stats["begin"], stats["end"], stats["pad"]
    most = data.schema.of("target")[0].stats["length"]
    found = []
    for source in batch.inputs["tokens"]:
        row = source[source != pad][None]
        written = [begin]
        while len(written) <= most:
            scores = logits_of_row(model, row, written)
            scores[[pad, begin]] = -torch.inf
            token = int(scores.argmax())
            if token == end:
                break
            written.append(token)
        found.append(written[1:])
    assert said(model, batch, data, beams=1) == found
    assert len({tuple(row) for row in found}) > 1  # else any constant would pass


@torch.no_grad()
def logits_of_row(model: nn.Module, source: Tensor, written: list[int]) -> Tensor:
    out: Tensor = model(source, torch.tensor([written]))
    return out[0, -1]


def test_beams_find_answers_at_least_as_likely() -> None:
    data, model = made()
    batch = batch_of(data, 12)
    stats = data.schema.inputs[0].stats

    def likelihood(rows: list[list[int]]) -> Tensor:
        scores = []
        for source, row in zip(batch.inputs["tokens"], rows, strict=True):
            whole = [stats["begin"], *row]
            with torch.no_grad():
                logp = model(source[source != stats["pad"]][None], torch.tensor([whole]))[0]
            logp[:, [stats["pad"], stats["begin"]]] = -torch.inf
            labels = torch.tensor([*row, stats["end"]])[: len(whole)]
            scores.append(logp.log_softmax(-1)[torch.arange(len(labels)), labels].mean())
        return torch.stack(scores)

    most = data.schema.of("target")[0].stats["length"]
    greedy, wide = (said(model, batch, data, beams=beams) for beams in (1, 6))
    ended = [len(a) < most and len(b) < most for a, b in zip(greedy, wide, strict=True)]
    better = likelihood(wide) - likelihood(greedy)
    assert any(ended)
    assert float(better[ended].mean()) >= -1e-5


def test_bleu_is_that_of_sacrebleu_on_what_was_decoded() -> None:
    data, model = made(rows=120)
    task = translate(beams=2)
    stream = data.stream("train", batch_size=16, shuffle=False)
    judged = evaluate(model, task, stream, schema=data.schema, keep=True)
    assert judged.said is not None
    assert judged.outputs is None
    texts, right = list(judged.said.texts), list(judged.said.references)
    assert len(texts) == len(data.splits["train"]) == judged.rows
    assert right == [data.raw([i])[0]["back"] for i in judged.said.ids.tolist()]
    expected = sacrebleu.corpus_bleu(texts, [right], force=True).score
    assert judged.metrics["bleu"] == pytest.approx(expected, abs=1e-6)
    assert 0 < judged.metrics["bleu"] < 100


def test_some_rows_are_answered_evenly_and_quickly() -> None:
    data, model = made(rows=120)
    task = translate(beams=3)
    stream = data.stream("train", batch_size=16, shuffle=False)
    some = evaluate(model, task, stream, schema=data.schema, keep=True, answers=10)
    assert some.said is not None
    assert len(some.said.texts) == 10
    order = {int(i): k for k, b in enumerate(stream.epoch(0)) for i in b.ids}  # type: ignore[union-attr]
    assert len({order[i] for i in some.said.ids.tolist()}) >= 5  # from all over the stream
    greedy = evaluate(model, translate(beams=1), stream, schema=data.schema, keep=True)
    assert greedy.said is not None
    texts = dict(zip(greedy.said.ids.tolist(), greedy.said.texts, strict=True))
    assert [texts[i] for i in some.said.ids.tolist()] == list(some.said.texts)
    none = evaluate(model, task, stream, schema=data.schema, answers=0)
    assert "bleu" not in none.metrics
    assert none.metrics["loss"] == pytest.approx(some.metrics["loss"])


def test_summaries_are_scored_by_rouge() -> None:
    data, model = made()
    stream = data.stream("val", batch_size=16, shuffle=False)
    found = evaluate(model, summarise(beams=1), stream, schema=data.schema)
    assert 0 <= found.metrics["rouge_l"] <= 1
    assert list(found.metrics) == ["loss", "token_accuracy", "rouge_l", "bleu"]


def test_the_task_is_rebuilt_from_its_spec() -> None:
    task = translate(beams=2, length_penalty=0.6, words="char", metric="loss", max_new_tokens=9)
    again = tasks.build(*task.spec)
    assert again.spec == task.spec
    assert tasks.build(*summarise(beams=1).spec).spec == summarise(beams=1).spec


@pytest.mark.parametrize(
    ("options", "words"),
    [({"label_smoothing": 1.0}, r"task.label_smoothing=1.0.*\[0, 1\)"),
     ({"beams": 0}, "task.beams=0.*from 1 up"),
     ({"max_new_tokens": 0}, "task.max_new_tokens=0.*at least 1"),
     ({"metric": "bleu"}, "task.metric='bleu' cannot decide.*token_accuracy, loss"),
     ({"words": "moses"}, "task.words='moses'.*13a, char, none")],
)  # fmt: skip
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        translate(**options)
