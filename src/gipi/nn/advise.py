"""The advisor: stated rules for what a model leaves open, each with its reason.

A model family has options that may be "auto". Its builder hands them over with what it knows:

    settled = resolve({"activation": config.activation, "init": config.init},
                      Situation("dense", depth=len(widths)))
    config = replace(config, **settled.values)      # no "auto" is left
    self.choices = (..., *settled.sentences)        # printed at the start of training

For each option the first rule that applies decides. A given value is kept, and its sentence says
what the rule would have been. `gipi list advice` prints all rules with their reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gipi.core.errors import UnknownName, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.nn.activations import ACTIVATIONS
from gipi.nn.init import INITS, init_for
from gipi.nn.norm import NORMS, mixes_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

Family = Literal["dense", "convolution", "recurrent", "transformer"]
Goal = Literal["", "multi-class", "multi-label", "binary", "regression", "style"]

AUTO = "auto"
FEW_ROWS = 8  # per device; below it the statistics of batch norm are too noisy
DEAD = 0.1  # share of units that answer 0 to every row
DEEP = 40  # layers
VERY_DEEP = 100  # layers
NORMED = 8  # convolutional layers from which batch norm is worth its cost


@dataclass(frozen=True)
class Situation:
    """What is known of a net when a choice is made.

    family            what its layers are
    depth             hidden layers with an activation
    goal              what its output is for; "" where the builder does not know
    batch_per_device  rows that one device sees at once; 0 where nobody has said
    dead_units        share of units that were seen to answer 0 to every row (`nn.dead_units`)
    activation        of the hidden layers, once it is settled
    residual          whether layers add their input
    """

    family: Family
    depth: int = 0
    goal: Goal = ""
    batch_per_device: int = 0
    dead_units: float = 0.0
    activation: str = ""
    residual: bool = False


@dataclass(frozen=True)
class Resolved:
    """Options with no "auto" left, and one sentence for each."""

    values: dict[str, str]
    sentences: tuple[str, ...]


# ------------------------------------------------------------------------ rules


def _rule(
    name: str,
    applies: Callable[[Situation], bool],
    *,
    choice: str,
    advice: str,
    when: str,
    reason: str,
    citation: str,
) -> Record:
    """Return a rule: where `applies` is true, `choice` becomes `advice`, because of `reason`."""
    summary = f"{choice} {advice}: {when}; {reason}"
    facts = {"choice": choice, "advice": advice, "when": when, "reason": reason}
    return Record(name, applies, summary, citation, (choice,), facts)


def _wants(init: str) -> Callable[[Situation], bool]:
    return lambda s: bool(s.activation) and init_for(s.activation) == init


RULES = Registry(
    "advice",
    (
        _rule(
            "tanh-in-recurrent-nets", lambda s: s.family == "recurrent",
            choice="activation", advice="tanh", when="the net is recurrent",
            reason="a state that is fed back must stay bounded, and tanh is centred",
            citation="Hochreiter and Schmidhuber 1997, Long short-term memory; Pascanu, Mikolov "
            "and Bengio 2013, On the difficulty of training recurrent neural networks",
        ),
        _rule(
            "gelu-in-transformers", lambda s: s.family == "transformer",
            choice="activation", advice="gelu", when="the net is a Transformer",
            reason="what BERT and GPT were trained with; smooth where ReLU has its corner",
            citation="Hendrycks and Gimpel 2016, arXiv:1606.08415; Devlin et al. 2019, BERT, "
            "arXiv:1810.04805",
        ),
        _rule(
            "leaky-relu-when-units-die", lambda s: s.dead_units > DEAD,
            choice="activation", advice="leaky-relu",
            when=f"more than {DEAD:.0%} of the ReLU units answer 0 to every row",
            reason="a small slope below 0 lets dead units learn again",
            citation="Maas, Hannun and Ng 2013, Rectifier nonlinearities improve acoustic models",
        ),
        _rule(
            "swish-in-deep-nets", lambda s: s.depth > DEEP,
            choice="activation", advice="silu", when=f"the net has more than {DEEP} layers",
            reason="it trained better than ReLU beyond 40 layers, where a smooth slope helps",
            citation="Ramachandran, Zoph and Le 2017, Searching for activation functions, "
            "arXiv:1710.05941",
        ),
        _rule(
            "relu-first", lambda s: s.family in {"dense", "convolution"},
            choice="activation", advice="relu", when="the net is dense or convolutional",
            reason="cheap, and its gradient does not shrink from layer to layer",
            citation="Nair and Hinton 2010; Glorot, Bordes and Bengio 2011, Deep sparse rectifier "
            "neural networks",
        ),
        _rule(
            "he-with-rectifiers", _wants("he"),
            choice="init", advice="he", when="the activation is of the ReLU family",
            reason="a rectifier lets half of the signal through, N(0, 2/in) makes up for it",
            citation="He, Zhang, Ren and Sun 2015, arXiv:1502.01852",
        ),
        _rule(
            "xavier-with-sigmoids", _wants("xavier"),
            choice="init", advice="xavier", when="the activation is an S: sigmoid, tanh, softsign",
            reason="it keeps a sigmoid away from its flat ends in both directions",
            citation="Glorot and Bengio 2010, Understanding the difficulty of training deep "
            "networks",
        ),
        _rule(
            "lecun-with-selu", _wants("lecun"),
            choice="init", advice="lecun",
            when="the activation keeps the variance: SELU, maxout, none",
            reason="unit variance in, unit variance out",
            citation="Klambauer, Unterthiner, Mayr and Hochreiter 2017, arXiv:1706.02515",
        ),
        _rule(
            "zeros-with-the-step", _wants("zeros"),
            choice="init", advice="zeros", when="the activation is the threshold",
            reason="its rule needs no asymmetry to start", citation="Rosenblatt 1958",
        ),
        _rule(
            "instance-norm-for-style", lambda s: s.goal == "style",
            choice="norm", advice="instance", when="the style of pictures is transferred",
            reason="it removes the contrast of the one picture, which is style and not content",
            citation="Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022",
        ),
        _rule(
            "layer-norm-in-sequences", lambda s: s.family in {"recurrent", "transformer"},
            choice="norm", advice="layer", when="the net is recurrent or a Transformer",
            reason="it works on one position, whatever the batch and the length",
            citation="Ba, Kiros and Hinton 2016, arXiv:1607.06450; Vaswani et al. 2017, "
            "arXiv:1706.03762",
        ),
        _rule(
            "group-norm-for-few-rows",
            lambda s: s.family == "convolution" and 0 < s.batch_per_device < FEW_ROWS,
            choice="norm", advice="group",
            when=f"a device sees fewer than {FEW_ROWS} pictures at once",
            reason="the mean and variance of so few rows are noise; a group's are not",
            citation="Wu and He 2018, Group normalization, arXiv:1803.08494",
        ),
        _rule(
            "batch-norm-in-deep-convolutions",
            lambda s: s.family == "convolution" and s.depth >= NORMED,
            choice="norm", advice="batch", when=f"{NORMED} or more convolutional layers",
            reason="larger learning rates, and after training it costs nothing",
            citation="Ioffe and Szegedy 2015, Batch normalization, arXiv:1502.03167",
        ),
        _rule(
            "no-norm-in-shallow-nets", lambda s: s.family in {"dense", "convolution"},
            choice="norm", advice="none", when="a dense net, or a few convolutions",
            reason="with the right initial weights it needs none",
            citation="He, Zhang, Ren and Sun 2015, arXiv:1502.01852",
        ),
        _rule(
            "pre-activation-when-very-deep", lambda s: s.residual and s.depth > VERY_DEEP,
            choice="order", advice="norm-act-conv",
            when=f"a residual net of more than {VERY_DEEP} layers",
            reason="the sum then runs through the net with nothing in its way",
            citation="He, Zhang, Ren and Sun 2016, Identity mappings, arXiv:1603.05027",
        ),
        _rule(
            "norm-before-activation", lambda s: s.family in {"dense", "convolution"},
            choice="order", advice="conv-norm-act", when="otherwise",
            reason="the norm decides which half the activation cuts; and it can be folded into "
            "the layer before it",
            citation="Ioffe and Szegedy 2015, Batch normalization, arXiv:1502.03167",
        ),
        _rule(
            "softmax-for-classes", lambda s: s.goal == "multi-class",
            choice="output", advice="softmax", when="one of several classes is the answer",
            reason="probabilities that add up to 1; with cross-entropy the gradient is p - t",
            citation="Bridle 1990, Probabilistic interpretation of feedforward classification "
            "network outputs",
        ),
        _rule(
            "sigmoid-for-labels", lambda s: s.goal in {"binary", "multi-label"},
            choice="output", advice="sigmoid", when="yes or no, or several labels at once",
            reason="each answer is a probability of its own",
            citation="Cox 1958, The regression analysis of binary sequences",
        ),
        _rule(
            "identity-for-numbers", lambda s: s.goal in {"regression", "style"},
            choice="output", advice="identity", when="numbers are the answer",
            reason="nothing is cut off, and the squared error has its plain gradient",
            citation="Bishop 1995, Neural networks for pattern recognition",
        ),
    ),
)  # fmt: skip
CHOICES = tuple(dict.fromkeys(str(rule.facts["choice"]) for rule in RULES))
KNOWN = {"activation": ACTIVATIONS, "init": INITS, "norm": NORMS, "output": ACTIVATIONS}


# ------------------------------------------------------------------------ use


def advise(choice: str, situation: Situation) -> Record | None:
    """Return the first rule about `choice` that applies, or None.

    choice  "activation", "init", "norm", "order" or "output"

    >>> advise("activation", Situation("recurrent")).facts["advice"]
    'tanh'
    """
    _check_choice(choice)
    return next((r for r in RULES if r.facts["choice"] == choice and r.build(situation)), None)


def _check_choice(choice: str) -> None:
    if choice not in CHOICES:
        raise UnknownName(f"no rule is about '{choice}'", f"one of {', '.join(CHOICES)}",
                          did_you_mean(choice, CHOICES))  # fmt: skip


def resolve(options: Mapping[str, str], situation: Situation) -> Resolved:
    """Return `options` with each "auto" settled by the rules, and the sentences for people.

    options  choice -> a value, or "auto"; the activation is settled first, since the initial
             weights follow it. A value that is no name of its registry raises `UnknownName`.

    >>> settled = resolve({"init": "auto", "activation": "tanh"}, Situation("dense", depth=2))
    >>> settled.values
    {'activation': 'tanh', 'init': 'xavier'}
    >>> print(settled.sentences[1])
    init xavier: it keeps a sigmoid away from its flat ends in both directions
    """
    for choice in options:
        _check_choice(choice)
    values: dict[str, str] = {}
    sentences: list[str] = []
    for choice in sorted(options, key=CHOICES.index):
        given = options[choice]
        if given != AUTO and choice in KNOWN:
            KNOWN[choice].get(given)
        rule = advise(choice, situation)
        advice = str(rule.facts["advice"]) if rule else ""
        value = given if given != AUTO else advice
        if not value:
            raise UnknownName(f"{choice} 'auto' for a {situation.family} net",
                              "a rule that applies", f"name the {choice}")  # fmt: skip
        values[choice] = value
        if choice == "activation":
            situation = replace(situation, activation=value)
        if choice != "order" or values.get("norm") != "none":
            sentences.append(_sentence(choice, given, rule))
    return Resolved(values, tuple(sentences))


def remarks(model: nn.Module, situation: Situation) -> tuple[str, ...]:
    """Return what the rules say against a net as it was built, in sentences.

    A published net keeps its own norm whatever the batch; this says when that is unwise.
    """
    if not 0 < situation.batch_per_device < FEW_ROWS:
        return ()
    mixing = mixes_rows(model)
    if not mixing:
        return ()
    rule = RULES.get("group-norm-for-few-rows")
    said = (
        f"{len(mixing)} layers normalise over the batch, which is {situation.batch_per_device} "
        f"rows on a device; norm {rule.facts['advice']} would suit it: {rule.facts['reason']}"
    )
    return (said,)


def _sentence(choice: str, given: str, rule: Record | None) -> str:
    if rule is None:
        return f"{choice} {given}, as asked"
    advice, reason = rule.facts["advice"], rule.facts["reason"]
    if given in {AUTO, advice}:
        return f"{choice} {advice}: {reason}"
    return f"{choice} {given}, as asked (the rule {rule.name} would be {advice}: {reason})"


def why(activation: str, init: str) -> str:
    """Return the sentence on initial weights for a net whose activation is settled.

    init  a name of `INITS`, or "auto" for what the rules say
    """
    settled = resolve({"init": init}, Situation("dense", activation=activation))
    return f"activation {activation}, {settled.sentences[0].replace('init ', 'initial weights ')}"
