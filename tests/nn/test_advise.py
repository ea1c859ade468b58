"""The advisor: which rule speaks when, that a given value stays, and that all is said."""

from __future__ import annotations

import pytest
from torch import nn

from gipi.core.errors import UnknownName
from gipi.nn import ACTIVATIONS, INITS, NORMS, ORDERS, RULES, Situation, advise, remarks, resolve
from gipi.nn.advise import CHOICES

KNOWN = {"activation": ACTIVATIONS, "init": INITS, "norm": NORMS, "output": ACTIVATIONS,
         "order": ORDERS}  # fmt: skip

EXPECTED = [
    ("activation", Situation("dense"), "relu"),
    ("activation", Situation("convolution", depth=40), "relu"),
    ("activation", Situation("convolution", depth=41), "silu"),
    ("activation", Situation("dense", dead_units=0.1), "relu"),
    ("activation", Situation("dense", dead_units=0.2), "leaky-relu"),
    ("activation", Situation("dense", depth=60, dead_units=0.2), "leaky-relu"),
    ("activation", Situation("recurrent", depth=60), "tanh"),
    ("activation", Situation("transformer"), "gelu"),
    ("init", Situation("dense", activation="relu"), "he"),
    ("init", Situation("dense", activation="swish"), "he"),
    ("init", Situation("dense", activation="tanh"), "xavier"),
    ("init", Situation("dense", activation="sigmoid"), "xavier"),
    ("init", Situation("dense", activation="selu"), "lecun"),
    ("init", Situation("dense", activation="step"), "zeros"),
    ("norm", Situation("convolution", depth=50, batch_per_device=7), "group"),
    ("norm", Situation("convolution", depth=50, batch_per_device=8), "batch"),
    ("norm", Situation("convolution", depth=50), "batch"),
    ("norm", Situation("convolution", depth=4), "none"),
    ("norm", Situation("convolution", goal="style"), "instance"),
    ("norm", Situation("recurrent"), "layer"),
    ("norm", Situation("transformer", batch_per_device=2), "layer"),
    ("norm", Situation("dense", depth=3), "none"),
    ("order", Situation("convolution", depth=110, residual=True), "norm-act-conv"),
    ("order", Situation("convolution", depth=110), "conv-norm-act"),
    ("order", Situation("convolution", depth=56, residual=True), "conv-norm-act"),
    ("output", Situation("dense", goal="multi-class"), "softmax"),
    ("output", Situation("dense", goal="multi-label"), "sigmoid"),
    ("output", Situation("dense", goal="binary"), "sigmoid"),
    ("output", Situation("dense", goal="regression"), "identity"),
]


@pytest.mark.parametrize(("choice", "situation", "value"), EXPECTED)
def test_the_rule_that_speaks(choice, situation, value):
    rule = advise(choice, situation)
    assert rule.facts["advice"] == value
    settled = resolve({choice: "auto"}, situation)
    assert settled.values == {choice: value}
    assert settled.sentences == (f"{choice} {value}: {rule.facts['reason']}",)


def test_every_rule_speaks_somewhere():
    heard = {advise(choice, situation).name for choice, situation, _ in EXPECTED}
    assert heard == set(RULES.names())


@pytest.mark.parametrize("rule", list(RULES), ids=lambda r: r.name)
def test_every_rule_says_when_why_and_who(rule):
    for fact in ("choice", "advice", "when", "reason"):
        assert rule.facts[fact], fact
    assert rule.citation
    assert rule.summary.endswith(rule.facts["reason"])  # `gipi list advice` prints it
    assert rule.facts["advice"] in KNOWN[rule.facts["choice"]]
    assert rule.facts["choice"] in rule.tags


@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_every_activation_finds_initial_weights(name):
    settled = resolve({"activation": name, "init": "auto"}, Situation("dense", depth=2))
    assert settled.values["init"] == ACTIVATIONS.get(name).facts["init"]


def test_what_is_given_stays_and_the_rule_is_told():
    settled = resolve({"init": "auto", "norm": "none", "order": "auto", "activation": "tanh"},
                      Situation("convolution", depth=50))  # fmt: skip
    assert settled.values == {
        "activation": "tanh", "init": "xavier", "norm": "none", "order": "conv-norm-act",
    }  # fmt: skip
    first, second, third = settled.sentences  # the order says nothing where there is no norm
    assert first.startswith("activation tanh, as asked (the rule swish-in-deep-nets would be silu:")
    assert second.startswith("init xavier: ")
    assert third.startswith("norm none, as asked (the rule batch-norm-in-deep-convolutions would")


def test_few_rows_and_a_batch_norm_are_remarked_upon():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    few = Situation("convolution", batch_per_device=4)
    (said,) = remarks(net, few)
    assert said.startswith("2 layers normalise over the batch, which is 4 rows on a device; norm ")
    assert "group" in said
    assert remarks(net, Situation("dense", batch_per_device=4)) == (said,)
    assert remarks(net, Situation("convolution", batch_per_device=8)) == ()
    assert remarks(net, Situation("convolution")) == ()
    assert remarks(net[:1], few) == ()


@pytest.mark.parametrize(
    ("options", "situation", "words"),
    [
        ({"activation": "rely"}, Situation("dense"), "'relu'"),
        ({"norm": "bach"}, Situation("dense"), "'batch'"),
        ({"init": "hee"}, Situation("dense"), "'he'"),
        ({"init": "auto"}, Situation("dense"), "init 'auto' for a dense net"),
    ],
)
def test_wrong_requests_are_named(options, situation, words):
    with pytest.raises(UnknownName, match=words):
        resolve(options, situation)


def test_a_choice_without_rules_is_named():
    with pytest.raises(UnknownName, match="no rule is about 'activaton'"):
        advise("activaton", Situation("dense"))
    with pytest.raises(UnknownName, match="'activation'"):
        resolve({"activaton": "auto"}, Situation("dense"))
    assert set(CHOICES) == set(KNOWN)
