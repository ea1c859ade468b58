"""Rows that are too long: what stays, and that the loss is told."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gipi.core.errors import ConfigError
from gipi.text import train_tokenizer
from gipi.text.lengths import fit_length


@cache
def made():
    return train_tokenizer(["a b c d e f g h"] * 2, kind="word", vocab=30)


def rows_of(fitted):
    return [" ".join(made().tokens(row)) for row in fitted.encodings]


def test_a_text_loses_its_end_and_keeps_its_mark():
    batch = made().encode_batch(["a b c d e", "a", ""], spans=True, words=True)
    fitted = fit_length(batch, 5)
    assert rows_of(fitted) == ["[CLS] a b c [SEP]", "[CLS] a [SEP]", "[CLS] [SEP]"]
    assert fitted.rows == 1
    assert fitted.share == pytest.approx(2 / 12)
    assert fitted.sentence() == "1 of 3 texts are too long: 16.7% of all tokens cut"
    assert fitted.encodings.spans.tolist()[3:5] == [[4, 5], [0, 0]]
    assert fitted.encodings.words.tolist()[:5] == [-1, 0, 1, 2, -1]
    assert rows_of(fit_length(batch, 4, ends=0))[0] == "[CLS] a b c"


def test_rows_that_fit_are_not_touched():
    batch = made().encode_batch(["a b c", "a"])
    fitted = fit_length(batch, 5)
    assert fitted.encodings is batch
    assert (fitted.rows, fitted.share, fitted.sentence()) == (0, 0.0, "")


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        ("a b c d e f", "g h", "[CLS] a b c [SEP] g h [SEP]"),
        ("a", "b c d e f g h", "[CLS] a [SEP] b c d e [SEP]"),
        ("a b c d", "e f g h", "[CLS] a b c [SEP] e f [SEP]"),
        ("", "a b c d e f g h", "[CLS] [SEP] a b c d e [SEP]"),
        ("a b c d e f g h", "", "[CLS] a b c d e [SEP] [SEP]"),
    ],
)
def test_of_a_pair_the_longer_text_is_cut(first, second, want):
    batch = made().encode_batch([first], [second])
    special = tuple(made().special_tokens.values())
    fitted = fit_length(batch, 8, special=special)
    assert rows_of(fitted) == [want]
    second_from = want.split().index("[SEP]") + 1
    assert fitted.encodings.segments.tolist() == [0] * second_from + [1] * (8 - second_from)


def test_every_length_of_a_pair_is_reached_exactly():
    special = tuple(made().special_tokens.values())
    for m in range(8):
        for n in range(8):
            batch = made().encode_batch([" ".join("abcdefgh"[:m])], [" ".join("abcdefgh"[:n])])
            for length in range(3, 19):
                found = fit_length(batch, length, special=special).encodings
                assert len(found[0]) == min(length, m + n + 3)
                assert np.isin(found[0], [made().cls, made().sep]).sum() == 3


def test_a_length_without_room_for_a_token():
    with pytest.raises(ConfigError, match=r"length = 1[\s\S]*allow longer rows"):
        fit_length(made().encode_batch(["a b c"]), 1)
    special = tuple(made().special_tokens.values())
    with pytest.raises(ConfigError, match="more than the 3 special tokens"):
        fit_length(made().encode_batch(["a b"], ["c"]), 2, special=special)
