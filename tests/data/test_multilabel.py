"""Several labels a row: lists in a column, columns of 0 and 1, in tables and beside pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.data import drawn

from gipi.core.errors import DataError
from gipi.core.schema import Schema
from gipi.data import DataOptions, audit, open_data, read_rows

LISTS = ["cat|dog", "dog", "", "cat", "bird|cat", "dog | bird", "cat", "dog", "bird", "cat|dog"]


def pictures(root, column, n=40):
    rows = drawn.squares(n)
    lines = ["image," + column[0]]
    for i, (picture, _, _) in enumerate(rows):
        drawn.write(root / "p" / f"{i:02d}.png", picture)
        lines.append(f"p/{i:02d}.png,{column[1](i)}")
    path = root / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("sign", ["|", ";"])
def test_lists_beside_pictures(tmp_path, sign):
    path = pictures(tmp_path, ("labels", lambda i: LISTS[i % 10].replace("|", sign)))
    data = open_data(path)
    assert data.schema.task == "classify"
    assert f"lists several labels a row, with '{sign}' between" in data.schema.task_reason
    field = data.schema.target
    assert field.multi
    assert field.classes == ("bird", "cat", "dog")
    assert field.shape == (3,)
    batch = next(data.stream("train", batch_size="full").epoch(0))
    assert batch.target.dtype == torch.float32
    for row, target in zip(batch.ids.tolist(), batch.target, strict=True):
        named = {n for n, v in zip(field.classes, target.tolist(), strict=True) if v}
        assert named == {w.strip() for w in LISTS[row % 10].split("|") if w.strip()}
    assert "rarest class" in data.split_reason
    found = audit(path)
    assert found.classes == {"bird": 12, "cat": 20, "dog": 20}


def test_columns_of_0_and_1_beside_pictures(tmp_path):
    path = pictures(tmp_path, ("cat,dog", lambda i: f"{i % 2},{int(i % 3 == 0)}"))
    data = open_data(path)
    assert data.schema.target.multi
    assert data.schema.task_reason == "2 columns of 0 and 1 are labels of the same row"
    expected = [[i % 2, int(i % 3 == 0)] for i in range(40)]
    assert data.columns.target.tolist() == expected
    schema = Schema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
    assert read_rows(path, schema).columns.target.tolist() == expected
    lines = [line.split(",") for line in path.read_text().split()]
    other = tmp_path / "other.csv"
    other.write_text("\n".join(f"{a},{c},1,{b}" for a, b, c in lines).replace(",1,", ",owl,", 1))
    assert read_rows(other, schema).columns.target.tolist() == expected, "matched by name"
    other.write_text("\n".join(f"{a},{c},{b}" for a, b, c in lines).replace("cat", "owl"))
    with pytest.raises(DataError, match="no column for the label 'cat'"):
        read_rows(other, schema)
    assert read_rows(other, schema, target=False).columns.target is None
    picture = read_rows(tmp_path / "p" / "03.png", schema)
    assert picture.columns.target is None


def test_tables():
    rng = np.random.RandomState(0)
    table = {
        "x": rng.rand(60), "size": rng.rand(60),
        "a": rng.randint(0, 2, 60), "b": rng.randint(0, 2, 60), "c": rng.randint(0, 2, 60),
    }  # fmt: skip
    data = open_data(table, DataOptions(target="a,c"))
    assert data.schema.target.classes == ("a", "c")
    assert [f.name for f in data.schema.inputs] == ["x", "size", "b"]
    assert torch.equal(
        data.columns.target, torch.tensor(np.stack([table["a"], table["c"]], 1)).float()
    )
    again = read_rows(table, data.schema)
    assert torch.equal(again.columns.target, data.columns.target)
    assert read_rows({k: table[k] for k in ("x", "size", "b")}, data.schema).columns.target is None
    with pytest.raises(DataError, match=r"'x' holds other values than 0 and 1: row \d+ has "):
        open_data(table, DataOptions(target="a,x"))
    with pytest.raises(DataError, match="no column is called 'q'"):
        open_data(table, DataOptions(target="a,q"))
    lists = {"x": rng.rand(60), "y": np.array([LISTS[i % 10] or "bird" for i in range(60)])}
    found = open_data(lists, DataOptions(target="y"))
    assert found.schema.target.multi
    few = {"x": rng.rand(2), "y": np.array(["cat", "newt|dog"])}
    with pytest.raises(DataError, match="row 2: the label 'newt' of 'y'"):
        read_rows(few, found.schema)


def test_text_with_a_separator_is_not_always_a_list():
    rng = np.random.RandomState(0)
    odd = np.array([f"a|{i}" for i in range(40)] + ["b|c"] * 40)
    plain = {"x": rng.rand(80), "y": np.where(rng.rand(80) < 0.5, "yes", "no")}
    assert not open_data(plain).schema.target.multi
    from gipi.data.multilabel import separator_of

    assert separator_of(odd[:40].astype(object)) is None
    assert separator_of(np.arange(4.0)) is None
