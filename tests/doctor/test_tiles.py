"""Images whose tiles are tokens of an attention: order that is not seen, and places for them."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import experiment, findings, seen
from torch import nn

from gipi.doctor.experiment import call
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair
from gipi.doctor.rules.missing_position import RULE
from gipi.doctor.tiles import grids, placed, rearranged


class Tiled(nn.Module):
    """A small vision transformer: tiles become tokens by a convolution or by a linear layer."""

    def __init__(self, *, places: bool, how: str = "conv", token: bool = False) -> None:
        super().__init__()
        self.how, width = how, 24
        make = {"conv": lambda: nn.Conv2d(1, width, 2, 2), "linear": lambda: nn.Linear(4, width),
                "signal": lambda: nn.Conv1d(1, width, 4, 4)}  # fmt: skip
        self.tile = make[how]()
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if token else None
        self.place = nn.Parameter(0.3 * torch.randn(9, width)) if places else None
        self.look = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2))

    def forward(self, x):
        if self.how == "linear":
            h = self.tile(x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(1, 3).flatten(2))
        else:
            h = self.tile(x).flatten(2).transpose(1, 2)
        if self.place is not None:
            h = h + self.place
        if self.token is not None:
            h = torch.cat([self.token.expand(len(h), 1, -1), h], 1)
        h = h + self.look(h, h, h, need_weights=False)[0]
        return self.head(h[:, 0] if self.token is not None else h.mean(1))


def spots(*, where: bool, rows=480, signal=False):
    """Return images of two bright tiles: the class is where they lie, or how bright they are."""
    g = torch.Generator().manual_seed(0)
    X = 0.2 * torch.randn(rows, 9, 4, generator=g)
    y = torch.randint(2, (rows,), generator=g)
    at = torch.randint(0, 4, (rows,), generator=g) + (5 * y if where else 2)
    X[torch.arange(rows), at] += torch.where(y > 0, 1.0, 2.0 - where)[:, None]
    if signal:
        X = X.reshape(rows, 1, 36)
    else:
        X = X.reshape(rows, 3, 3, 2, 2).permute(0, 1, 3, 2, 4).reshape(rows, 1, 6, 6)
    return (X[:360], y[:360]), (X[360:], y[360:])


@pytest.mark.parametrize("given", [
    {"how": "conv"}, {"how": "linear"}, {"how": "signal"}, {"how": "conv", "token": True},
])  # fmt: skip
def test_a_vision_transformer_without_places_is_named_where_they_tell(given) -> None:
    data = spots(where=True, signal=given["how"] == "signal")
    torch.manual_seed(0)
    exp = experiment(Tiled(places=False, **given), data, lr=3e-3, epochs=6)
    assert findings(exp, RULE) == []  # nothing is tried before the run
    found = seen(exp, RULE, train=True).findings[0]
    assert (found.severity, found.confirmed) == ("problem", True)
    assert found.evidence["places"] == 9
    found.repair.change(exp)
    assert findings(exp, RULE, train=True) == []
    torch.manual_seed(0)
    assert findings(experiment(Tiled(places=True, **given), data), RULE) == []


def test_a_bag_of_tiles_that_needs_no_order_is_silent() -> None:
    torch.manual_seed(0)
    exp = experiment(Tiled(places=False), spots(where=False), lr=3e-3, epochs=6)
    assert findings(exp, RULE, train=True) == []


def test_tiles_that_tell_nothing_are_not_named_by_chance() -> None:
    (X, y), (V, w) = spots(where=True, signal=True)
    g = torch.Generator().manual_seed(1)
    noise = [(Z, torch.randint(2, a.shape, generator=g)) for Z, a in ((X, y), (V, w))]
    torch.manual_seed(0)
    exp = experiment(Tiled(places=False, how="signal"), tuple(noise), lr=3e-3, epochs=3)
    diagnosis = seen(exp, RULE, train=True)
    assert diagnosis.findings == []
    assert diagnosis.passes <= exp.total_steps + 20


def test_tiles_change_places_and_nothing_else() -> None:
    x = torch.arange(72.0).reshape(2, 1, 6, 6)
    other = rearranged(x, (3, 2))
    assert other is not None
    assert torch.equal(other.flatten(1).sort().values, x.flatten(1))
    corner = other.unfold(2, 2, 2).unfold(3, 3, 3)[0, 0].flatten(0, 1)
    assert {tuple(t.flatten().tolist()) for t in corner} == {
        tuple(t.flatten().tolist()) for t in x.unfold(2, 2, 2).unfold(3, 3, 3)[0, 0].flatten(0, 1)
    }
    assert rearranged(torch.ones(2, 1, 6, 6), (3, 3)) is None


def test_square_tiles_are_tried_first() -> None:
    exp = experiment(Tiled(places=False), spots(where=True))
    facts = Facts(exp)
    assert grids(facts, facts.few)[0] == (3, 3)
    assert grids(facts, facts.few[:, 0].long()) == []


def test_every_tile_gets_its_own_place() -> None:
    exp = experiment(Tiled(places=False), spots(where=True))
    placed((3, 3))(exp)
    place = exp.model.tile.place
    assert len(torch.unique(place, dim=0)) == 9
    assert call(exp.model, exp.train[0][:4]).shape == (4, 2)
    with pytest.raises(CannotRepair, match="tiles"):
        placed((5, 5))(exp)


def test_a_row_of_several_fields_breaks_no_rule() -> None:
    class Fields(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.value = nn.Embedding(12, 16), nn.Embedding(3, 16)
            self.look = nn.MultiheadAttention(16, 2, batch_first=True)
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            h = self.key(x[:, :4]) + self.value(x[:, 4:])
            h = torch.cat([h, h], 1)
            return self.head(self.look(h, h, h)[0].mean(1))

    X = torch.cat([torch.randint(3, 12, (80, 4)), torch.randint(0, 3, (80, 4))], 1)
    y = torch.randint(2, (80,))
    exp = experiment(Fields(), ((X[:60], y[:60]), (X[60:], y[60:])))
    assert list(RULE.before(Facts(exp))) == []
