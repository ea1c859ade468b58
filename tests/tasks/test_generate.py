"""The next token: the loss is what the formula says, weights count rows, padding counts nowhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from tests.data.prose import prose
from torch import nn

from gipi import models, tasks
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError
from gipi.core.schema import Field, Schema, Signature
from gipi.data import DataOptions, open_data, tokenizer_of
from gipi.deploy.score import score
from gipi.losses import token_losses

if TYPE_CHECKING:
    from pathlib import Path

V = 7


class Table(nn.Module):
    """The scores of the next token are a row of a table."""

    def __init__(self, vocab: int = V) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.scores = nn.Embedding(vocab, vocab)
        self.scores.weight.data = torch.randn(vocab, vocab, generator=draw)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.scores(tokens_BT)
        return found

    def read(self, texts: object) -> None: ...


def batch(weight: torch.Tensor | None = None) -> Batch:
    tokens = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 0]])
    target = torch.tensor([[1, 2, 3, 4], [5, 6, -100, -100]])
    return Batch({"tokens": tokens}, target, weight, torch.arange(2), 2)


def test_the_loss_is_the_mean_surprise_of_predicted_tokens() -> None:
    model, task = Table(), tasks.generate()
    loss = task.phases[0].loss(model, batch())
    p = model.scores.weight.detach().log_softmax(-1)
    wanted = -sum(float(p[a, a + 1]) for a in range(6))
    assert float(loss.total.detach()) == pytest.approx(wanted, rel=1e-5)
    assert float(loss.count) == 6
    assert loss.outputs.shape == (2, 4)
    assert loss.outputs[1, 2:].tolist() == [0, 0]
    weighted = task.phases[0].loss(model, batch(torch.tensor([2.0, 0.0])))
    wanted = -2 * sum(float(p[a, a + 1]) for a in range(4))
    assert float(weighted.total.detach()) == pytest.approx(wanted, rel=1e-5)
    assert float(weighted.count) == 8


def test_smoothing_changes_what_is_learned_and_not_what_is_measured() -> None:
    model = Table()
    plain = tasks.generate().phases[0].loss(model, batch())
    smooth = tasks.generate(label_smoothing=0.1).phases[0].loss(model, batch())
    assert float(smooth.total.detach()) != pytest.approx(float(plain.total.detach()))
    assert torch.equal(smooth.outputs, plain.outputs)
    assert tasks.build("generate", {"label_smoothing": 0.1}).spec[1] == {"label_smoothing": 0.1}


def test_losses_of_tokens_in_half_precision_are_those_of_float32() -> None:
    logits = torch.randn(2, 4, V, generator=torch.Generator().manual_seed(1)).bfloat16()
    target = torch.tensor([[1, 2, 3, 4], [5, 6, -100, -100]])
    assert torch.equal(token_losses(logits, target), token_losses(logits.float(), target))


def test_metrics_agree_with_the_score_of_the_same_text(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(prose(200), encoding="utf-8")
    data = open_data(str(path), DataOptions(task="generate", max_length=512, test=0.0))
    task = tasks.generate()
    model = Table(task.outputs(data.schema))
    one = next(iter(data.stream("val", batch_size=1).epoch(0)))
    with torch.no_grad():
        loss = task.phases[0].loss(model, one)
    found = {}
    for metric in task.metrics(data.schema):
        state = metric.init(torch.device("cpu"))
        metric.update(state, loss.outputs, one.target, None)  # type: ignore[arg-type]
        found[metric.name] = metric.compute(state)
    tokenizer = tokenizer_of(data.schema)
    assert one.target is not None
    ids = [*one.inputs["tokens"][0, :1].tolist(), *one.target[0].tolist()]

    class Steps:
        context = None

        def read(self, texts: list[list[int]]) -> torch.Tensor:
            return model(torch.tensor([list(t) for t in texts])).detach()

        start = step = reorder = history = read

    judged = score(Steps(), tokenizer, [tokenizer.decode(ids)])  # type: ignore[arg-type]
    assert found["perplexity"] == pytest.approx(judged.perplexity, rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(judged.bits_per_byte, rel=1e-4)
    nats = float(loss.total.detach()) / float(loss.count)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2), rel=1e-4)  # ASCII


def test_a_wrong_option_and_data_without_text_are_named() -> None:
    with pytest.raises(ConfigError, match=r"task\.label_smoothing=1"):
        tasks.generate(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="0 columns of text"):
        tasks.generate().outputs(Schema((Field("x", "number", "input"),)))


def test_a_large_vocabulary_is_never_all_held_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = models.build(
        "gpt2", Signature(vocab=V, length=4, outputs=V), options={"width": 8, "heads": 2}
    )
    one = batch(torch.tensor([2.0, 0.5]))
    found = []
    for least in (V + 1, V):
        monkeypatch.setattr("gipi.models.from_tokens.FUSED_FROM", least)
        made.zero_grad()
        loss = tasks.generate().phases[0].loss(made, one)
        (loss.total / loss.count).backward()
        grads = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
        found.append((loss.total.detach(), loss.count, loss.outputs.detach(), grads))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(torch.as_tensor(fused), torch.as_tensor(plain))
