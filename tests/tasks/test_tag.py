"""The task of tagging: losses, best tags, and how they are said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gipi import tasks
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError
from gipi.core.schema import Field, Schema
from gipi.nn import Chain, chain_loss

TAGS = ("O", "B-PER", "I-PER")
SCHEMA = Schema((Field("tags", "tags", "target", classes=TAGS),), "tag")


class Given(nn.Module):
    """Says what it was made with."""

    def __init__(self, found: Chain | Tensor) -> None:
        super().__init__()
        self.found = found

    def forward(self, *_: Tensor) -> Chain | Tensor:
        return self.found


def batch() -> Batch:
    words = torch.tensor([[4, 5, 6], [7, 0, 0]])
    return Batch({"words": words}, torch.tensor([[1, 2, 0], [0, -100, -100]]), rows=2)


def scores() -> Tensor:
    return torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))


def test_logits_are_judged_word_by_word() -> None:
    loss = tasks.tag().phases[0].loss(Given(scores()), batch())
    wanted = F.cross_entropy(scores().flatten(0, 1)[:4], torch.tensor([1, 2, 0, 0]),
                             reduction="sum")  # fmt: skip
    torch.testing.assert_close(loss.total, wanted)
    assert int(loss.count) == 4
    assert loss.outputs.tolist()[1][1:] == [0, 0]
    assert (loss.outputs[0] == scores()[0].argmax(-1) + 1).all()


def test_a_chain_is_judged_as_a_whole() -> None:
    pair = torch.tensor([[0.0, 0, -9], [0, 0, 0], [0, 0, 0]])
    found = Chain(scores(), pair, torch.zeros(3), torch.zeros(3))
    one = batch()
    loss = tasks.tag().phases[0].loss(Given(found), one)
    assert one.target is not None
    assert float(loss.total) == float(chain_loss(found, one.target)[0])
    assert int(loss.count) == 4


def test_prediction_tags_the_words_and_nothing_else() -> None:
    task = tasks.tag()
    found = task.forward(Given(scores()), batch())
    assert (found[1, 1:] == 0).all()
    said = task.decode(found, SCHEMA)["tags"]
    assert [len(row) for row in said] == [3, 1]
    pieces = Batch({"tokens": torch.tensor([[2, 5, 6]]), "starts": torch.tensor([[0, 1, 0]])}, None)
    assert task.decode(task.forward(Given(scores()[:1]), pieces), SCHEMA)["tags"][0] == [
        TAGS[int(scores()[0, 1].argmax())]
    ]


def test_the_score_is_that_of_entities() -> None:
    task = tasks.tag()
    names = [m.name for m in task.metrics(SCHEMA)]
    assert names == ["entity_f1", "token_accuracy"]
    assert (task.primary, task.outputs(SCHEMA)) == ("entity_f1", 3)
    metric = task.metrics(SCHEMA)[0]
    state = metric.init("cpu")
    said, truth = task.units(torch.tensor([[2.0, 3.0, 1.0]]), torch.tensor([[1, 2, 0]]), SCHEMA)
    metric.update(state, said, truth, None)
    assert metric.compute(state) == 1.0


def test_the_task_is_rebuilt_and_checks_its_options() -> None:
    task = tasks.tag(label_smoothing=0.1)
    assert tasks.build(*task.spec).spec == task.spec
    with pytest.raises(ConfigError, match="a number in"):
        tasks.tag(label_smoothing=1.0)
