"""Words as numbers."""

from __future__ import annotations

import json

import numpy as np

from gipi.data import words

TRAIN = [("The", "EU", "said", "1996"), ("the", "said", "Overly-long-hyphenated-words"), ("EU",)]


def test_words_are_known_from_two_occurrences_on_by_frequency() -> None:
    found = words.learn(TRAIN)
    assert found.words == ("eu", "said", "the")
    assert words.unknown(found, TRAIN) == 2 / 8
    assert words.learn([("a", "b")]).words == ("a", "b")  # nothing occurs twice: all are known


def test_ids_shapes_and_letters() -> None:
    found = words.learn(TRAIN)
    columns = words.encode(found, [("the", "The", "2026"), (), ("zzz",)])
    ids, shapes, letters = (columns[k] for k in ("words", "shapes", "letters"))
    assert ids.row(0).tolist() == [4, 4, 1]
    assert ids.lengths.tolist() == [3, 0, 1]
    assert [words.CASINGS[k] for k in shapes.row(0)[:, 0]] == ["lower", "title", "number"]
    assert letters.values.shape == (4, words.LETTERS)
    spelt = ["".join(found.letters[c - 2] for c in row if c > 1) for row in letters.row(0)]
    assert spelt == ["the", "The", "6"]  # 2, 0 are no letters of training
    assert letters.row(2)[0, :4].tolist() == [1, 1, 1, 0]


def test_years_are_alike_and_so_are_cases() -> None:
    assert words.folded("In-1996") == words.folded("in-2026")


def test_of_a_long_word_both_ends_stay() -> None:
    assert words._short("abcdefghij", 4) == "abij"
    assert words._short("abcdefghij", 5) == "abcij"
    assert words._short("abc", 5) == "abc"


def test_last_letters_are_known_where_they_are_frequent() -> None:
    rows = [tuple(f"{c}ing" for c in "abcdef"), ("cat",)]
    found = words.learn(rows)
    assert found.suffixes == ("ing",)
    assert words.encode(found, [("singing", "cat")])["shapes"].row(0)[:, 1].tolist() == [2, 1]


def test_the_vocabulary_travels_as_json() -> None:
    found = words.learn(TRAIN)
    stats = json.loads(json.dumps(found.to_stats()))
    again = words.Vocabulary.from_stats(stats)
    assert again == found
    assert stats["vocab"] == 5
    assert tuple(stats["parts"]) == again.parts
    one, two = (words.encode(v, TRAIN)["letters"].values for v in (found, again))
    assert np.array_equal(one, two)
