"""The convolutional net and the bag of embeddings: their formulas, and padding."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import nn

from gipi import models
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Signature
from gipi.nn import mixes_rows

V, C, T, PAD = 13, 3, 7, 0
TEXT = Signature(vocab=V, length=T, pad=PAD, outputs=C)
SERIES = Signature(numbers=2, length=T, outputs=C)
LENGTHS = (7, 2, 0, 1, 4)
NETS = {
    "textcnn": {"embedding": 4, "maps": 3},
    "fasttext": {"embedding": 4},
    "fasttext-runs": {"embedding": 4, "ngrams": 3, "buckets": 50},
}


def tokens():
    found = torch.randint(1, V, (len(LENGTHS), T), generator=torch.Generator().manual_seed(0))
    for row, length in zip(found, LENGTHS, strict=True):
        row[length:] = PAD
    return found


def build(net, signature=TEXT, **more):
    model = models.build(net.split("-")[0], signature, options={**NETS[net], **more}).eval()
    if net.startswith("fasttext"):  # its head starts at zero, which would hide everything
        with torch.no_grad():
            model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("net", NETS)
def test_shapes_gradients_and_rebuilding(net):
    model = build(net)
    out = model(tokens())
    assert out.shape == (len(LENGTHS), C)
    assert torch.equal(out, model(tokens(), torch.ones_like(tokens())))
    out.square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    again = models.build(net.split("-")[0], TEXT, options=asdict(model.config)).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(tokens()), out)
    assert model.choices
    assert mixes_rows(model) == []


@pytest.mark.parametrize("net", NETS)
def test_rows_do_not_meet_and_padding_changes_nothing(net):
    model = build(net)
    out = model(tokens())
    torch.testing.assert_close(model(nn.functional.pad(tokens(), (0, 9), value=PAD)), out)
    for i, length in enumerate(LENGTHS):
        torch.testing.assert_close(model(tokens()[i : i + 1, :length]), out[i : i + 1])
    torch.testing.assert_close(out[2], model.head.bias)


def test_textcnn_is_its_formula():
    model, row = build("textcnn"), tokens()[:1]
    x = model.enter.table(row)[0]
    best = []
    for width, layer in zip((3, 4, 5), model.filters, strict=True):
        wide = torch.cat([torch.zeros(width - 1, 4), x, torch.zeros(width - 1, 4)])
        places = [wide[t : t + width].T for t in range(T + width - 1)]
        maps = torch.stack([(layer.weight * p).sum((1, 2)) + layer.bias for p in places])
        best.append(maps.relu().amax(0))
    torch.testing.assert_close(model(row)[0], model.head(torch.cat(best)))


def test_textcnn_does_not_count_places_of_padding_alone():
    model = build("textcnn")
    with torch.no_grad():
        for layer in model.filters:
            layer.bias.fill_(5.0)
            layer.weight.fill_(-9.0)
        model.enter.table.weight[1:].fill_(1.0)
    # Every place that touches a token is far below 0, so that only padding alone could show 5.
    torch.testing.assert_close(model(tokens()), model.head.bias.expand(len(LENGTHS), C))


def test_textcnn_takes_a_series():
    model = build("textcnn", SERIES)
    assert model(torch.randn(2, T, 2)).shape == (2, C)
    assert model(torch.randn(2, 1, 2)).shape == (2, C)


def test_fasttext_is_the_mean_and_forgets_the_order():
    model, x = build("fasttext"), tokens()
    mean = model.bag.weight[x[1, :2]].mean(0)
    torch.testing.assert_close(model(x)[1], model.head(mean))
    torch.testing.assert_close(model(x[:, [1, 0, 2, 3, 4, 5, 6]]), model(x))


def test_runs_of_tokens_know_the_order_and_stop_at_the_end():
    model, x = build("fasttext-runs"), tokens()
    assert not torch.isclose(model(x[:1].flip(1)), model(x[:1])).all()
    vectors = []
    model.bag.register_forward_pre_hook(lambda _, given: vectors.append(given[0]))
    model(x)
    counted = (vectors[0] != PAD).sum(1).tolist()
    assert counted == [n + max(n - 1, 0) + max(n - 2, 0) for n in LENGTHS]
    assert int(vectors[0].max()) < V + 50
    two = vectors[0][0, T]
    assert model(x) is not None
    assert int(two) == V + (int(x[0, 0]) * 1_000_003 + int(x[0, 1]) + 1) % 50


@pytest.mark.parametrize(
    ("name", "signature", "options", "error", "words"),
    [
        ("textcnn", Signature(outputs=2), {}, ModelError, "neither tokens nor numbers"),
        ("textcnn", TEXT, {"widths": []}, ModelError, "without filters"),
        ("textcnn", TEXT, {"widths": [0]}, ConfigError, "widths"),
        ("fasttext", SERIES, {}, ModelError, "no tokens for 'fasttext'"),
        ("fasttext", TEXT, {"ngrams": 0}, ConfigError, "ngrams=0"),
    ],
)
def test_wrong_requests_are_named(name, signature, options, error, words):
    with pytest.raises(error, match=words):
        models.build(name, signature, options=options)
