"""Every model: built from a signature, a function of its seed, rebuilt from its config."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import nn

from gipi import models
from gipi.core.errors import ConfigError, ModelError, UnknownName
from gipi.core.registry import Record, Registry
from gipi.core.schema import Signature
from gipi.models import MODELS
from gipi.nn import mixes_rows

SIGNATURES = {
    "image": Signature(image=(1, 28, 28), outputs=10),
    "small": Signature(image=(3, 8, 8), outputs=3),
    "large": Signature(image=(2, 40, 50), outputs=3),
    "table": Signature(numbers=4, cardinalities=(3, 9), outputs=2),
    "numbers": Signature(numbers=3, outputs=1),
    "categories": Signature(cardinalities=(3, 9), outputs=2),
}
ELSEWHERE = {"segment", "detect", "pose"}  # their outputs have other shapes and other tests
LARGE = {name for name in MODELS.names() if name.startswith(("alexnet", "densenet1", "densenet2"))}
LARGE |= {f"resnet{depth}" for depth in (32, 34, 44, 50, 56, 101, 110, 152)}
CASES = [
    (record.name, kind)
    for record in MODELS
    for kind, s in SIGNATURES.items()
    if ("image" if s.image else "table") in record.tags
    and not ELSEWHERE & set(record.tags)
    and record.name not in LARGE  # one net of each family will do here
]
STEADY = ("perceptron", "linear", "mlp", "lenet5")  # without batch norm


def inputs(signature: Signature, rows: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    if signature.image:
        return (torch.randn(rows, *signature.image, generator=generator),)
    x = torch.randn(rows, signature.numbers, generator=generator)
    if not signature.cardinalities:
        return (x,)
    codes = [torch.randint(0, n, (rows,), generator=generator) for n in signature.cardinalities]
    return x, torch.stack(codes, 1)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_outputs_choices_and_rebuilding(name, kind):
    signature = SIGNATURES[kind]
    model = models.build(name, signature, seed=3).eval()
    assert isinstance(model, nn.Module)
    out = model(*inputs(signature))
    assert out.shape == (5, signature.outputs)
    assert model.choices
    assert all(isinstance(sentence, str) and sentence for sentence in model.choices)
    again = models.build(name, signature, seed=3, options=asdict(model.config)).eval()
    assert again.config == model.config
    torch.testing.assert_close(again(*inputs(signature)), out, rtol=0, atol=0)
    for p in model.parameters():
        assert torch.isfinite(p).all()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_weights_are_a_function_of_the_seed_and_the_global_state_is_left_alone(name, kind):
    def weights(seed, disturb):
        torch.manual_seed(disturb)
        before = torch.random.get_rng_state()
        model = models.build(name, SIGNATURES[kind], seed=seed)
        assert torch.equal(before, torch.random.get_rng_state())
        return model.state_dict()

    a, b, c = weights(1, 0), weights(1, 99), weights(2, 0)
    assert all(torch.equal(a[k], b[k]) for k in a)
    if name not in ("perceptron", "linear"):
        assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_rows_do_not_meet(name, kind):
    model = models.build(name, SIGNATURES[kind])
    assert (mixes_rows(model) == []) == (name in STEADY)
    model.eval()
    x = inputs(SIGNATURES[kind])
    alone = torch.cat([model(*(t[i : i + 1] for t in x)) for i in range(5)])
    torch.testing.assert_close(model(*x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_parameter_gets_a_gradient(name, kind):
    model = models.build(name, SIGNATURES[kind])
    rows = 64 if name in STEADY else 4
    model(*inputs(SIGNATURES[kind], rows=rows)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("record", list(MODELS), ids=lambda r: r.name)
def test_every_record_says_what_it_is(record):
    assert record.summary
    assert record.citation
    assert record.tags


def test_a_layer_that_draws_for_itself_depends_on_the_seed_too(monkeypatch):
    """Other people's families may forget the generator."""
    careless = Record("own", lambda *_: nn.Linear(3, 2), "", facts={"config": models.LinearConfig})
    monkeypatch.setattr(models, "MODELS", Registry("models", (careless,)))

    def weight(seed, disturb):
        torch.manual_seed(disturb)
        return models.build("own", SIGNATURES["numbers"], seed=seed).weight

    assert torch.equal(weight(1, 0), weight(1, 99))
    assert not torch.equal(weight(1, 0), weight(2, 0))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: models.build("lenet", SIGNATURES["image"]), UnknownName, "'lenet5'"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"width": [8]}), ConfigError,
         "'widths'"),
        (lambda: models.build("linear", SIGNATURES["table"], options={"widths": [8]}), ConfigError,
         "no options"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"dropout": 1.5}), ConfigError,
         "dropout=1.5"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"widths": [8, 0]}), ConfigError,
         "widths"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"widths": "a,b"}), ConfigError,
         "widths='a,b'"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"activation": "rely"}),
         UnknownName, "'relu'"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"norm": "bach"}), UnknownName,
         "'batch'"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"init": "hee"}), UnknownName,
         "'he'"),
        (lambda: models.build("mlp", SIGNATURES["table"], options={"numbers": "peridic"}),
         ConfigError, "numbers="),
        (lambda: models.build("lenet5", SIGNATURES["table"]), ModelError, "'mlp'"),
        (lambda: models.build("lenet5", SIGNATURES["image"], options={"variant": "1989"}),
         ConfigError, "variant"),
        (lambda: models.build("mlp", Signature(outputs=2)), ModelError, "no input"),
        (lambda: models.build("linear", Signature(outputs=2)), ModelError, "no input"),
    ],
)  # fmt: skip
def test_wrong_requests_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
