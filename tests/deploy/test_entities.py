"""Entities: tags as spans of texts, and what people give a model of tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.sentences import write_conll

from gipi.core.errors import DataError
from gipi.core.schema import Field, Schema
from gipi.data import Source, words_of
from gipi.deploy import entities, predictions
from gipi.deploy.sentences import as_sentences, sentences
from gipi.metrics import build

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def schema(*, joint: bool = True) -> Schema:
    tokens = Field("tokens", "text", "input", stats={"joint": joint})
    return Schema((tokens, Field("tags", "tags", "target", classes=TAGS)), "tag")


def ids(*rows: str) -> torch.Tensor:
    """Return tags by their first letters: O, p, P, l, L (small: inside)."""
    names = {"O": 0, "L": 1, "l": 2, "P": 3, "p": 4, ".": -100}
    return torch.tensor([[names[c] for c in row] for row in rows])


def said(source: Source, *rows: list[str]) -> dict[str, np.ndarray]:
    tags = np.empty(len(rows), dtype=object)
    tags[:] = list(rows)
    return entities.placed({"tags": tags}, source, np.arange(len(rows)))


@pytest.mark.parametrize(
    "row", ["PpOLl", "pOlLl", "PPp", "PlL", "OOO", "lp", "PpPp", "LlOllP"]
)  # fmt: skip
def test_entities_are_those_that_the_metric_counts(row: str) -> None:
    tags = ids(row)
    found = entities.entities_in([TAGS[k] for k in tags[0].tolist()])
    metric = build("entity_f1", options={"tags": TAGS})
    state = metric.init("cpu")
    metric.update(state, tags, tags, None)
    assert float(state["true"].sum()) == len(found)
    assert all(a <= b for _, a, b in found)


def test_entities_of_a_text_have_its_characters() -> None:
    text = "Ann-Marie Lee,  of New York."
    source = sentences([text], schema())
    assert source.columns["tokens"][0] == ("Ann-Marie", "Lee", ",", "of", "New", "York", ".")
    found = said(source, ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"])
    assert found["text"][0] == text
    assert found["entities"][0] == [
        {"type": "PER", "text": "Ann-Marie Lee", "start": 0, "end": 13},
        {"type": "LOC", "text": "New York", "start": 19, "end": 27},
    ]
    for entity in found["entities"][0]:
        assert text[entity["start"] : entity["end"]] == entity["text"]


def test_entities_of_tokens_have_the_characters_of_the_joined_text(tmp_path: Path) -> None:
    file = write_conll(tmp_path / "a.conll", [[("Ann", "O"), ("in", "O"), ("Rome", "B-LOC")]])
    source = as_sentences(str(file), schema(), is_text=False)
    assert source == str(file)  # known data is read where all data is read
    from gipi.data import read_source

    found = said(read_source(file), ["B-PER", "O", "B-LOC"])
    assert found["text"][0] == "Ann in Rome"
    assert found["entities"][0][1] == {"type": "LOC", "text": "Rome", "start": 7, "end": 11}


def test_characters_are_tokens_where_they_were_in_training() -> None:
    source = sentences(["김 씨"], schema(joint=False))
    assert source.columns["tokens"][0] == ("김", " ", "씨")
    found = said(source, ["B-PER", "O", "O"])
    assert found["entities"][0][0] == {"type": "PER", "text": "김", "start": 0, "end": 1}


@pytest.mark.parametrize("text", ["It's 5%.", "a-b c", "  two  spaces ", "한국은 2-0으로", ""])
def test_words_keep_every_sign(text: str) -> None:
    found = words_of(text)
    assert "".join(w for w, _, _ in found) == "".join(text.split())
    assert all(text[a:b] == w for w, a, b in found)


def test_files_and_tables_of_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ann ran.\n\nBen sat.\n")
    found = as_sentences(tmp_path / "a.txt", schema(), is_text=False)
    assert found.row_names == ("a.txt line 1", "a.txt line 3")
    assert found.notes == ("texts: a.txt: 1 empty line left out",)
    (tmp_path / "late.txt").write_text("\n\nAnn ran.\n")
    found = as_sentences(tmp_path / "late.txt", schema(), is_text=False)
    assert found.row_names == ("late.txt line 3",)
    (tmp_path / "a.csv").write_text("n,text\n1,Ann ran.\n2,Ben sat.\n")
    found = as_sentences(tmp_path / "a.csv", schema(), is_text=False)
    assert [" ".join(t) for t in found.columns["tokens"]] == ["Ann ran .", "Ben sat ."]
    (tmp_path / "tagged.txt").write_text("Ann B-PER\n\nBen B-PER\n")
    found = as_sentences(tmp_path / "tagged.txt", schema(), is_text=False)
    assert found.columns["tokens"].tolist() == [("Ann",), ("Ben",)]
    assert as_sentences(["Ann ran.", "Ben"], schema(), is_text=False).rows == 2
    (tmp_path / "b.csv").write_text("n,m\n1,Ann ran.\n2,Ben sat.\n")
    with pytest.raises(DataError, match="has no column 'text'"):
        as_sentences(tmp_path / "b.csv", schema(), is_text=False)
    (tmp_path / "c.txt").write_text("\n")
    with pytest.raises(DataError, match="has no text"):
        as_sentences(tmp_path / "c.txt", schema(), is_text=False)


def test_answers_are_written_entity_by_entity(tmp_path: Path) -> None:
    source = sentences(["Ann ran", "no"], schema())
    values = said(source, ["B-PER", "O"], ["O"])
    found = predictions.Predictions(("one", "two"), values)
    assert [r["entities"] for r in found] == [values["entities"][0], []]
    assert found[0]["tags"] == ["B-PER", "O"]
    lines = found.save(tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["row,type,text,start,end", "one,PER,Ann,0,3"]
    assert predictions.answers.brief(found[0]) == "PER 'Ann' (0-3)"
    assert predictions.answers.brief(found[1]) == "no entity"


# ---------------------------------------------------------------------------- for a report


def facts(said_rows: tuple[str, ...], true_rows: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    return entities.facts_of(ids(*said_rows), ids(*true_rows), None, schema())


def test_figures_by_type() -> None:
    found, wrong = facts(("PpOL.", "OOOO.", "LOPp."), ("PpOL.", "LlOP.", "LOPP."))
    rows = {r["class"]: r for r in found["per_class"]}
    assert (rows["LOC"]["rows"], rows["LOC"]["recall"], rows["LOC"]["precision"]) == (3, 2 / 3, 1)
    assert (rows["PER"]["rows"], rows["PER"]["recall"]) == (4, 1 / 4)
    assert rows["PER"]["f1"] == 2 * 1 / (4 + 2)
    assert wrong.tolist() == [0, 2, 3]
    assert found["sentences"] == {"rows": 3, "right": 1}


def test_worst_sentences_come_first_and_right_ones_not_at_all() -> None:
    true = ids("PpOL.", "LlOP.", "LOPP.")
    found = ids("PpOL.", "OOOO.", "LOPp.")
    _, wrong = entities.facts_of(found, true, None, schema())
    order = entities.worst_order(wrong, true)
    assert order.tolist() == [2, 1]
    shown = entities.worst_sentences(
        found[order], true[order], wrong[order], schema(), names=["c", "b"],
        tokens=[list("abcd"), list("efgh")],
    )  # fmt: skip
    assert shown[0]["name"] == "c"
    assert shown[0]["target"] == [["LOC", 0, 0], ["PER", 2, 2], ["PER", 3, 3]]
    assert shown[0]["prediction"] == [["LOC", 0, 0], ["PER", 2, 3]]
