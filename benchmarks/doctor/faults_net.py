"""Faults of nets: first weights, activations, depth, width, batch statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.doctor.setup import Fault, Setup
from torch import Tensor, nn

from gipi.doctor.experiment import call

PERCEPTRONS = ("digits_mlp", "clouds_mlp", "friedman_mlp", "three_mlp")


def weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of linear, convolutional and recurrent layers, first to last."""
    return [
        p
        for n, p in model.named_parameters()
        if p.ndim > 1 and "embed" not in n and "place" not in n
    ]


def changed(s: Setup, change: Callable[[nn.Module], object]) -> None:
    """Do something to the model's values after it is made."""

    def after(model: nn.Module) -> None:
        with torch.no_grad():
            change(model)

    s.after.append(after)


def deep_sigmoid(s: Setup, depth: float) -> None:
    """Many layers of sigmoids."""
    s.knobs.update(act="sigmoid", depth=round(depth))


def forgetful(s: Setup, scale: float) -> None:
    """A plain recurrent net whose state fades: recurrent weights are multiplied by `scale`."""
    s.knobs["cell"] = "rnn"
    changed(s, lambda m: [p.mul_(scale) for n, p in m.named_parameters() if "weight_hh" in n])


def loud_layers(s: Setup, gain: float) -> None:
    """Six layers whose weights are `gain` times too large."""
    changed(s, lambda m: [p.mul_(gain) for p in weights(m)[:-1]])


def _six_layers(s: Setup, _: float) -> None:
    s.knobs["depth"] = 6


def loud_state(s: Setup, gain: float) -> None:
    """A recurrent net of ReLUs whose state grows at every place."""
    s.knobs.update(cell="rnn", act="relu")
    changed(s, lambda m: [p.mul_(gain) for n, p in m.named_parameters() if "weight_hh" in n])


def _relu_state(s: Setup, _: float) -> None:
    s.knobs.update(cell="rnn", act="relu")
    s.lr /= 3


def dead(s: Setup, depth: float) -> None:
    """Biases of the first layer are so low that its ReLUs never open."""

    def change(model: nn.Module) -> None:
        first = next(m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Conv1d)))
        assert first.bias is not None
        first.bias.sub_(depth)

    changed(s, change)


def saturated(s: Setup, gain: float) -> None:
    """A tanh net whose first weights are `gain` times too large."""
    s.knobs["act"] = "tanh"
    changed(s, lambda m: [p.mul_(gain) for p in weights(m)[:2]])


def _tanh(s: Setup, _: float) -> None:
    s.knobs["act"] = "tanh"


def constant(s: Setup, value: float) -> None:
    """All weights have one value."""
    changed(s, lambda m: [p.fill_(value) for p in weights(m)])


def zeros(s: Setup, _: float) -> None:
    """All weights and biases are zero."""
    changed(
        s,
        lambda m: [
            p.zero_() for n, p in m.named_parameters() if "norm" not in n and "embed" not in n
        ],
    )


def big_weights(s: Setup, gain: float) -> None:
    """All weights are `gain` times too large."""
    changed(s, lambda m: [p.mul_(gain) for p in weights(m)])


def big_head(s: Setup, gain: float) -> None:
    """The last layer's weights are `gain` times too large."""
    changed(s, lambda m: weights(m)[-1].mul_(gain))


def tiny_weights(s: Setup, gain: float) -> None:
    """All weights are `gain` times as large as they should be, which is nearly nothing."""
    changed(s, lambda m: [p.mul_(gain) for p in weights(m)])


def narrow(s: Setup, width: float) -> None:
    """A hidden layer of one or two units."""
    key = "code" if s.kind == "reconstruct" else "width"
    s.knobs[key] = round(width)


def linear(s: Setup, _: float) -> None:
    """Layers in a row without anything between them."""
    s.knobs["act"] = "none"


def tiny_batches(s: Setup, size: float) -> None:
    """Batch norm over two or three rows."""
    s.batch_size = round(size)
    s.epochs, s.lr = max(2, s.epochs / 4), s.lr / 5


def _with_norm(s: Setup, _: float) -> None:
    s.knobs["norm"] = "batch"


def last_of_one(s: Setup, _: float) -> None:
    """The last batch of an epoch is one row, which batch norm cannot take."""
    keep = len(s.train[1]) // s.batch_size * s.batch_size - s.batch_size + 1
    s.each(lambda X, y: (X[:keep], y[:keep]), "train")


def _norms(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


def slow_statistics(s: Setup, momentum: float) -> None:
    """Running statistics hardly move from where they began."""
    changed(s, lambda m: [setattr(n, "momentum", momentum) for n in _norms(m)])


def stale_statistics(s: Setup, factor: float) -> None:
    """Running statistics come from other data and do not move."""

    def change(model: nn.Module) -> None:
        for norm in _norms(model):
            norm.running_mean.add_(factor)
            norm.running_var.mul_(factor**2)
            norm.momentum = 0.0

    changed(s, change)


def judged_in_training_mode(s: Setup, p: float) -> None:
    """Evaluation leaves dropout and batch norm in training mode."""
    s.knobs["dropout"] = p

    def evaluate(model: nn.Module, X: Tensor) -> Any:
        model.train()
        return call(model, X)

    s.evaluate = evaluate


def _dropout(s: Setup, p: float) -> None:
    s.knobs["dropout"] = p


FAULTS = (
    Fault("deep_sigmoid", "vanishing_gradient", deep_sigmoid, (*PERCEPTRONS, "pictures_auto"), 7, 14, auto=False),
    Fault("forgetful", "vanishing_gradient", forgetful, ("recall_gru", "order_gru"), 0.02, 0.2, also=("bad_init_scale",)),
    Fault("loud_layers", "exploding_gradient", loud_layers, PERCEPTRONS, 5, 12, also=("bad_init_scale",), base=_six_layers),
    Fault("loud_state", "exploding_gradient", loud_state, ("forecast_rnn", "waves_gru"), 4, 10,
          also=("bad_init_scale",), twin=_relu_state),
    Fault("dead", "dead_relu", dead, ("digits_mlp", "digits_cnn", "clouds_mlp", "gratings_cnn", "waves_conv"), 8, 30),
    Fault("saturated", "saturated_activation", saturated, ("moons_mlp", "factors_auto", "clouds_mlp", "friedman_mlp"), 30, 150,
          also=("bad_init_scale",), base=_tanh),
    Fault("constant", "bad_init_symmetric", constant, ("digits_mlp", "clouds_mlp", "digits_cnn", "friedman_mlp", "waves_conv"), 0.02, 0.2),
    Fault("zeros", "bad_init_symmetric", zeros, ("cancer_mlp", "three_mlp", "pictures_auto", "gratings_cnn", "waves_gru")),
    Fault("big_weights", "bad_init_scale", big_weights, ("digits_mlp", "clouds_mlp", "digits_cnn", "waves_conv"), 10, 40,
          also=("exploding_gradient",)),
    Fault("big_head", "bad_init_scale", big_head, ("clouds_mlp", "spots_cnn", "friedman_mlp", "prose_gpt", "waves_gru"), 50, 300),
    Fault("tiny_weights", "bad_init_scale", tiny_weights, ("friedman_mlp", "gratings_cnn", "three_mlp"), 1e-4, 1e-3,
          also=("vanishing_gradient",)),
    Fault("narrow", "underfit", narrow, ("digits_mlp", "digits_cnn", "pictures_auto", "three_mlp", "rows_lstm"), 1, 2, auto=False),
    Fault("linear", "missing_nonlinearity", linear, ("moons_mlp", "friedman_mlp", "gratings_cnn", "three_mlp"), also=("underfit",), auto=False),
    Fault("tiny_batches", "bn_batch_too_small", tiny_batches, ("digits_bncnn", "clouds_mlp", "waves_conv"), 2, 3, base=_with_norm),
    Fault("last_of_one", "bn_batch_too_small", last_of_one, ("clouds_mlp", "digits_mlp", "friedman_mlp"), base=_with_norm),
    Fault("slow_statistics", "bn_stats_mismatch", slow_statistics, ("digits_bncnn", "clouds_mlp", "waves_conv"), 1e-5, 1e-3, base=_with_norm),
    Fault("stale_statistics", "bn_stats_mismatch", stale_statistics, ("digits_bncnn", "friedman_mlp", "gratings_cnn"), 3, 10, base=_with_norm),
    Fault("judged_in_training_mode", "eval_in_train_mode", judged_in_training_mode,
          ("digits_mlp", "digits_cnn", "waves_conv", "friedman_mlp", "reviews_attention"), 0.4, 0.7,
          also=("bn_stats_mismatch",), base=_dropout),
)  # fmt: skip
