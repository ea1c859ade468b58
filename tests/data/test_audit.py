"""The audit finds what was planted, names it, and finds nothing in clean data."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from gipi.core.errors import DataError
from gipi.data import audit as run_audit
from gipi.data import leaks
from gipi.data.audit import audit
from gipi.data.dataset import open_data
from gipi.data.options import DataOptions

N = 400
RNG = np.random.default_rng(0)
Y = np.arange(N) % 2


def clean(**columns):
    return {"a": RNG.normal(size=N), "b": RNG.normal(size=N) + 0.3 * Y, **columns, "y": Y}


def found(data, **options):
    return {f.code: f for f in audit(data, DataOptions(**options)).findings}


def test_the_package_offers_the_function():
    assert run_audit is audit


def test_clean_data_has_no_findings():
    result = audit(clean())
    assert result.findings == ()
    assert (result.rows, result.task, result.target) == (N, "classify", "y")
    assert result.classes == {"0": N // 2, "1": N // 2}
    assert "findings  none" in result.lines()


def swapped(values, *changes):
    values = np.array(values)
    for row, value in changes:
        values[row] = value
    return values


@pytest.mark.parametrize(
    ("columns", "code", "level", "text"),
    [
        ({"c": np.where(Y == 0, np.nan, RNG.normal(size=N))}, "missing", "note", "(50.0%)"),
        ({"c": swapped(np.full(N, np.nan), (0, 1.0))}, "missing", "warning", "in 399 rows"),
        ({"c": np.ones(N)}, "constant", "warning", "every row is '1.0'"),
        ({"c": [None] * N}, "empty", "warning", "'c' is ignored: empty"),
        ({"c": [f"k{i}" for i in range(N)]}, "identifier", "note", "400 different values"),
        ({"c": swapped(RNG.normal(size=N), (3, np.inf))}, "infinite", "warning", "in 1 row: row 4"),
        ({"c": np.where(np.arange(N) % 9, RNG.normal(50, 9, N), -999)}, "stand-in", "warning",
         "'c' is -999 in 45 rows (11.2%)"),
        ({"c": Y + RNG.normal(size=N) / 100}, "leak", "warning", "'c' alone predicts 'y'"),
        ({"c": [f"u{v}" for v in Y]}, "leak", "warning", "'c' alone predicts 'y'"),
        ({"v": np.stack([RNG.normal(size=N), -Y * 5.0 + 2], 1)}, "leak", "warning", "'v[1]' alone"),
        ({"c": np.where(Y == 1, np.nan, RNG.normal(size=N))}, "leak", "warning", "'c' alone"),
    ],
)  # fmt: skip
def test_planted_columns(columns, code, level, text):
    finding = found(clean(**columns))[code]
    assert finding.level == level
    assert text in finding.message


def test_values_that_only_look_like_codes():
    tail = RNG.standard_t(1.5, size=N) * 200
    age = np.clip(RNG.normal(70, 20, size=N).round(), 0, 99)  # 99 and above
    few = np.where(np.arange(N) % 9, RNG.integers(0, 5, N), 99)
    money = np.where(np.arange(N) % 50, RNG.lognormal(7, 1.5, N).round(), 99999.0)
    assert "stand-in" not in found(clean(tail=tail, age=age, few=few, money=money))


def test_training_says_what_seems_to_mean_unknown():
    age = np.where(np.arange(N) % 9, RNG.normal(40, 9, size=N), -999.0)
    notes = open_data(clean(age=age), DataOptions(target="y")).notes
    assert any("'age' is -999" in note and "na_values" in note for note in notes)
    assert not any("unknown" in note for note in open_data(clean(), DataOptions(target="y")).notes)


def test_same_columns():
    data = clean()
    finding = found({"c": data["a"].copy(), **data})["same-columns"]
    assert finding.columns == ("c", "a")
    finding = found({"c": Y.copy(), **data})["same-columns"]
    assert "schema.c=ignored" in finding.do  # the target is what must stay


def test_duplicates_and_conflicts():
    data = clean()
    for name in ("a", "b"):
        data[name][[10, 11]] = data[name][0]
    result = found(data)
    assert (
        "2 rows with the inputs of an earlier row: row 11, row 12" in result["duplicates"].message
    )
    assert "1 group of rows" in result["conflicts"].message
    assert "straddling" not in result


def test_copies_across_a_given_split():
    data = {"x_train": RNG.normal(size=(50, 3)), "y_train": np.arange(50) % 2,
            "x_test": RNG.normal(size=(20, 3)), "y_test": np.arange(20) % 2}  # fmt: skip
    assert "straddling" not in found(data)
    data["x_train"][7] = data["x_test"][3]
    finding = found(data)["straddling"]
    assert "1 training row with the inputs of a test row: train row 8" in finding.message
    assert audit(data).splits == {"train": 50, "test": 20}


def test_imbalance_and_rare_classes():
    y = np.array(["p"] * 380 + ["q"] * 15 + ["r"] * 5)
    result = found({"a": RNG.normal(size=N), "b": RNG.normal(size=N), "y": y})
    assert "right in 95.0%" in result["imbalance"].message
    assert "1 class with fewer than 10 rows: 'r' 5" in result["rare-class"].message


def test_leaks_of_a_number():
    x = np.exp(3 * RNG.normal(size=N))
    noise = RNG.normal(size=N)
    finding = found({"a": noise, "dollars": 1.3 * x, "y": x})["leak"]
    assert finding.columns == ("dollars",)
    assert finding.value > 0.99
    assert "leak" not in found({"a": noise, "c": np.log(x) + noise, "y": x})


def test_chance_is_no_leak():
    """Two hundred random columns, with as many labels as can be: none predicts anything."""
    columns = {f"c{i}": [f"k{v}" for v in RNG.integers(0, N // 3, N)] for i in range(200)}
    assert "leak" not in found({**columns, "y": Y})


def test_scores_are_cross_validated():
    """Two rows a bin: in the sample a column of chance would explain half, held out nothing."""
    bins = RNG.permutation(N) // 2
    fold = np.arange(N) % leaks.FOLDS
    assert leaks._class_score(bins, Y, fold) < 0.15
    assert leaks._rank_score(bins, leaks._ranks(RNG.normal(size=N)), fold) < 0
    assert leaks._class_score(Y, Y, fold) == 1
    assert leaks._rank_score(np.arange(N) // 2, np.arange(N) // 2 / N, fold) > 0.98
    unseen = np.where(np.arange(N) < 2, np.arange(N), 2)  # bins 0 and 1 are in one fold each
    skewed = (np.arange(N) > 1).astype(int)
    assert leaks._class_score(unseen, skewed, fold) == 0


def test_unusable_target_is_a_finding():
    result = audit({"a": RNG.normal(size=N), "y": [None] + ["p", "q"] * 199 + ["p"]})
    assert result.target is None
    assert result.findings[0].code == "unusable"
    assert "row 1" in result.findings[0].message
    assert audit({"x": RNG.normal(size=(9, 2))}).findings[0].level == "error"
    with pytest.raises(DataError):
        audit("no/such/file.csv")


def picture_folder(root):
    for i in range(6):
        path = root / ("cat" if i % 2 else "개") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 255, (10 + i, 20, 3), dtype=np.uint8)).save(path)
    return root


def test_pictures(tmp_path):
    picture_folder(tmp_path)
    (tmp_path / "cat" / "broken.jpg").write_bytes(b"not a picture")
    whole = (tmp_path / "cat" / "1.png").read_bytes()
    (tmp_path / "개" / "cut.png").write_bytes(whole[: len(whole) // 2])
    result = audit(tmp_path)
    codes = {f.code: f for f in result.findings}
    assert codes["broken"].rows == ("cat/broken.jpg", "개/cut.png")
    assert codes["broken"].level == "error"
    assert result.sampled == ""
    assert result.pictures["height"] == [10, 12, 15]
    assert result.pictures["forms"] == {"PNG RGB": 6}
    assert "20×10 to 20×15" in codes["sizes"].message
    assert result.classes == {"cat": 4, "개": 4}
    (tmp_path / "cat" / "copy.png").write_bytes(whole)
    assert "cat/copy.png" in {f.code: f for f in audit(tmp_path).findings}["duplicates"].message


def test_broken_pictures_are_found_in_every_part(tmp_path):
    picture_folder(tmp_path / "train")
    picture_folder(tmp_path / "test")
    (tmp_path / "test" / "cat" / "broken.png").write_bytes(b"")
    result = audit(tmp_path)
    assert [f.rows for f in result.findings if f.code == "broken"] == [("test/cat/broken.png",)]
    assert result.splits == {"train": 6, "test": 7}


def test_regression_facts_and_json():
    result = audit("diabetes")
    assert result.target_facts["min"] == 25
    assert result.target_facts["max"] == 346
    saved = json.loads(json.dumps(result.to_dict(), ensure_ascii=False))
    assert saved["fields"][0]["name"] == "age"
    assert any(line.startswith("target") for line in result.lines())


def test_large_data_is_sampled_and_says_so(monkeypatch):
    monkeypatch.setattr(sys.modules["gipi.data.audit"], "SAMPLE", 100)
    result = audit(clean())
    assert "100 of 400 rows" in result.sampled
    assert result.lines()[-1] == result.sampled


def test_wide_tables_are_cut_in_the_lines():
    data = {f"c{i}": RNG.normal(size=60) for i in range(100)}
    lines = audit({**data, "y": np.arange(60) % 2}).lines()
    assert any("and 41 more: 40 number (input), 1 category (target)" in line for line in lines)


@pytest.mark.data
def test_real_sets(data_folder):
    titanic = {f.code: f for f in audit("titanic").findings if f.code != "missing"}
    assert set(titanic) == {"free-text", "conflicts", "identifier", "duplicates"}
    adult = audit("adult")
    assert {f.code for f in adult.findings} == {"conflicts", "straddling", "missing", "duplicates"}
    missing = {f.name: f.missing for f in adult.fields if f.missing}
    assert missing == {"workclass": 2799, "occupation": 2809, "native-country": 857}
