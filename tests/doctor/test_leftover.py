"""What a simple learner finds in what a net leaves undone, whatever its loss and answers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, halves, images, mlp, seen
from torch import nn

from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.leftover import leftover
from gipi.doctor.play import play
from gipi.doctor.rules.underfit import RULE


def counts(rows: int = 900):
    """Return counts whose logarithm is curved."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 4, generator=g)
    rate = (1.2 * (2 * X[:, :1]).sin() + 0.6 * X[:, 1:2] * X[:, 2:3] + 0.6).clamp(-3, 3).exp()
    return halves(X, torch.poisson(rate, generator=g))


def spread(said, y):
    """Return the likelihood of numbers whose spread is told as well; it may be negative."""
    return (0.5 * said[:, 1:] + 0.5 * (y - said[:, :1]).square() * (-said[:, 1:]).exp()).mean()


def tags(rows: int = 900):
    """Return tags of a curved function."""
    g = torch.Generator().manual_seed(1)
    X = torch.randn(rows, 6, generator=g)
    return halves(X, ((X @ torch.randn(6, 12, generator=g)).tanh()
                      @ torch.randn(12, 4, generator=g) > 0).float())  # fmt: skip


def bent(rows: int = 700):
    """Return a function that is symmetric around zero, with little noise."""
    g = torch.Generator().manual_seed(4)
    X = torch.randn(rows, 8, generator=g)
    y = X[:, :1].abs() + X[:, 1:2].abs() - 1.6
    return halves(X, y + 0.1 * torch.randn(rows, 1, generator=g))


def spots(rows: int = 300, side: int = 12):
    """Return noisy pictures and masks of the places around which it is bright."""
    g = torch.Generator().manual_seed(2)
    y = (F.avg_pool2d(torch.randn(rows, 1, side, side, generator=g), 5, 1, 2) > 0.12).float()
    return halves(y + torch.randn(y.shape, generator=g), y)


def pairs(rows: int = 400):
    """Return tokens, and at every place what it is together with the one before."""
    g = torch.Generator().manual_seed(3)
    X = torch.randint(0, 10, (rows, 12), generator=g)
    return halves(X, (X + F.pad(X, (1, 0))[:, :-1]) % 4)


class Tagger(nn.Module):
    def __init__(self, cells: int) -> None:
        super().__init__()
        self.ids, self.body = nn.Embedding(10, 8), nn.GRU(8, cells, batch_first=True)
        self.head = nn.Linear(cells, 4)

    def forward(self, ids):
        return self.head(self.body(self.ids(ids))[0])


def by_place(said, y):
    return F.cross_entropy(said.flatten(0, 1), y.flatten())


def pixels(size: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, size, padding=size // 2), nn.ReLU(), nn.Conv2d(8, 1, 1))


CASES = {
    "counts": (counts, nn.PoissonNLLLoss(), lambda: nn.Linear(4, 1), lambda: mlp(4, 1, 48)),
    "spread": (bent, spread, lambda: nn.Linear(8, 2), lambda: mlp(8, 2, 48)),
    "tags": (tags, nn.BCEWithLogitsLoss(), lambda: mlp(6, 4, 1), lambda: mlp(6, 4, 48)),
    "masks": (spots, nn.BCEWithLogitsLoss(), lambda: pixels(1), lambda: pixels(3)),
    "tokens": (pairs, by_place, lambda: Tagger(2), lambda: Tagger(32)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_net_too_small_is_told_whatever_its_loss_and_answers(name) -> None:
    data, loss, small, large = CASES[name]
    for net, told in ((small, ["underfit"]), (large, [])):
        torch.manual_seed(0)
        exp = experiment(net(), data(), loss=loss, lr=0.02, epochs=12, batch_size=16)
        assert [f.code for f in seen(exp, RULE, train=True).findings] == told


def test_a_net_that_pools_the_place_away_is_told() -> None:
    torch.manual_seed(0)
    blind = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(8, 4))  # fmt: skip
    found = seen(experiment(blind, images(), epochs=6), RULE, train=True).problems
    assert [f.code for f in found] == ["underfit"]


def ended(net: nn.Module, data, loss, epochs: int = 4):
    torch.manual_seed(0)
    exp = experiment(net, data, loss=loss, epochs=epochs)
    twin = duplicate(exp)
    play(twin, quiet=True)
    return leftover(Facts(twin, start=Facts(exp)))


def test_answers_that_are_shares_stay_shares() -> None:
    (X, y), (V, w) = blobs()
    logs = nn.Sequential(mlp(), nn.LogSoftmax(1))
    found = ended(logs, ((X, y), (V, w)), nn.NLLLoss())
    assert found is not None
    assert 0 <= found.then < found.blind
    chances = nn.Sequential(mlp(out=1), nn.Sigmoid())
    data = (X, (y > 1).float()[:, None]), (V, (w > 1).float()[:, None])
    found = ended(chances, data, nn.BCELoss())
    assert found is not None
    assert 0 <= found.then < found.blind


def test_noise_is_nothing_that_is_left() -> None:
    g = torch.Generator().manual_seed(0)
    data = halves(torch.randn(600, 8, generator=g), torch.randn(600, 1, generator=g))
    found = ended(mlp(out=1, hidden=2), data, nn.MSELoss())
    assert found is not None
    assert found.gain <= 3 * found.se


def test_what_all_answers_lack_alike_is_no_want_of_width() -> None:
    """A net that was shown classes in equal shares says too much of the rare one, by a constant."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(1200, 6, generator=g)
    y = (X @ torch.tensor([1.0, -1, 0.5, 0, 0, 0]) + torch.randn(1200, generator=g) > 2.2).long()
    drawn = torch.utils.data.WeightedRandomSampler((1 / y[:800].bincount())[y[:800]].tolist(), 800,
                                                   generator=g)  # fmt: skip
    rows = torch.utils.data.TensorDataset(X[:800], y[:800])
    loader = torch.utils.data.DataLoader(rows, 32, sampler=drawn)
    torch.manual_seed(0)
    exp = experiment(nn.Linear(6, 2), (loader, (X[800:], y[800:])), epochs=12, lr=0.02)
    assert seen(exp, RULE, train=True).findings == []
