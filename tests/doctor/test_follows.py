"""A net of sequences should beat a table of single tokens; what nobody can tell is left alone."""

from __future__ import annotations

import math

import pytest
import torch
from tests.doctor.patients import experiment, seen
from torch import Tensor, nn

from gipi.doctor.facts import Facts
from gipi.doctor.follows import loss_of_table
from gipi.doctor.rules.underfit import RULE

KINDS = 24


class Reader(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.table, self.rnn = nn.Embedding(KINDS, 16), nn.GRU(16, hidden, batch_first=True)
        self.head = nn.Linear(hidden, KINDS)

    def forward(self, t: Tensor) -> Tensor:
        return self.head(self.rnn(self.table(t))[0])


def walks(order: float):
    """Return tokens with the next ones: a share of steps goes on in a fixed order."""
    g = torch.Generator().manual_seed(0)
    after, t = torch.randperm(KINDS, generator=g), torch.randint(KINDS, (600, 17), generator=g)
    for i in range(1, 17):
        goes = torch.rand(600, generator=g) < order
        t[:, i] = torch.where(goes, after[t[:, i - 1]], t[:, i])
    return (t[:400, :-1], t[:400, 1:]), (t[400:, :-1], t[400:, 1:])


def run(hidden: int, order: float):
    torch.manual_seed(0)
    exp = experiment(Reader(hidden), walks(order), lr=0.01, epochs=6)
    exp.loss = lambda said, y: nn.functional.cross_entropy(said.flatten(0, 1), y.flatten())
    return exp


def test_two_units_that_a_table_beats_are_named() -> None:
    (found,) = seen(run(2, 0.8), RULE, train=True).findings
    assert (found.code, found.severity, found.confirmed) == ("underfit", "problem", True)
    assert found.evidence["table_on_new_rows"] < found.evidence["train"]


@pytest.mark.parametrize(("hidden", "order"), [(32, 0.8), (2, 0.0)])
def test_nets_that_do_as_well_are_left_alone(hidden: int, order: float) -> None:
    assert seen(run(hidden, order), RULE, train=True).findings == []


def test_a_table_is_as_good_as_what_a_token_tells_of_the_next() -> None:
    right, wrong = 0.8 + 0.2 / KINDS, 0.2 / KINDS
    entropy = -right * math.log(right) - (KINDS - 1) * wrong * math.log(wrong)
    assert loss_of_table(Facts(run(2, 0.8))) == pytest.approx(entropy, rel=0.05)
    assert loss_of_table(Facts(run(2, 0.0))) > 0.99 * math.log(KINDS)


def test_numbers_have_no_table() -> None:
    exp = experiment(nn.Linear(8, 1), ((torch.randn(64, 8), torch.randn(64, 1)), None))
    assert math.isnan(loss_of_table(Facts(exp)))
