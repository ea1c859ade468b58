from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gipi.core.errors import ConfigError, DataError
from gipi.data.keys import row_keys
from gipi.data.source import TEST, TRAIN, VAL, ImageFiles
from gipi.data.split import SplitRows, split_rows

PARTS = ("train", "val", "test")


def rows(n: int, **more: object) -> SplitRows:
    """Rows that are all different and usable."""
    known = {"usable": np.ones(n, bool), "keys": np.arange(n), **more}
    return SplitRows(**known)  # type: ignore[arg-type]


def sides(found: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Part number of each row; -1 where it is in none. Fails where a row is in two."""
    side = np.full(n, -1)
    for number, name in enumerate(PARTS):
        ids = found.get(name, np.empty(0, np.int64))
        assert (side[ids] == -1).all()
        side[ids] = number
    return side


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 120), seed=st.integers(0, 5))
def test_no_duplicate_or_group_straddles_and_no_row_is_lost(
    data: st.DataObject, n: int, seed: int
) -> None:
    whole = st.integers(0, max(1, n // 2))
    keys = np.array(data.draw(st.lists(whole, min_size=n, max_size=n)))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    groups = None
    if data.draw(st.booleans()):
        groups = np.array(data.draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)))
    table = rows(n, keys=keys, labels=labels, groups=groups)
    found = split_rows(table, seed=seed).ids
    side = sides(found, n)
    assert (side >= 0).all()
    for codes in (keys, groups):
        if codes is not None:
            for code in np.unique(codes):
                assert len(np.unique(side[codes == code])) == 1
    again = split_rows(table, seed=seed).ids
    assert all(np.array_equal(found[k], again[k]) for k in found)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(4, 60))
def test_given_rows_are_never_altered(data: st.DataObject, n: int) -> None:
    draw = st.lists(st.sampled_from([TRAIN, TRAIN, VAL, TEST]), min_size=n, max_size=n)
    given_split = np.array(data.draw(draw), dtype=np.int8)
    keys = np.array(data.draw(st.lists(st.integers(0, n), min_size=n, max_size=n)))
    kept = (given_split == TRAIN) & ~np.isin(keys, keys[given_split != TRAIN])
    if not kept.any():
        with pytest.raises(DataError):
            split_rows(rows(n, keys=keys, given=given_split))
        return
    found = split_rows(rows(n, keys=keys, given=given_split))
    for name, code in (("val", VAL), ("test", TEST)):
        if (given_split == code).any():
            assert np.array_equal(found.ids[name], np.flatnonzero(given_split == code))
    dropped = int(((given_split == TRAIN) & ~kept).sum())
    words = "1 training row repeats" if dropped == 1 else f"{dropped} training rows repeat"
    assert dropped == 0 or words in found.notes[0]
    side = sides(found.ids, n)
    for code in np.unique(keys[side == 0]):
        assert set(side[keys == code]) <= {0, -1}


def test_shares_are_exact_and_stratified() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    found = split_rows(rows(1000, labels=labels), val=0.2, test=0.1)
    assert [len(found.ids[k]) for k in PARTS] == [700, 200, 100]
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        counts = np.bincount(labels[found.ids[name]])
        assert counts.tolist() == [round(600 * share), round(300 * share), round(100 * share)]


def test_many_small_classes_keep_the_totals() -> None:
    labels = np.arange(900) % 130
    found = split_rows(rows(900, labels=labels), val=0.2, test=0.2)
    assert all(abs(len(found.ids[name]) - 180) <= 1 for name in ("val", "test"))
    assert all(len(np.unique(labels[found.ids[name]])) == 130 for name in PARTS)


def test_seeds_differ_and_ids_are_sorted() -> None:
    a, b = (split_rows(rows(200), seed=s).ids for s in (0, 1))
    assert not np.array_equal(a["val"], b["val"])
    assert all((np.diff(ids) > 0).all() and ids.dtype == np.int64 for ids in a.values())


def test_defaults_hold_back_a_fifth_of_little_and_a_tenth_of_much() -> None:
    assert len(split_rows(rows(1000)).ids["test"]) == 200
    assert len(split_rows(rows(6000)).ids["test"]) == 600
    assert len(split_rows(rows(300_000)).ids["test"]) == 10_000
    assert len(split_rows(rows(300_000)).ids["val"]) == 3_000
    assert len(split_rows(rows(300_000), test=0).ids["val"]) == 10_000
    assert len(split_rows(rows(300_000), val=0.1).ids["val"]) == 30_000
    assert list(split_rows(rows(9)).ids) == ["train"]
    assert "none were held back" in split_rows(rows(9)).notes[0]
    assert list(split_rows(rows(100), val=0, test=0).ids) == ["train"]


def test_validation_rows_are_few_where_given_test_rows_judge() -> None:
    side = np.full(60_000, TRAIN, np.int8)
    side[:10_000] = TEST
    table = rows(60_000, given=side)
    assert {k: len(v) for k, v in split_rows(table).ids.items()} == {
        "train": 47_000, "val": 3_000, "test": 10_000,
    }  # fmt: skip
    assert len(split_rows(table, test=0).ids["val"]) == 5_000


def test_by_time_the_latest_rows_are_held_back() -> None:
    times = np.random.RandomState(0).permutation(100) // 3
    found = split_rows(rows(100, times=times), val=0.1, test=0.1).ids
    assert times[found["train"]].max() < times[found["val"]].min()
    assert times[found["val"]].max() < times[found["test"]].min()
    assert sum(map(len, found.values())) == 100


def test_by_time_drops_the_earlier_copy() -> None:
    keys = np.arange(50)
    keys[3] = keys[49]
    found = split_rows(rows(50, times=np.arange(50), keys=keys))
    assert 3 not in np.concatenate(list(found.ids.values()))
    assert "1 earlier row repeats" in found.notes[0]


def test_only_validation_is_cut_where_a_test_set_was_given() -> None:
    given_split = np.repeat([TRAIN, TEST], [90, 10]).astype(np.int8)
    found = split_rows(rows(100, given=given_split))
    assert {k: len(v) for k, v in found.ids.items()} == {"train": 81, "val": 9, "test": 10}
    with_val = np.repeat([TRAIN, VAL], [90, 10]).astype(np.int8)
    found = split_rows(rows(100, given=with_val))
    assert list(found.ids) == ["train", "val"]
    assert "no test rows were given" in found.notes[0]
    found = split_rows(rows(100, given=with_val), test=0.2, val=0.3)  # what was asked for is done
    assert {k: len(v) for k, v in found.ids.items()} == {"train": 72, "val": 10, "test": 18}
    assert found.notes == ("val=0.3 has no effect: val rows were given",)


def test_a_class_too_small_for_the_split_is_named() -> None:
    labels = np.array([0] * 60 + [1])
    found = split_rows(rows(61, labels=labels, classes=("common", "rare")))
    assert any("'rare' has 1 row: too few" in note for note in found.notes)
    assert 60 in found.ids["train"]
    drawn = rows(61, labels=labels, classes=("common", "rare"), rule="by the rarest class")
    said = split_rows(drawn).notes
    assert any("'rare' has 1 row in which no other class is rarer: too few" in n for n in said)


def test_wrong_requests() -> None:
    with pytest.raises(ConfigError, match="val=1"):
        split_rows(rows(10), val=1.0)
    with pytest.raises(ConfigError, match="nothing to train on"):
        split_rows(rows(10), val=0.5, test=0.5)
    with pytest.raises(DataError, match="no row has a target"):
        split_rows(rows(10, usable=np.zeros(10, bool)))


def test_keys_are_equal_exactly_for_equal_rows(tmp_path) -> None:  # type: ignore[no-untyped-def]
    numbers = np.array([1.0, -0.0, np.nan, 0.0, np.nan, 1.0 + 1e-12])
    keys = row_keys([numbers], 6)
    assert keys[1] == keys[3]
    assert keys[2] == keys[4]
    assert len(np.unique(keys)) == 4
    words = np.array(["a", "b", None, "a", None, "ab"], dtype=object)
    both = row_keys([words, np.array([0, 0, 0, 1, 0, 0])], 6)
    assert both[2] == both[4]
    assert len(np.unique(both)) == 5
    images = np.random.RandomState(0).randint(0, 256, (50, 5, 5, 1)).astype(np.uint8)
    images[7] = images[3]
    assert len(np.unique(row_keys([images], 50))) == 49
    swapped = row_keys([np.array([1, 2]), np.array([2, 1])], 2)
    assert swapped[0] != swapped[1]
    paths = []
    for i, content in enumerate([b"one", b"two", b"one", b"three"]):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(content)
    codes = row_keys([ImageFiles(tuple(paths))], 4)
    assert codes[0] == codes[2]
    assert len(np.unique(codes)) == 3
    paths[1].unlink()
    with pytest.raises(DataError, match="1.png"):
        row_keys([ImageFiles(tuple(paths))], 4)


@pytest.mark.parametrize(("groups", "parts"), [(1, ["train"]), (2, ["train", "val"])])
def test_a_part_that_gets_no_rows_is_said(groups: int, parts: list[str]) -> None:
    found = split_rows(rows(100, groups=np.arange(100) % groups))
    assert list(found.ids) == parts
    said = [note.partition(":")[0] for note in found.notes]
    assert said == [f"no {name} rows" for name in ("val", "test") if name not in parts]


def test_bound_rows_stay_together_and_given_rows_lose_none() -> None:
    n = 300
    given = np.where(np.arange(n) < 60, TEST, TRAIN).astype(np.int8)
    who = np.arange(n) % 50  # everybody is among the given rows too
    found = split_rows(replace(rows(n), given=given, bound=who, bound_by="person"), seed=3)
    assert len(found.ids["train"]) + len(found.ids["val"]) == n - 60
    assert len(found.ids["val"]) == 24
    assert not set(who[found.ids["train"]]) & set(who[found.ids["val"]])
    assert "rows of one person together" in found.reason
    both = split_rows(replace(rows(n), groups=np.arange(n) // 2, bound=who), seed=3)
    units = [set(who[ids]) | {1000 + i // 2 for i in ids.tolist()} for ids in both.ids.values()]
    assert not any(a & b for i, a in enumerate(units) for b in units[:i])


def test_a_share_of_zero_leaves_given_test_rows_out() -> None:
    """Nobody looks at the test set while things are tried out: not even its score is measured."""
    given_split = np.repeat([TRAIN, TEST], [90, 10]).astype(np.int8)
    keys = np.arange(100)
    keys[95] = keys[3]
    found = split_rows(rows(100, given=given_split, keys=keys), test=0)
    assert {k: len(v) for k, v in found.ids.items()} == {"train": 80, "val": 9}
    assert (
        found.notes[-1] == "test=0: the 10 given test rows are left out, nothing is scored on them"
    )
    assert 3 not in np.concatenate(list(found.ids.values()))  # its copy is still a test row
    with_val = np.repeat([TRAIN, VAL, TEST], [80, 10, 10]).astype(np.int8)
    found = split_rows(rows(100, given=with_val), test=0)
    assert list(found.ids) == ["train", "val"]
    assert "test rows were given" not in found.reason
