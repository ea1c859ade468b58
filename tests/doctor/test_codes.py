"""Labels beside numbers are read as names: what they tell is found, and words are no columns."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import experiment
from torch import Tensor, nn

from gipi.doctor.codes import ask_labels, table_of
from gipi.doctor.facts import Facts
from gipi.doctor.sheet import silent

Batches = list[tuple[tuple[Tensor, Tensor], Tensor]]


class Labelled(nn.Module):
    """Numbers beside two labels, each with vectors of its own."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.one, self.two = nn.Embedding(levels, 8), nn.Embedding(levels, 8)
        self.head = nn.Linear(20, 1)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        said: Tensor = self.head(
            torch.cat([numbers, self.one(codes[:, 0]), self.two(codes[:, 1])], 1)
        )
        return said


class Read(nn.Module):
    """Words at places, and numbers beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(200, 8), nn.Linear(12, 1)

    def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
        said: Tensor = self.head(torch.cat([numbers, self.words(ids).mean(1)], 1))
        return said


def labelled(seed: int, *, share: float = 0.15, levels: int = 200, rows: int = 1600) -> Batches:
    """Return numbers that tell nothing, and labels one of which tells a share of the target."""
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, levels, (rows, 2), generator=g)
    effect = torch.randn(levels, generator=g)[codes[:, 0]]
    y = share**0.5 * effect + (1 - share) ** 0.5 * torch.randn(rows, generator=g)
    numbers = torch.randn(rows, 4, generator=g)
    cuts = [slice(i, i + 50) for i in range(0, rows, 50)]
    return [((numbers[c], codes[c]), y[c, None]) for c in cuts]


def facts_of(model: nn.Module, rows: Batches) -> Facts:
    return Facts(experiment(model, (rows, None)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_one_label_of_many_levels_tells_is_found(seed: int) -> None:
    assert not silent(facts_of(Labelled(200), labelled(seed)))
    assert silent(facts_of(Labelled(200), labelled(seed, share=0.0)))


def test_pairs_of_labels_are_asked_too() -> None:
    g = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 8, (800, 2), generator=g)
    Y = torch.randn(8, 8, generator=g)[codes[:, 0], codes[:, 1]][:, None]
    assert ask_labels(codes, Y + torch.randn(800, 1, generator=g)).found


def test_words_at_places_are_no_columns_unless_they_are_called_so() -> None:
    rows = labelled(0)
    labels, words = facts_of(Labelled(200), rows), facts_of(Read(), rows)
    found = table_of(labels)
    assert found is not None
    assert found[1] == (4, 5)
    assert table_of(words) is None
    assert not silent(facts_of(Read(), labelled(0, share=0.0)))  # nobody looked at the words
    named = experiment(Read(), (rows, None))
    named.declared = {"columns": list("abcdef")}
    assert table_of(Facts(named)) is not None
