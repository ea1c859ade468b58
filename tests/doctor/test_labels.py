"""The classes of targets and of answers, whatever their form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, halves, mlp, seen
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.hits import counts_of
from gipi.doctor.labels import answers_of, labels_of, tags_of
from gipi.doctor.rules.class_imbalance import RULE

RARE = {"classes": 2, "weights": [0.96, 0.04], "apart": 0.5}


def rare(form: str):
    """Return overlapping classes of which one is rare, told in a form of numbers."""
    out = []
    for X, y in blobs(1500, **RARE):
        told = {"signs": 2.0 * y - 1, "shares": y.float(), "columns": F.one_hot(y, 2).float()}
        out.append((X, told[form] if form == "columns" else told[form][:, None]))
    return tuple(out)


FORMS = {
    "signs": (lambda: mlp(out=1), lambda o, y: (1 - o * y).relu().mean()),
    "shares": (lambda: nn.Sequential(mlp(out=1), nn.Sigmoid()), nn.MSELoss()),
    "columns": (lambda: mlp(out=2), nn.CrossEntropyLoss()),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_class_given_up_is_told_in_every_form_of_its_targets(form) -> None:
    net, loss = FORMS[form]
    torch.manual_seed(0)
    exp = experiment(net(), rare(form), loss=loss, epochs=5)
    assert [f.code for f in seen(exp, RULE, train=True).problems] == ["class_imbalance"]


def test_a_tag_is_rare_beside_other_tags() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(2000, 8, generator=g)
    score = X @ torch.randn(8, 3, generator=g) / 2 + torch.randn(2000, 3, generator=g)
    y = (score > torch.tensor([0.0, 0.2, 3.2])).float()
    torch.manual_seed(0)
    exp = experiment(mlp(out=3), halves(X, y), loss=nn.BCEWithLogitsLoss(), epochs=5)
    facts = Facts(exp)
    assert tags_of(facts) == 3
    label = labels_of(facts, y)
    assert label is not None
    assert torch.equal(label, 2 * torch.arange(3) + y.long())
    told = answers_of(10 * y - 5, y, facts, None)
    assert told is not None
    assert torch.equal(told, label)
    (found,) = seen(exp, RULE, train=True).problems
    assert found.where == ("class 2",)


def test_words_are_no_classes() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.multinomial(torch.tensor([0.5, 0.3, 0.15, 0.05]).expand(200, 4), 13, True,
                          generator=g)  # fmt: skip
    y = x.clone()
    y[torch.rand(x.shape, generator=g) < 0.8] = -100
    masked = x.where(y < 0, 4)
    for X, T in ((x[:, :-1], x[:, 1:]), (masked, y)):
        exp = experiment(nn.Embedding(5, 4), (halves(X, T)), loss=lambda o, t: F.cross_entropy(
            o.flatten(0, 1), t.flatten()))  # fmt: skip
        assert counts_of(Facts(exp)) is None
