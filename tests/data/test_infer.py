"""Schema inference: kinds, roles, target and task with reasons; every wrong request named."""

from __future__ import annotations

import numpy as np
import pytest

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Schema
from gipi.data.infer import infer_schema
from gipi.data.options import DataOptions
from gipi.data.sources import read_source

N = 60
RNG = np.random.default_rng(0)


def table(**columns):
    return read_source(
        {"a": RNG.normal(size=N), "b": np.arange(N) % 7, **columns, "y": np.arange(N) % 3}
    )


def infer(source, **options) -> Schema:
    return infer_schema(source, DataOptions(**options))


@pytest.mark.parametrize(
    ("values", "kind", "role", "reason"),
    [
        (RNG.normal(size=N), "number", "input", "numbers"),
        ([None, *range(N - 1)], "number", "input", "1 missing"),
        (np.arange(N) % 5, "number", "input", "whole numbers"),
        (np.arange(N) % 2 == 0, "number", "input", "true or false"),
        ([f"k{i % 4}" for i in range(N)], "category", "input", "4 different labels"),
        (np.arange(N).astype("datetime64[D]"), "date", "input", "dates"),
        (RNG.normal(size=(N, 4)), "number", "input", "4 numbers a row"),
        (np.zeros((N, 8, 8), np.uint8), "image", "input", "pictures"),
        (np.full(N, 3.0), "number", "ignored", "constant: every row is '3.0'"),
        (["same"] * N, "category", "ignored", "constant: every row is 'same'"),
        ([None] * N, "category", "ignored", "empty"),
        ([f"u-{i}" for i in range(N)], "category", "ignored", "identifier: 60 different values"),
        ([f"the {i} quick brown foxes" for i in range(N)], "text", "ignored", "free text"),
    ],
)
def test_kinds(values, kind, role, reason):
    field = infer(table(c=values)).field("c")
    assert (field.kind, field.role) == (kind, role)
    assert reason in field.reason


@pytest.mark.parametrize(
    ("name", "ignored"),
    [("id", True), ("PassengerId", True), ("user_id", True), ("ID", True), ("index", True),
     ("price_index", False),
     ("humid", False), ("width", False), ("video", False), ("idea", False), ("paid", False)],
)  # fmt: skip
def test_identifiers_by_name(name, ignored):
    values = RNG.permutation(N) + 1000
    assert (infer(table(**{name: values})).field(name).role == "ignored") == ignored


def test_a_first_column_that_counts_the_rows_is_ignored_only_beside_others():
    y = RNG.normal(size=N)
    source = read_source({"n": np.arange(N), "a": RNG.normal(size=N), "y": y})
    assert "counts the rows" in infer(source).field("n").reason
    assert infer(read_source({"n": np.arange(N), "y": y})).field("n").role == "input"
    assert infer(source, overrides={"n": "number"}).field("n").role == "input"


def test_the_target_is_chosen_with_a_reason():
    assert "called 'y'" in infer(table()).target.reason
    assert (
        "last column"
        in infer(read_source({"a": np.arange(N) % 7, "z": np.arange(N) % 3})).target.reason
    )
    assert infer(table(), target="b").target.name == "b"
    assert "known target of iris" in infer(read_source("iris")).target.reason


@pytest.mark.parametrize(
    ("values", "task", "reason"),
    [
        (["p", "q"] * (N // 2), "classify", "text"),
        (np.arange(N) % 2 == 0, "classify", "true or false"),
        (np.arange(N) % 3, "classify", "3 different whole numbers"),
        ((np.arange(N) % 2).astype(float), "classify", "2 different whole numbers"),
        (np.arange(N) * 3, "regress", "60 different whole numbers"),
        (np.arange(N) % 3 + 0.5, "regress", "3 different numbers"),
        (RNG.normal(size=N), "regress", "60 different numbers"),
        (RNG.normal(size=(N, 2)), "regress", "2 numbers a row"),
    ],
)
def test_the_task_follows_from_the_target(values, task, reason):
    schema = infer(read_source({"a": RNG.normal(size=N), "t": values}), target="t")
    assert schema.task == task
    assert reason in schema.task_reason
    assert schema.target.kind == ("category" if task == "classify" else "number")


def test_many_labels_in_order_are_classes():
    labels = np.arange(1000) % 50
    schema = infer(read_source({"a": RNG.normal(size=1000), "y": labels}))
    assert (schema.task, schema.task_reason) == ("classify", "the target has the labels 0..49")


def test_task_and_overrides_win():
    source = read_source({"a": RNG.normal(size=N), "y": np.arange(N) % 3})
    assert infer(source, task="regress").task == "regress"
    assert infer(source, overrides={"y": "number"}).task == "regress"
    schema = infer(table(z=np.arange(N) % 4), overrides={"z": "category", "b": "ignored"})
    assert schema.field("z").kind == "category"
    assert schema.field("b").role == "ignored"
    assert infer(table(s=["1", "2"] * 30), overrides={"s": "number"}).field("s").kind == "number"


def test_special_roles():
    source = table(w=np.ones(N), g=np.arange(N) % 9, t=np.arange(N), s=["train", "test"] * 30)
    schema = infer(source, weight="w", group="g", time_column="t", split_column="s")
    assert {f.name: f.role for f in schema.fields if f.role not in ("input", "target")} == {
        "w": "weight", "g": "group", "t": "time", "s": "split",
    }  # fmt: skip


def bad(message, error=DataError, *, data=None, **options):
    return pytest.param(data, options, error, message, id=message[:30])


WRONG = [
    bad("did you mean 'b'", target="bb"),
    bad("group 'zz' is no column", group="zz"),
    bad("time column 'zz'", time_column="zz"),
    bad("weight 'zz'", weight="zz"),
    bad("split column 'zz'", split_column="zz"),
    bad("has no column 'zz'", overrides={"zz": "number"}),
    bad("did you mean 'number'", ConfigError, overrides={"a": "numbr"}),
    bad("did you mean 'classify'", ConfigError, task="clasify"),
    bad("named as weight and as group", ConfigError, weight="a", group="a"),
    bad("named as target and as weight", ConfigError, weight="y", target="y"),
    bad("but 'y' is the target", ConfigError, target="y", overrides={"y": "ignored"}),
    bad("holds no pictures", overrides={"a": "image"}),
    bad("in 2 of 4 rows: row 1, row 4", data={"a": [1, 2, 3, 4], "y": [None, "p", "q", None]}),
    bad("missing in 1 of 4 rows: row 2", data={"a": [1, 2, 3, 4], "y": [1.5, np.nan, 3, 4]}),
    bad("infinite in 1 rows: row 3", data={"a": [1, 2, 3, 4], "y": [1.5, 2, np.inf, 4]}),
    bad("only one class: 'p'", data={"a": [1, 2, 3], "y": ["p"] * 3}),
    bad("in every row", data={"a": [1, 2, 3], "y": [1.5] * 3}),
    bad("is not a number in 1 rows: 'p' (row 2)".replace("(", r"\(").replace(")", r"\)"),
        data={"a": [1, 2, 3], "y": ["1", "p", "3"]}, task="regress"),
    bad("60 different values in 60 rows",
        data={"a": RNG.normal(size=N), "y": RNG.normal(size=N)}, task="classify"),
    bad("one label a row", data={"a": RNG.normal(size=N), "y": np.eye(N)}, task="classify"),
    bad("has no input column", data={"a": np.ones(N), "y": np.arange(N) % 2}),
    bad("nothing to predict", data={"x": RNG.normal(size=(N, 3))}),
    bad("holds pictures", data={"a": np.zeros((4, 8, 8), np.uint8), "y": [0, 1, 0, 1]}, target="a"),
    bad("no value of column 's' is a number", data={"s": ["p", "q"] * 30, "y": np.arange(N) % 2},
        overrides={"s": "number"}),
    bad("holds 3 numbers a row", data={"x": RNG.normal(size=(N, 3)), "y": np.arange(N) % 2},
        overrides={"x": "category"}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "options", "error", "message"), WRONG)
def test_wrong_requests(data, options, error, message):
    source = table() if data is None else read_source(data)
    with pytest.raises(error, match=message) as caught:
        infer(source, **options)
    assert all(caught.value.as_dict().values())
    assert str(caught.value).count("\n") < 12


def test_a_target_by_number_where_there_is_no_header(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{i % 2},{i}.5,{i % 3}\n" for i in range(20)))
    source = read_source(path, target="1")
    assert infer(source, target="1").target.name == "column 1"
    assert infer(read_source(path), target="-1").target.name == "column 3"


def test_the_schema_travels_as_json():
    schema = infer(table(c=[f"k{i % 4}" for i in range(N)]))
    assert Schema.from_dict(schema.to_dict()) == schema


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "kinds", "ignored"),
    [
        ("adult", {"number": 6, "category": 8}, []),
        ("california-housing", {"number": 8, "category": 1}, []),
        ("titanic", {"number": 5, "category": 4}, ["PassengerId", "Name"]),
    ],
)
def test_real_tables(data_folder, name, kinds, ignored):
    schema = infer(read_source(name))
    found = {k: len(schema.of("input", k)) for k in kinds}
    assert found == kinds
    assert [f.name for f in schema.of("ignored")] == ignored
