"""Faults of words and places: masks, order, padding, tokenizers, cut rows."""

from __future__ import annotations

import torch
from benchmarks.doctor.data import PAD, UNKNOWN
from benchmarks.doctor.setup import Fault, Setup
from torch import Tensor

REVIEWS = ("reviews_bag", "reviews_attention", "reviews_lstm")


def only_last(s: Setup, _: float) -> None:
    """Held-out rows ask for the word after a prefix, for which nothing later is there to be seen."""

    def change(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        half = X.shape[1] // 2
        asked = torch.full_like(y[:, :half], -100)
        asked[:, -1] = y[:, half - 1]
        return X[:, :half], asked

    s.each(change, "test")


def sees_ahead(s: Setup, _: float) -> None:
    """A language model without a causal mask."""
    s.knobs["causal"] = False


def reads_both_ways(s: Setup, _: float) -> None:
    """A language model that reads from both ends."""
    s.knobs["both_ways"] = True


def know_padding(s: Setup, _: float) -> None:
    """The user says which word is padding."""
    s.declared["tokens"] = {"pad": PAD, "unknown": UNKNOWN}


def inverted_mask(s: Setup, _: float) -> None:
    """Attention sees padding and nothing else."""
    s.knobs["mask"] = "inverted"


def mean_of_padding(s: Setup, _: float) -> None:
    """The mean is taken over padding and leaves the words out."""
    s.knobs["pads"] = "alone"


def ignored_mask(s: Setup, _: float) -> None:
    """Padding is taken for words."""
    s.knobs["mask"] = "ignored"


def last_place(s: Setup, _: float) -> None:
    """The state after the padding is taken for the row's."""
    s.knobs["lengths"] = False


def counts_padding(s: Setup, _: float) -> None:
    """Padding has a vector of its own and is averaged with the words."""
    s.knobs["pads"] = "counted"


def no_places(s: Setup, _: float) -> None:
    """Attention does not know where a word stands."""
    s.knobs["positions"] = False


def other_tokenizer(s: Setup, _: float) -> None:
    """Validation rows were cut by a tokenizer with other numbers for the words."""
    words = s.facts["vocabulary"]
    order = torch.randperm(words - 1, generator=s.generator("tokenizer")) + 1
    order = torch.cat([torch.zeros(1, dtype=torch.long), order])
    if s.kind == "language":
        s.each(lambda X, y: (order[X], order[y]), "val")
    else:
        s.inputs(lambda X: order[X], "val")


def unknown_words(s: Setup, share: float) -> None:
    """A share of the words of validation and use is not in the vocabulary."""
    g = s.generator("unknown")
    s.inputs(
        lambda X: torch.where((torch.rand(X.shape, generator=g) < share) & (X != PAD), UNKNOWN, X),
        "val",
        "test",
    )


def cut_words(s: Setup, keep: float) -> None:
    """Rows are cut to a share of their length; raw lengths are known."""
    X = s.train[0]
    s.declared["lengths"] = (X != PAD).sum(1).tolist()
    places = max(2, round(X.shape[1] * keep))
    s.inputs(lambda X: X[:, :places])


def cut_series(s: Setup, keep: float) -> None:
    """Series are cut before the place that tells the class; raw lengths are known."""
    X = s.train[0]
    s.declared["lengths"] = [X.shape[1]] * len(X)
    places = round(X.shape[1] * keep)
    s.inputs(lambda X: X[:, :places])


def _told_late(s: Setup, _: float) -> None:
    """What tells the class comes last instead of first."""
    s.inputs(lambda X: X.flip(1))


FAULTS = (
    Fault("sees_ahead", "causal_leak", sees_ahead, ("prose_gpt", "markov_gpt"), base=only_last),
    Fault("reads_both_ways", "causal_leak", reads_both_ways, ("markov_gru", "prose_gru"), base=only_last, auto=False),
    Fault("inverted_mask", "wrong_mask", inverted_mask, ("reviews_attention",), base=know_padding,
          also=("padding",), auto=False),
    Fault("mean_of_padding", "wrong_mask", mean_of_padding, ("reviews_bag",), base=know_padding,
          also=("padding",), auto=False),
    Fault("ignored_mask", "padding", ignored_mask, ("reviews_attention",), base=know_padding,
          also=("wrong_mask",), auto=False),
    Fault("last_place", "padding", last_place, ("reviews_lstm",), base=know_padding,
          also=("wrong_mask",), auto=False),
    Fault("counts_padding", "padding", counts_padding, ("reviews_bag",), base=know_padding,
          also=("wrong_mask",), auto=False),
    Fault("no_places", "missing_position", no_places, ("order_attention", "place_attention"), auto=False),
    Fault("other_tokenizer", "tokenizer_mismatch", other_tokenizer, (*REVIEWS, "prose_gpt", "markov_gru"), auto=False),
    Fault("unknown_words", "tokenizer_oov", unknown_words, REVIEWS, 0.15, 0.5, base=know_padding, auto=False),
    Fault("cut_words", "sequence_too_short", cut_words, REVIEWS, 0.2, 0.4, auto=False),
    Fault("cut_series", "sequence_too_short", cut_series, ("recall_gru",), 0.4, 0.8, base=_told_late, auto=False),
)  # fmt: skip
