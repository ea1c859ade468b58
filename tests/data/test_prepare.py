from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gipi.core.errors import DataError
from gipi.core.schema import Field, Schema
from gipi.data import prepare
from gipi.data.source import Column
from gipi.data.transforms import HEAVY, MANY, as_dates, as_numbers, fit_number, number_features

RNG = np.random.RandomState(0)


def name(row: int) -> str:
    """Return what errors call a row."""
    return f"row {row + 1}"


def table(task: str = "classify", **kinds: str) -> Schema:
    """Return an unfitted schema with these input kinds and a target y."""
    fields = [Field(k, v, "input") for k, v in kinds.items()]
    kind = "category" if task == "classify" else "number"
    return Schema((*fields, Field("y", kind, "target")), task)


def words(*values: str | None) -> np.ndarray:
    """Return an object column."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def numbers(schema: Schema, columns: dict[str, Column]) -> np.ndarray:
    """Return the encoded numbers."""
    return prepare.encode_inputs(schema, columns, row_name=name)["numbers"].numpy()


def test_numbers_are_standardised_by_training_rows_only() -> None:
    columns: dict[str, Column] = {"a": RNG.rand(50) * 9 + 4, "y": np.arange(50) % 2}
    train = np.arange(0, 40)
    fitted = prepare.fit(table(a="number"), columns, train)
    z = numbers(fitted, columns)
    assert z.dtype == np.float32
    assert z[train].mean() == pytest.approx(0, abs=1e-6)
    assert z[train].std() == pytest.approx(1, abs=1e-6)
    shifted = {**columns, "a": np.where(np.arange(50) < 40, columns["a"], 1e9)}
    assert prepare.fit(table(a="number"), shifted, train) == fitted


def test_missing_numbers_become_the_mean_and_a_mark() -> None:
    a = np.array([1.0, np.nan, 3.0, 5.0])
    fitted = prepare.fit(table(a="number"), {"a": a, "y": np.arange(4) % 2}, np.arange(4))
    assert numbers(fitted, {"a": a})[:, 1].tolist() == [0, 1, 0, 0]
    assert numbers(fitted, {"a": a})[1, 0] == 0
    whole = prepare.fit(table(a="number"), {"a": a[[0, 2, 3]], "y": np.arange(3) % 2}, np.arange(3))
    unseen = numbers(whole, {"a": np.array([np.nan, 3.0])})
    assert unseen.tolist() == [[0.0], [0.0]]


def test_heavy_tails_become_normal_scores() -> None:
    x = np.exp(RNG.randn(5000) * 2)
    stats = fit_number(x)
    assert stats["transform"] == "normal-scores"
    assert "skewed" in stats["reason"]
    z = number_features(x, stats)[:, 0]
    assert abs(z).max() < 5
    order = np.argsort(x)
    assert (np.diff(z[order]) >= 0).all()
    assert np.corrcoef(z, np.log(x))[0, 1] > 0.999
    assert np.isfinite(number_features(np.array([1e300, -1e300, 0.0]), stats)).all()
    few = fit_number(np.exp(RNG.randn(15) * 2))
    assert "transform" not in few
    far = RNG.randn(400)
    far[[0, 1]] = 8, -8
    assert fit_number(far)["transform"] == "normal-scores"
    assert abs(far / far.std()).max() < 8 > HEAVY


def test_many_rows_give_a_second_column() -> None:
    x = RNG.rand(MANY)
    stats = fit_number(x)
    features = number_features(x, stats)
    assert features.shape == (MANY, 2)
    assert np.corrcoef(features[:, 0], x)[0, 1] == pytest.approx(1)
    assert np.allclose(features.std(0), 1, atol=0.02)
    assert number_features(x[:9], fit_number(x[: MANY - 1])).shape == (9, 1)


def test_constant_and_empty_columns_do_no_harm() -> None:
    for values in (np.full(9, 3.5), np.full(9, np.nan)):
        assert np.isfinite(number_features(values, fit_number(values))).all()


def test_categories_have_codes_from_one_and_zero_for_the_unknown() -> None:
    values = words(*["red"] * 20, *["blue"] * 20, *["rare"] * 1, None)
    columns: dict[str, Column] = {"c": values, "y": np.arange(42) % 2}
    fitted = prepare.fit(table(c="category"), columns, np.arange(41))
    assert fitted.field("c").classes == ("blue", "rare", "red")
    many = {"c": words(*values.tolist() * 20, "once"), "y": np.arange(841) % 2}
    pooled = prepare.fit(table(c="category"), many, np.arange(841))
    assert pooled.field("c").classes == ("blue", "rare", "red")
    assert pooled.field("c").stats["pooled"] == 1
    found = prepare.encode_inputs(fitted, {"c": words("red", "green", None, "blue")}, row_name=name)
    assert found["categories"].tolist() == [[3], [0], [0], [1]]
    assert found["numbers"].shape == (4, 0)
    signature = prepare.signature(fitted, found, outputs=2)
    assert signature.cardinalities == (4,)
    assert signature.numbers == 0


def test_labels_are_one_whatever_the_file_type() -> None:
    columns: dict[str, Column] = {"c": np.array([1.0, 2.0] * 5), "y": np.arange(10) % 2}
    fitted = prepare.fit(table(c="category"), columns, np.arange(10))
    for same in (np.array([2, 1]), words("2", "1"), np.array([2.0, 1.0])):
        found = prepare.encode_inputs(fitted, {"c": same}, row_name=name)
        assert found["categories"].tolist() == [[2], [1]]


def test_dates_give_days_and_circles() -> None:
    days = np.datetime64("2020-01-01", "us") + np.arange(800) * np.timedelta64(1, "D")
    days[5] = np.datetime64("NaT")
    fitted = prepare.fit(table(d="date"), {"d": days, "y": np.arange(800) % 2}, np.arange(800))
    assert fitted.field("d").stats["cycles"] == ["year", "week"]
    z = numbers(fitted, {"d": days})
    assert z.shape == (800, 6)
    assert z[5].tolist() == [0, 0, 0, 0, 0, 1]
    assert np.allclose(z[:5, 1] ** 2 + z[:5, 2] ** 2, 1, atol=1e-6)
    assert np.allclose(z[6, 3:5], z[13, 3:5], atol=1e-5), "a week later"
    text = words(*[str(d)[:10] for d in days[6:9]])
    assert np.allclose(numbers(fitted, {"d": text}), z[6:9], atol=1e-6)


def test_vectors_are_standardised_by_column() -> None:
    x = RNG.rand(30, 4) * [1, 10, 100, 0]
    columns: dict[str, Column] = {"x": x, "y": np.arange(30) % 2}
    fitted = prepare.fit(table(x="number"), columns, np.arange(30))
    assert fitted.field("x").shape == (4,)
    z = numbers(fitted, columns)
    assert np.allclose(z[:, :3].std(0), 1, atol=1e-5)
    assert (z[:, 3] == 0).all()
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        numbers(fitted, {"x": x[:, :3]})


def test_class_targets_are_codes_from_zero() -> None:
    labels = words("no", "yes", "no", "no", "yes", "no")
    columns: dict[str, Column] = {"a": RNG.rand(6), "y": labels}
    fitted = prepare.fit(table(a="number"), columns, np.arange(6))
    assert fitted.classes == ("no", "yes")
    codes = prepare.encode_target(fitted, columns["y"], rows=np.arange(6), row_name=name)
    assert codes.dtype == torch.int64
    assert codes.tolist() == [0, 1, 0, 0, 1, 0]
    ordered = prepare.fit(table(a="number"), columns, np.arange(6), classes={"y": ("yes", "no")})
    assert ordered.classes == ("yes", "no")
    with pytest.raises(DataError, match="row 2: the class 'maybe'"):
        prepare.encode_target(fitted, words("no", "maybe"), rows=np.arange(2), row_name=name)


def test_number_targets_are_standardised() -> None:
    y = RNG.rand(40) * 1000
    columns: dict[str, Column] = {"a": RNG.rand(40), "y": y}
    fitted = prepare.fit(table("regress", a="number"), columns, np.arange(30))
    z = prepare.encode_target(fitted, y, rows=np.arange(40), row_name=name)
    assert z.dtype == torch.float32
    stats = fitted.field("y").stats
    assert stats["mean"] == pytest.approx(y[:30].mean())
    assert np.allclose(z.numpy() * stats["std"] + stats["mean"], y, rtol=1e-5)
    y[3] = np.nan
    with pytest.raises(DataError, match="row 4: the target 'y' is nan"):
        prepare.encode_target(fitted, y, rows=np.arange(40), row_name=name)
    left_out = np.delete(np.arange(40), 3)
    assert prepare.encode_target(fitted, y, rows=left_out, row_name=name)[3] == 0


def test_targets_nothing_can_be_learned_from() -> None:
    with pytest.raises(DataError, match="only one class: b"):
        prepare.fit(table(a="number"), {"a": RNG.rand(3), "y": words("b", "b", None)}, np.arange(3))
    with pytest.raises(DataError, match="is 7 in every training row"):
        prepare.fit(
            table("regress", a="number"), {"a": RNG.rand(3), "y": np.full(3, 7.0)}, np.arange(3)
        )


def test_bad_values_are_named() -> None:
    with pytest.raises(DataError, match="row 2: 'a' is 'x'"):
        as_numbers(words("1.5", "x"), "a", row_name=name)
    assert np.array_equal(as_numbers(words("1.5", None), "a"), [1.5, np.nan], equal_nan=True)
    with pytest.raises(DataError, match="row 1: 'd' is 'soon'"):
        as_dates(words("soon"), "d", row_name=name)
    with pytest.raises(DataError, match="dates"):
        as_numbers(np.array(["2020-01-01"], dtype="datetime64[us]"), "a")
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(DataError, match="row 2: the weight 'w'"):
            prepare.encode_weight("w", np.array([1.0, bad]), row_name=name)
    fitted = prepare.fit(table(a="number"), {"a": RNG.rand(4), "y": np.arange(4) % 2}, np.arange(4))
    with pytest.raises(DataError, match="'a' is missing"):
        prepare.encode_inputs(fitted, {"b": RNG.rand(4)}, row_name=name)
    with pytest.raises(DataError, match="no encoding"):
        prepare.fit(table(t="boxes"), {"t": words("a"), "y": words("b")}, np.arange(1))


def test_a_fitted_schema_survives_json() -> None:
    columns: dict[str, Column] = {
        "a": np.exp(RNG.randn(1200) * 2), "b": RNG.rand(1200),
        "c": words(*["x", "y", None] * 400), "y": np.arange(1200) % 3,
        "d": np.datetime64("2020-01-01", "us") + np.arange(1200) * np.timedelta64(7, "h"),
    }  # fmt: skip
    schema = table(a="number", b="number", c="category", d="date")
    fitted = prepare.fit(schema, columns, np.arange(1100))
    back = Schema.from_dict(json.loads(json.dumps(fitted.to_dict())))
    a = prepare.encode_inputs(fitted, columns, row_name=name)
    b = prepare.encode_inputs(back, columns, row_name=name)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_number_far_beyond_training_stays_finite() -> None:
    schema = prepare.fit(
        table(x="number"), {"x": RNG.rand(9), "y": words(*"abc" * 3)}, np.arange(9)
    )
    found = numbers(schema, {"x": np.array([1e300, -1e300])})
    assert np.isfinite(found).all()
    assert found[0, 0] > 1e9 > -1e9 > found[1, 0]


def test_labels_like_numbers_are_known_in_a_file_of_numbers_alone() -> None:
    columns = {"c": words(*["1.0", "2.50", "x"] * 30), "y": words(*"ab" * 45)}
    schema = prepare.fit(table(c="category"), columns, np.arange(90))
    for given in (words("1.0", "2.50"), np.array([1.0, 2.5])):
        found = prepare.encode_inputs(schema, {"c": given}, row_name=name)["categories"]
        assert found[:, 0].tolist() == [1, 2]
