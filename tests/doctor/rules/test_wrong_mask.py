"""Masks in the wrong sense are found and turned; right ones, and none, are silent."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import experiment, findings, token_rows
from tests.doctor.wired import Attention, Reading, named, next_words, words_loss
from torch import nn

from gipi.doctor.finding import CannotRepair
from gipi.doctor.rewire import Edited, OtherPads
from gipi.doctor.rules.wrong_mask import RULE, made_right


class Upside(nn.Module):
    """Multi-head attention whose mask of keys, or of time, is in the wrong sense."""

    def __init__(
        self, *, pads: str = "", time: str = "", out: int = 2, vocabulary: int = 40
    ) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, 16), nn.Linear(16, out)
        self.look = nn.MultiheadAttention(16, 2, batch_first=True)
        self.pads, self.time = pads, time

    def forward(self, x):
        h, T = self.embed(x), x.shape[1]
        pads = {"": None, "right": x == 0, "wrong": x != 0}[self.pads]
        later = torch.ones(T, T).triu(1).bool()
        time = {"": None, "right": later, "wrong": torch.ones(T, T).tril(-1).bool()}[self.time]
        h = h + self.look(h, h, h, key_padding_mask=pads, attn_mask=time, need_weights=False)[0]
        if self.time:
            return self.head(h)
        real = (x != 0)[..., None].float()
        return self.head((h * real).sum(1) / real.sum(1).clamp_min(1))


def padded():
    """Return rows of which every one ends in padding, so that no query is without a key."""
    return [(nn.functional.pad(X, (0, 2)), y) for X, y in token_rows(400)]


@pytest.mark.parametrize("model", [
    lambda: Upside(pads="wrong"),
    lambda: Attention(40, 2, causal=False, every=False, mask="inverted"),
    lambda: Attention(40, 2, causal=False, every=False, mask="inverted", how="torch"),
])  # fmt: skip
def test_a_mask_of_keys_upside_down_is_named(model) -> None:
    torch.manual_seed(0)
    diagnosis = named(experiment(model(), padded(), epochs=2), RULE)
    assert "upside down" in diagnosis.findings[0].message


def test_it_is_turned() -> None:
    torch.manual_seed(0)
    change = named(experiment(Upside(pads="wrong"), padded()), RULE).findings[0].repair.change
    exp = experiment(Upside(pads="wrong"), padded())
    change(exp)
    assert findings(exp, RULE) == []
    assert torch.isfinite(exp.model(padded()[0][0])).all()


class Both(nn.Module):
    """One mask, in the wrong sense, for the keys of attention and for the mean behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 2)
        self.look = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        real, h = x == 0, self.embed(x)
        h = h + self.look(h, h, h, key_padding_mask=~real, need_weights=False)[0]
        weight = real[..., None].float()
        return self.head((h * weight).sum(1) / weight.sum(1).clamp_min(1))


def test_a_mask_that_serves_twice_is_turned_where_it_is_made() -> None:
    torch.manual_seed(0)
    found = named(experiment(Both(), padded()), RULE).findings[0]
    exp = experiment(Both(), padded())
    found.repairs[1].change(exp)
    assert findings(exp, RULE) == []
    x = padded()[0][0][:8]
    exp.model.eval()
    longer = nn.functional.pad(x, (0, 3))
    assert torch.allclose(exp.model(x), exp.model(longer), atol=1e-5)
    plain = experiment(nn.Sequential(nn.Embedding(40, 16), nn.Flatten(), nn.LazyLinear(2)),
                       padded())  # fmt: skip
    with pytest.raises(CannotRepair, match="makes no mask"):
        found.repairs[1].change(plain)


class Fields(nn.Module):
    """Looks up one key among those of a field, whose padding stands in the middle of a row."""

    def __init__(self, how: str, *, wrong: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 16, padding_idx=0), nn.Linear(16, 2)
        self.look = nn.MultiheadAttention(16, 2, batch_first=True) if how == "module" else None
        self.how, self.wrong = how, wrong

    def forward(self, x):
        keys, asked = x[:, :5], x[:, 5:]
        k, q = self.embed(keys), self.embed(asked)
        pads = (keys != 0) if self.wrong else (keys == 0)
        if self.look is not None:
            said = self.look(q, k, k, key_padding_mask=pads, need_weights=False)[0]
        elif self.how == "torch":
            said = nn.functional.scaled_dot_product_attention(q, k, k, attn_mask=~pads[:, None])
        else:
            score = (q @ k.transpose(1, 2)).masked_fill(pads[:, None], -1e4)
            said = score.softmax(-1) @ k
        return self.head(said[:, 0])


def fields(rows=160):
    """Return rows of one to four keys, padded to five, and the number that is asked for."""
    g = torch.Generator().manual_seed(0)
    X = torch.randint(1, 12, (rows, 6), generator=g)
    X[:, :5][torch.arange(5) >= torch.randint(1, 5, (rows, 1), generator=g)] = 0
    y = (X[:, 0] > 6).long()
    return (X[:120], y[:120]), (X[120:], y[120:])


@pytest.mark.parametrize("how", ["own", "module", "torch"])
def test_a_mask_of_one_field_of_a_row_is_named_and_turned(how) -> None:
    torch.manual_seed(0)
    assert findings(experiment(Fields(how, wrong=False), fields()), RULE) == []
    exp = experiment(Fields(how, wrong=True), fields(), epochs=1)
    found = named(exp, RULE).findings[0]
    assert "upside down" in found.message
    assert found.repairs[-1].change is not None
    found.repairs[-1].change(exp)
    assert findings(exp, RULE) == []


def test_attention_that_sees_one_kind_of_token_alone_is_no_mask_of_padding() -> None:
    torch.manual_seed(0)
    model = Fields("own", wrong=True)
    model.embed.padding_idx = None  # 0 may be any token: that it alone is seen is meant
    assert findings(experiment(model, fields()), RULE) == []


def test_a_causal_mask_upside_down_is_named_and_turned() -> None:
    torch.manual_seed(0)
    net = Upside(time="wrong", out=12, vocabulary=12)
    exp = experiment(net, next_words(), loss=words_loss, epochs=2)
    diagnosis = named(exp, RULE)
    diagnosis.findings[0].repair.change(exp)
    assert findings(exp, RULE) == []


@pytest.mark.parametrize("counted", [0.01, 0.0], ids=["with its length", "the same of every row"])
def test_a_mean_over_padding_alone_is_named(counted) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 2)

        def forward(self, x):
            pads = (x == 0)[..., None].float()
            mean = (self.embed(x) * pads).sum(1) / pads.sum(1).clamp_min(1)
            return self.head(mean + counted * pads.sum(1))

    torch.manual_seed(0)
    named(experiment(Bag(), padded()), RULE)


class Words(nn.Module):
    """Convolutions over words, of which padding, all words or the last word are kept."""

    def __init__(self, keep: str, *, layers: int = 1, wide: int = 3) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 16, padding_idx=0), nn.Linear(16, 2)
        self.layers = nn.ModuleList(nn.Conv1d(16, 16, wide, padding="same") for _ in range(layers))
        self.keep = keep

    def forward(self, x):
        h = self.embed(x).transpose(1, 2)
        for layer in self.layers:
            h = torch.relu(layer(h))
        h, real = h.transpose(1, 2), x != 0
        if self.keep == "last":
            return self.head(h[torch.arange(len(x)), real.sum(1) - 1])
        weight = (real if self.keep == "words" else ~real)[..., None].float()
        return self.head((h * weight).sum(1) / weight.sum(1).clamp_min(1))


def long_rows():
    return [(nn.functional.pad(X, (0, 2)), y) for X, y in token_rows(400, 20)]


@pytest.mark.parametrize("shape", [{}, {"layers": 2}, {"wide": 5}])
def test_a_mean_over_padding_that_convolutions_carry_words_into_is_named_and_turned(shape) -> None:
    torch.manual_seed(0)
    diagnosis = named(experiment(Words("padding", **shape), long_rows()), RULE)
    assert "beside the padding" in diagnosis.findings[0].message
    exp = experiment(Words("padding", **shape), long_rows())
    diagnosis.findings[0].repair.change(exp)
    assert findings(exp, RULE) == []


@pytest.mark.parametrize("keep", ["words", "last"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_convolutions_of_which_words_or_the_last_one_are_kept_are_silent(keep, layers) -> None:
    torch.manual_seed(0)
    assert findings(experiment(Words(keep, layers=layers), long_rows()), RULE) == []


def test_a_net_that_says_the_same_of_everything_is_no_mask() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 2)

        def forward(self, x):
            return self.head(0 * self.embed(x).mean(1))

    assert findings(experiment(Deaf(), padded()), RULE) == []


def test_masks_that_are_right_and_nets_without_one_are_silent() -> None:
    torch.manual_seed(0)
    right = Attention(40, 2, causal=False, every=False, mask="right", how="torch")
    for net in (Upside(pads="right"), Upside(), Reading(), Reading(lengths=False), right):
        assert findings(experiment(net, token_rows()), RULE) == []
        assert findings(experiment(net, padded()), RULE) == []
    right = Upside(time="right", out=12, vocabulary=12)
    assert findings(experiment(right, next_words(), loss=words_loss), RULE) == []
    blank = Attention()
    nn.init.zeros_(blank.head.weight)
    assert findings(experiment(blank, next_words(), loss=words_loss), RULE) == []


def test_a_model_that_needs_padding_elsewhere_too_is_not_turned() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 2)

        def forward(self, x):
            lengths = (x != 0).sum(1)
            if bool((lengths < 4).any()):
                raise RuntimeError
            return self.head(self.embed(x).sum(1) / lengths[:, None])

    exp, before = experiment(Packed(), padded()), torch.get_rng_state()
    with pytest.raises(CannotRepair, match="elsewhere"):
        made_right(0)(exp)
    assert torch.equal(before, torch.get_rng_state())


def test_comparisons_of_tokens_alone_are_turned_however_they_are_written() -> None:
    class Compares(nn.Module):
        def forward(self, x, how):
            segments = (x > 5).long()
            return {
                "named": lambda: torch.eq(input=x, other=0),
                "tensor": lambda: x != torch.tensor(0),
                "segments": lambda: segments == 0,
            }[how]()

    model, x = Compares(), padded()[0][0][:8]
    twin = Edited(model, OtherPads(0))
    for how in ("named", "tensor"):
        assert torch.equal(twin(x, how), ~model(x, how))
    assert torch.equal(twin(x, "segments"), model(x, "segments"))
