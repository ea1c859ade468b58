"""Settings that learn: kinds of data times nets, with the optimizers that people use for them.

Names are data_net. Every one reaches `FLOORS` on held-out rows (checked by tests/benchmarks).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.doctor import data, nets
from benchmarks.doctor.setup import Setup, adam, adamw, plain_sgd, rmsprop, sgd
from torch import Tensor, nn

PLACES = 16


def words_loss(said: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy at every place."""
    return nn.functional.cross_entropy(said.reshape(-1, said.shape[-1]), y.reshape(-1))


def _setup(parts: data.Cut, kind: str, make: Any, loss: Any, **more: Any) -> Setup:
    where, net = more.pop("named").split("_")
    train, val, test = parts
    return Setup(where, net, kind, train, val, test, make, loss, **more)


# ---------------------------------------------------------------------- tables


def digits_mlp(seed: int) -> Setup:
    return _setup(data.digits(seed), "classes", partial(nets.mlp, 64, 10), nn.CrossEntropyLoss(),
                  lr=2e-3, epochs=12, named="digits_mlp", facts={"classes": 10, "width": 48})  # fmt: skip


def cancer_mlp(seed: int) -> Setup:
    return _setup(data.cancer(seed), "binary", partial(nets.mlp, 30, 1), nn.BCEWithLogitsLoss(),
                  lr=0.01, epochs=8, optimizer=sgd, batch_size=16, named="cancer_mlp",
                  facts={"classes": 2, "width": 48})  # fmt: skip


def clouds_mlp(seed: int) -> Setup:
    return _setup(data.clouds(seed), "classes", partial(nets.mlp, 16, 5), nn.CrossEntropyLoss(),
                  lr=4e-3, epochs=7, optimizer=adamw, named="clouds_mlp",
                  facts={"classes": 5, "width": 48})  # fmt: skip


def moons_mlp(seed: int) -> Setup:
    return _setup(data.moons(seed), "classes", partial(nets.mlp, 2, 2, act="tanh"),
                  nn.CrossEntropyLoss(), lr=0.1, epochs=12, optimizer=sgd, named="moons_mlp",
                  facts={"classes": 2, "width": 48, "act": "tanh"})  # fmt: skip


def friedman_mlp(seed: int) -> Setup:
    return _setup(data.friedman(seed), "numbers", partial(nets.mlp, 10, 1), nn.MSELoss(),
                  lr=5e-3, epochs=20, named="friedman_mlp", facts={"outputs": 1, "width": 48})  # fmt: skip


def diabetes_mlp(seed: int) -> Setup:
    return _setup(data.diabetes(seed), "numbers", partial(nets.mlp, 10, 1, width=16, depth=1),
                  nn.MSELoss(), lr=0.01, epochs=15, optimizer=plain_sgd, batch_size=16,
                  named="diabetes_mlp", facts={"outputs": 1, "width": 16})  # fmt: skip


def three_mlp(seed: int) -> Setup:
    return _setup(data.three_numbers(seed), "numbers", partial(nets.mlp, 8, 3, act="silu"),
                  lambda said, y: (said - y).square().mean(), lr=5e-3, epochs=20, optimizer=rmsprop,
                  named="three_mlp", facts={"outputs": 3, "width": 48})  # fmt: skip


# ---------------------------------------------------------------------- images


def digits_cnn(seed: int) -> Setup:
    return _setup(data.digit_images(seed), "classes", partial(nets.cnn, 8, 10),
                  nn.CrossEntropyLoss(), lr=4e-3, epochs=12, named="digits_cnn",
                  facts={"classes": 10, "width": 12})  # fmt: skip


def digits_bncnn(seed: int) -> Setup:
    return _setup(data.digit_images(seed), "classes", partial(nets.cnn, 8, 10, norm="batch"),
                  nn.CrossEntropyLoss(), lr=0.05, epochs=10, optimizer=sgd, named="digits_bncnn",
                  facts={"classes": 10, "width": 12, "bn": True})  # fmt: skip


def gratings_cnn(seed: int) -> Setup:
    return _setup(data.gratings(seed), "classes", partial(nets.cnn, 12, 4), nn.CrossEntropyLoss(),
                  lr=3e-3, epochs=12, optimizer=adamw, named="gratings_cnn",
                  facts={"classes": 4, "width": 12})  # fmt: skip


def spots_cnn(seed: int) -> Setup:
    return _setup(data.spots(seed), "numbers", partial(nets.cnn, 12, 2), nn.MSELoss(),
                  lr=3e-3, epochs=12, named="spots_cnn", facts={"outputs": 2, "width": 12})  # fmt: skip


# ---------------------------------------------------------------------- text


def reviews_bag(seed: int) -> Setup:
    return _setup(data.reviews(seed), "classes", partial(nets.bag, 60, 2), nn.CrossEntropyLoss(),
                  lr=4e-3, epochs=4, named="reviews_bag",
                  facts={"classes": 2, "vocabulary": 60, "width": 32})  # fmt: skip


def reviews_attention(seed: int) -> Setup:
    return _setup(data.reviews(seed), "classes", partial(nets.attention, 60, PLACES, 2, mask="right"),
                  nn.CrossEntropyLoss(), lr=1.5e-3, epochs=5, optimizer=adamw,
                  named="reviews_attention", facts={"classes": 2, "vocabulary": 60, "width": 32})  # fmt: skip


def reviews_lstm(seed: int) -> Setup:
    make = partial(nets.recurrent, 24, 2, cell="lstm", vocabulary=60, lengths=True)
    return _setup(data.reviews(seed), "classes", make, nn.CrossEntropyLoss(), lr=4e-3, epochs=4,
                  named="reviews_lstm", facts={"classes": 2, "vocabulary": 60, "width": 32})  # fmt: skip


def order_attention(seed: int) -> Setup:
    return _setup(data.first_of_two(seed), "classes", partial(nets.attention, 20, 12, 2),
                  nn.CrossEntropyLoss(), lr=3e-3, epochs=9, named="order_attention",
                  facts={"classes": 2, "vocabulary": 20, "width": 32})  # fmt: skip


def order_gru(seed: int) -> Setup:
    make = partial(nets.recurrent, 16, 2, cell="gru", vocabulary=20)
    return _setup(data.first_of_two(seed), "classes", make, nn.CrossEntropyLoss(), lr=5e-3,
                  epochs=12, named="order_gru",
                  facts={"classes": 2, "vocabulary": 20, "width": 32})  # fmt: skip


def prose_gpt(seed: int) -> Setup:
    size = data.prose_vocabulary()
    make = partial(nets.attention, size, 24, size, causal=True, every=True)
    return _setup(data.prose(seed), "language", make, words_loss, lr=4e-3, epochs=8,
                  optimizer=adamw, named="prose_gpt", facts={"vocabulary": size, "width": 32})  # fmt: skip


def markov_gru(seed: int) -> Setup:
    make = partial(nets.recurrent, 16, 12, cell="gru", vocabulary=12, every=True)
    return _setup(data.markov(seed), "language", make, words_loss, lr=0.01, epochs=10,
                  named="markov_gru", facts={"vocabulary": 12, "width": 32})  # fmt: skip


def markov_gpt(seed: int) -> Setup:
    make = partial(nets.attention, 12, 20, 12, causal=True, every=True)
    return _setup(data.markov(seed), "language", make, words_loss, lr=4e-3, epochs=8,
                  named="markov_gpt", facts={"vocabulary": 12, "width": 32})  # fmt: skip


def prose_gru(seed: int) -> Setup:
    size = data.prose_vocabulary()
    make = partial(nets.recurrent, 16, size, cell="gru", vocabulary=size, every=True, width=48)
    return _setup(data.prose(seed), "language", make, words_loss, lr=8e-3, epochs=8,
                  named="prose_gru", facts={"vocabulary": size, "width": 48})  # fmt: skip


def place_attention(seed: int) -> Setup:
    return _setup(data.marked_place(seed), "classes", partial(nets.attention, 20, 12, 4),
                  nn.CrossEntropyLoss(), lr=4e-3, epochs=12, named="place_attention",
                  facts={"classes": 4, "vocabulary": 20, "width": 32})  # fmt: skip


# ---------------------------------------------------------------------- sequences


def waves_gru(seed: int) -> Setup:
    return _setup(data.waves(seed), "classes", partial(nets.recurrent, 2, 4, cell="gru"),
                  nn.CrossEntropyLoss(), lr=8e-3, epochs=10, named="waves_gru",
                  facts={"classes": 4, "width": 32})  # fmt: skip


def waves_conv(seed: int) -> Setup:
    return _setup(data.waves(seed), "classes", partial(nets.conv1d, 2, 4), nn.CrossEntropyLoss(),
                  lr=4e-3, epochs=12, named="waves_conv", facts={"classes": 4, "width": 24})  # fmt: skip


def recall_gru(seed: int) -> Setup:
    return _setup(data.recall(seed), "classes", partial(nets.recurrent, 6, 4, cell="gru"),
                  nn.CrossEntropyLoss(), lr=6e-3, epochs=9, named="recall_gru",
                  facts={"classes": 4, "width": 32})  # fmt: skip


def forecast_rnn(seed: int) -> Setup:
    return _setup(data.forecast(seed), "numbers", partial(nets.recurrent, 1, 1, cell="rnn", width=24),
                  nn.MSELoss(), lr=5e-3, epochs=12, named="forecast_rnn",
                  facts={"outputs": 1, "width": 24})  # fmt: skip


def rows_lstm(seed: int) -> Setup:
    return _setup(data.digit_rows(seed), "classes", partial(nets.recurrent, 8, 10, cell="lstm", width=40),
                  nn.CrossEntropyLoss(), lr=0.01, epochs=10, named="rows_lstm",
                  facts={"classes": 10, "width": 40})  # fmt: skip


# ---------------------------------------------------------------------- reconstruction


def pictures_auto(seed: int) -> Setup:
    return _setup(data.pictures(seed), "reconstruct", partial(nets.autoencoder, 64), nn.MSELoss(),
                  lr=3e-3, epochs=15, named="pictures_auto", facts={"width": 48})  # fmt: skip


def pictures_convauto(seed: int) -> Setup:
    return _setup(data.pictures(seed), "reconstruct", nets.ConvCode, nn.BCELoss(), lr=5e-3,
                  epochs=15, named="pictures_convauto", facts={"width": 12})  # fmt: skip


def factors_auto(seed: int) -> Setup:
    return _setup(data.factors(seed), "reconstruct", partial(nets.autoencoder, 20, code=4, act="tanh"),
                  nn.MSELoss(), lr=5e-3, epochs=20, optimizer=adam, named="factors_auto",
                  facts={"width": 48, "act": "tanh"})  # fmt: skip


SETTINGS: dict[str, Callable[[int], Setup]] = {
    f.__name__: f
    for f in (
        digits_mlp, cancer_mlp, clouds_mlp, moons_mlp, friedman_mlp, diabetes_mlp, three_mlp,
        digits_cnn, digits_bncnn, gratings_cnn, spots_cnn, reviews_bag, reviews_attention,
        reviews_lstm, order_attention, order_gru, prose_gpt, prose_gru, markov_gru, markov_gpt, place_attention, waves_gru, waves_conv,
        recall_gru, forecast_rnn, rows_lstm, pictures_auto, pictures_convauto, factors_auto,
    )
}  # fmt: skip
FLOORS = {
    "digits_mlp": 0.9, "cancer_mlp": 0.9, "clouds_mlp": 0.8, "moons_mlp": 0.95, "friedman_mlp": 0.85,
    "diabetes_mlp": 0.25, "three_mlp": 0.8, "digits_cnn": 0.9, "digits_bncnn": 0.93,
    "gratings_cnn": 0.9, "spots_cnn": 0.9, "reviews_bag": 0.85, "reviews_attention": 0.85,
    "reviews_lstm": 0.8, "order_attention": 0.9, "order_gru": 0.9, "prose_gpt": -2.6,
    "markov_gru": -1.6, "place_attention": 0.8, "markov_gpt": -1.6, "prose_gru": -2.5, "waves_gru": 0.85, "waves_conv": 0.85, "recall_gru": 0.9,
    "forecast_rnn": 0.6, "rows_lstm": 0.85, "pictures_auto": 0.6, "pictures_convauto": 0.5,
    "factors_auto": 0.75,
}  # fmt: skip
"""Held-out score that a healthy run reaches at least, by seed 0; see `score`."""
