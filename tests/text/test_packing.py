"""Samplers: pure functions of (seed, epoch) that lose nothing and repeat nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gipi.core.errors import ConfigError, DataError
from gipi.text.packing import (
    fill,
    pack_documents,
    random_windows,
    rows_at,
    streams,
)

TOKENS = np.arange(1, 101, dtype=np.uint16)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)


# ------------------------------------------------------------------------ random windows


def test_windows_are_a_function_of_seed_and_epoch():
    draw = lambda seed, epoch: random_windows(100, 10, number=50, seed=seed, epoch=epoch).tolist()
    assert draw(0, 1) == draw(0, 1)
    assert draw(0, 1) != draw(0, 2)
    assert draw(0, 1) != draw(1, 1)


def test_every_window_is_possible_and_none_runs_over_the_end():
    starts = random_windows(20, 16, number=400, seed=0, epoch=0)
    assert starts.dtype == np.int64
    assert set(starts.tolist()) == {0, 1, 2, 3, 4}
    rows = rows_at(TOKENS, [0, 7], 3)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[1, 2, 3], [8, 9, 10]]


def test_a_corpus_that_is_too_short():
    for draw in (
        lambda: random_windows(9, 10, number=1, seed=0, epoch=0),
        lambda: streams(20, 10, rows=2, seed=0, epoch=0),
    ):
        with pytest.raises(DataError, match=r"a corpus of \d+ tokens[\s\S]*shorter length"):
            draw()
    with pytest.raises(ConfigError, match="length = 0"):
        random_windows(9, 0, number=1, seed=0, epoch=0)


# ------------------------------------------------------------------------ documents


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=60), st.integers(1, 17), st.booleans(), st.integers(0, 3)
)
def test_packing_uses_every_token_once_and_never_overlaps(lengths, width, shuffle, seed):
    offsets = offsets_of(lengths)
    found = pack_documents(offsets, width, seed=seed, epoch=0, shuffle=shuffle)
    used = sorted(
        t for a, n in zip(found.start, found.length, strict=True) for t in range(a, a + n)
    )
    assert used == list(range(offsets[-1]))
    places = [
        (r, c + i)
        for r, c, n in zip(found.row, found.column, found.length, strict=True)
        for i in range(n)
    ]
    assert len(set(places)) == len(places)
    assert all(0 <= c < width and 0 <= r < found.rows for r, c in places)
    assert {r for r, _ in places} == set(range(found.rows))  # no empty row
    assert places == sorted(places)  # row after row, from the left
    whole = sum(n <= width for n in lengths if n)
    assert (np.isin(offsets[:-1][np.diff(offsets) > 0], found.start)).all()
    assert (found.length[: len(lengths)] <= width).all()
    assert whole <= len(found.start)
    # Best fit never opens a row that was not needed: no two rows fit into one.
    filled = np.bincount(found.row, found.length, minlength=found.rows)
    if found.rows > 1:
        assert np.sort(filled)[:2].sum() > width


def test_filled_rows_know_their_documents():
    offsets = offsets_of([3, 2, 5, 1])
    packing = pack_documents(offsets, 5, seed=0, epoch=0)
    assert packing.rows == 3
    assert packing.padding == pytest.approx(1 - 11 / 15)
    ids, documents, positions = fill(TOKENS, packing, rows=range(packing.rows), pad=0)
    assert sorted(ids[ids > 0].tolist()) == list(range(1, 12))
    assert ((documents == 0) == (ids == 0)).all()
    for b in range(packing.rows):
        for number in set(documents[b]) - {0}:
            here = documents[b] == number
            assert positions[b][here].tolist() == list(range(here.sum()))
            row = ids[b][here]
            assert (np.diff(row) == 1).all()
            assert row[0] - 1 in offsets
    backwards = fill(TOKENS, packing, rows=[2, 0], pad=9)[0]
    assert backwards[1].tolist() == [t or 9 for t in ids[0].tolist()]


def test_long_documents_are_cut_and_short_rows_are_few():
    packing = pack_documents(offsets_of([23, 0, 7]), 10, seed=0, epoch=0)
    assert sorted(packing.length.tolist()) == [3, 7, 10, 10]
    assert packing.rows == 3
    assert packing.padding == 0.0
    empty = pack_documents(offsets_of([]), 10, seed=0, epoch=0)
    assert (empty.rows, empty.padding) == (0, 0.0)


def test_packing_is_a_function_of_seed_and_epoch():
    offsets = offsets_of(np.random.default_rng(0).integers(1, 30, 200))
    draw = lambda seed, epoch: pack_documents(offsets, 32, seed=seed, epoch=epoch).start.tolist()
    assert draw(0, 1) == draw(0, 1)
    assert draw(0, 1) != draw(0, 2)
    assert pack_documents(offsets, 32, seed=0, epoch=0).padding < 0.05


# ------------------------------------------------------------------------ streams


@settings(deadline=None)
@given(st.integers(30, 200), st.integers(1, 6), st.integers(1, 4), st.integers(0, 5))
def test_streams_go_on_where_they_ended(total, length, rows, epoch):
    starts = streams(total, length, rows=rows, seed=0, epoch=epoch)
    assert starts.shape[1] == rows
    assert len(starts) >= 1
    assert (np.diff(starts, axis=0) == length).all()
    assert starts.min() >= 0
    assert starts.max() + length + 1 <= total  # the target of the last token is there
    used = [t for s in starts.ravel() for t in range(s, s + length)]
    assert len(set(used)) == len(used)
    assert total - len(used) <= rows * 2 * length + 1


def test_streams_begin_elsewhere_in_another_epoch():
    begins = {int(streams(1000, 20, rows=4, seed=0, epoch=e)[0, 0]) for e in range(20)}
    assert len(begins) > 5
    same = [streams(1000, 20, rows=4, seed=3, epoch=2).tolist() for _ in range(2)]
    assert same[0] == same[1]
