"""Faults of wiring: what is joined to what, which the net trains in spite of."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from benchmarks.doctor.setup import Fault, Setup
from torch import Tensor, nn

from gipi.doctor.experiment import call

MANY = ("digits_mlp", "clouds_mlp", "digits_cnn", "waves_gru", "reviews_attention", "order_gru")
NUMBERS = ("friedman_mlp", "spots_cnn", "forecast_rnn", "three_mlp")


def softmax_end(s: Setup, _: float) -> None:
    """A softmax module before cross-entropy."""
    s.knobs["end"] = "softmax"


def softmax_call(s: Setup, _: float) -> None:
    """A softmax that is called as a function before cross-entropy."""
    s.knobs.update(end="softmax", functional_end=True)


def as_binary(s: Setup, _: float) -> None:
    """Two classes asked as yes or no, for `Fault.base`."""
    if s.kind == "binary":
        return
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(make.func, *make.args[:-1], 1, **make.keywords)
    s.targets(lambda y: y.float()[:, None])
    s.loss, s.kind = nn.BCEWithLogitsLoss(), "binary"


def sigmoid_end(s: Setup, _: float) -> None:
    """A sigmoid module before a loss of log-odds."""
    s.knobs["end"] = "sigmoid"


def sigmoid_call(s: Setup, _: float) -> None:
    """A sigmoid called as a function, and a loss of log-odds written as one."""
    s.knobs.update(end="sigmoid", functional_end=True)
    s.loss = F.binary_cross_entropy_with_logits


def relu_end(s: Setup, _: float) -> None:
    """A ReLU before numbers of both signs."""
    s.knobs["end"] = "relu"


def sigmoid_numbers(s: Setup, _: float) -> None:
    """A sigmoid before numbers that go far beyond 0..1."""
    s.knobs.update(end="sigmoid", functional_end=True)


def tanh_numbers(s: Setup, scale: float) -> None:
    """A tanh before numbers of `scale` times its range."""
    s.knobs["end"] = "tanh"


def _wider(s: Setup, scale: float) -> None:
    s.targets(lambda y: scale * y)


def index_as_number(s: Setup, _: float) -> None:
    """Class numbers are fitted by squared error with one output."""
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(make.func, *make.args[:-1], 1, **make.keywords)
    s.loss = lambda said, y: F.mse_loss(said[:, 0], y.float())


def nll_of_scores(s: Setup, _: float) -> None:
    """The loss of log-probabilities is given raw scores."""
    s.loss = nn.NLLLoss()


def one_class(s: Setup, _: float) -> None:
    """Cross-entropy over one output: always zero."""
    s.loss = nn.CrossEntropyLoss()


def broadcast(s: Setup, _: float) -> None:
    """Outputs are (N, 1), targets (N,): their difference is (N, N)."""
    s.targets(lambda y: y[:, 0])
    s.loss = lambda said, y: (said - y).square().mean()


def broadcast_other(s: Setup, _: float) -> None:
    """Outputs are (N,), targets (N, 1)."""
    s.knobs["squeeze"] = True
    s.loss = lambda said, y: ((said - y) ** 2).mean()


def minus(s: Setup, _: float) -> None:
    """The loss has the wrong sign."""
    loss = s.loss
    s.loss = lambda said, y: -loss(said, y)


def forgot_minus(s: Setup, _: float) -> None:
    """The mean log-probability of the truth is minimised."""
    s.loss = lambda said, y: F.log_softmax(said, -1).gather(-1, y[:, None]).mean()


def never_zero(s: Setup, _: float) -> None:
    """Gradients are never set to zero."""

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        exp.optimizer.step()
        return loss.detach()

    s.step = step


def frozen_body(s: Setup, _: float) -> None:
    """All but the head does not ask for gradients, with random weights."""
    s.after.append(lambda m: [p.requires_grad_(requires_grad=False) for p in m.body.parameters()])


def frozen_first(s: Setup, _: float) -> None:
    """The first layer and its bias do not ask for gradients."""

    def freeze(model: nn.Module) -> None:
        for p in list(model.parameters())[:2]:
            p.requires_grad_(requires_grad=False)

    s.after.append(freeze)


def only_head(s: Setup, _: float) -> None:
    """The optimizer was given the head's parameters."""
    s.params = lambda model: list(model.head.parameters())


def without_head(s: Setup, _: float) -> None:
    """The head was replaced after the optimizer was made for the rest."""
    s.params = lambda model: list(model.body.parameters())


class Listed(nn.Module):
    """Hidden layers in a plain list: the model does not know that they are its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.hidden = [m for m in model.body.modules() if not list(m.children())]
        self.head = model.head

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = layer(x)
        return self.head(x)


def listed(s: Setup, _: float) -> None:
    """Hidden layers stand in a plain list."""
    make = s.make
    s.make = lambda **knobs: Listed(make(**knobs))


def detached(s: Setup, _: float) -> None:
    """Features are detached before the head."""
    s.knobs["detach"] = "call"


def through_numpy(s: Setup, _: float) -> None:
    """Features take a way through numpy."""
    s.knobs["detach"] = "numpy"


def unused(s: Setup, width: float) -> None:
    """A module is made and never called."""
    s.knobs["extra"] = round(width)


def centred(s: Setup, _: float) -> None:
    """Features have the mean over the batch subtracted, in use as well."""
    s.knobs["mix"] = "centre"


def over_rows(s: Setup, _: float) -> None:
    """A softmax of weights runs over rows."""
    s.knobs["mix"] = "softmax"


def sideways(s: Setup, _: float) -> None:
    """A recurrent layer takes batch for time."""
    s.knobs["sideways"] = True


def attends_rows(s: Setup, _: float) -> None:
    """The softmax of the attention runs over the batch."""
    s.knobs["over"] = 0


FAULTS = (
    Fault("softmax_end", "double_softmax", softmax_end, (*MANY, "rows_lstm")),
    Fault("softmax_call", "double_softmax", softmax_call, (*MANY, "markov_gru", "gratings_cnn")),
    Fault("sigmoid_end", "double_sigmoid", sigmoid_end, ("cancer_mlp", "moons_mlp", "reviews_bag"), base=as_binary),
    Fault("sigmoid_call", "double_sigmoid", sigmoid_call, ("cancer_mlp", "reviews_lstm", "moons_mlp", "reviews_attention"), base=as_binary),
    Fault("relu_end", "wrong_output_activation", relu_end, (*NUMBERS, "factors_auto")),
    Fault("sigmoid_numbers", "wrong_output_activation", sigmoid_numbers, (*NUMBERS, "factors_auto")),
    Fault("tanh_numbers", "wrong_output_activation", tanh_numbers, NUMBERS, 2, 5, base=_wider, also=("target_unscaled",)),
    Fault("index_as_number", "wrong_loss", index_as_number, ("digits_mlp", "waves_gru", "clouds_mlp", "digits_cnn"), auto=False),
    Fault("nll_of_scores", "wrong_loss", nll_of_scores, ("digits_cnn", "clouds_mlp", "reviews_bag", "waves_conv"), auto=False),
    Fault("one_class", "wrong_loss", one_class, ("cancer_mlp", "moons_mlp", "reviews_attention"), base=as_binary, auto=False),
    Fault("broadcast", "loss_broadcast", broadcast, ("friedman_mlp", "diabetes_mlp", "forecast_rnn")),
    Fault("broadcast_other", "loss_broadcast", broadcast_other, ("friedman_mlp", "diabetes_mlp", "forecast_rnn")),
    Fault("minus", "loss_sign_flipped", minus, ("clouds_mlp", "friedman_mlp", "prose_gpt", "digits_bncnn", "pictures_auto"), auto=False),
    Fault("forgot_minus", "loss_sign_flipped", forgot_minus, ("digits_mlp", "reviews_lstm", "waves_conv"), auto=False),
    Fault("never_zero", "missing_zero_grad", never_zero, ("digits_mlp", "waves_gru", "cancer_mlp", "gratings_cnn", "friedman_mlp", "prose_gpt")),
    Fault("frozen_body", "frozen_layer", frozen_body, ("digits_cnn", "clouds_mlp", "reviews_lstm", "waves_gru", "prose_gpt")),
    Fault("frozen_first", "frozen_layer", frozen_first, ("gratings_cnn", "friedman_mlp", "three_mlp", "pictures_auto", "spots_cnn")),
    Fault("only_head", "params_not_in_optimizer", only_head, ("digits_cnn", "reviews_attention", "friedman_mlp", "waves_gru")),
    Fault("without_head", "params_not_in_optimizer", without_head, ("digits_mlp", "gratings_cnn", "rows_lstm", "spots_cnn")),
    Fault("listed", "params_not_in_optimizer", listed, ("moons_mlp", "clouds_mlp", "friedman_mlp"), also=("frozen_layer",), auto=False),
    Fault("detached", "graph_detached", detached, ("digits_cnn", "clouds_mlp", "reviews_lstm", "pictures_auto"), auto=False),
    Fault("through_numpy", "graph_detached", through_numpy, ("friedman_mlp", "waves_gru", "gratings_cnn"), auto=False),
    Fault("unused", "unused_parameters", unused, ("clouds_mlp", "digits_cnn", "rows_lstm", "spots_cnn"), 16, 64),
    Fault("centred", "batch_mixing", centred, ("clouds_mlp", "digits_cnn", "friedman_mlp", "waves_conv"), auto=False),
    Fault("over_rows", "batch_mixing", over_rows, ("digits_mlp", "spots_cnn", "waves_gru"), auto=False),
    Fault("sideways", "batch_mixing", sideways, ("waves_gru", "recall_gru", "rows_lstm", "forecast_rnn"), auto=False),
    Fault("attends_rows", "batch_mixing", attends_rows, ("order_attention", "reviews_attention"), auto=False),
)  # fmt: skip
