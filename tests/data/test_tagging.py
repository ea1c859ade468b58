"""Tagged sentences: from a file to tokens and tags, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.data.sentences import tagged, write_conll

from gipi.core.errors import ConfigError, DataError
from gipi.data import DataOptions, joined_tokens, open_data, read_rows
from gipi.data.source import Source
from gipi.data.sources.plain import objects
from gipi.data.tokens import Tokens
from gipi.text import train_tokenizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_conll(tmp_path / "people.conll")


def source(tokens: list[tuple[str, ...]], tags: list[tuple[str, ...] | None]) -> Source:
    """Return sentences in memory, as somebody's own code may make them."""
    return Source(
        "mine", {"tokens": objects(tokens), "tags": objects(tags)}, len(tokens), target="tags",
        classes={"tags": ("O", "B-PER", "I-PER")},
        schema_hints={"tokens": "tokens", "tags": "tags"},
    )  # fmt: skip


def test_words_and_tags_lie_beside_each_other(file: Path) -> None:
    found = open_data(file, DataOptions(val=0.2, test=0.2))
    assert found.schema.task == "tag"
    assert found.schema.task_reason == "a token and its tag a line"
    assert found.schema.classes == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    target = found.columns.target
    assert isinstance(target, Tokens)
    for row in (0, 1, 7):
        tags = [found.schema.classes[k] for k in target.row(row)]
        assert tags == list(found.source.columns["tags"][row])
    batch = next(iter(found.stream("train", batch_size=16).epoch(0)))
    assert list(batch.inputs) == ["words", "shapes", "letters"]
    assert batch.target is not None
    assert batch.target.shape == batch.inputs["words"].shape
    assert ((batch.target == -100) == (batch.inputs["words"] == 0)).all()
    assert any("known, those that occur" in note for note in found.notes)


def test_the_signature_says_what_a_model_must_know(file: Path) -> None:
    found = open_data(file)
    signature = found.signature(len(found.schema.classes))
    assert (signature.per, len(signature.parts), signature.pad) == ("token", 3, 0)
    assert signature.vocab == len(found.schema.field("tokens").stats["words"]) + 2


def test_words_are_learned_from_training_rows_alone(file: Path) -> None:
    found = open_data(file, DataOptions(val=0.3, test=0.3))
    train = {w.lower() for i in found.splits["train"] for w in found.source.columns["tokens"][i]}
    assert {w for w in found.schema.field("tokens").stats["words"] if w.isalpha()} <= train


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "char", "word"])
def test_of_pieces_the_first_has_the_tag(file: Path, kind: str) -> None:
    found = open_data(file, DataOptions(units="pieces", tokenizer=kind))
    tokens, starts = (found.columns.inputs[k] for k in ("tokens", "starts"))
    target = found.columns.target
    assert isinstance(tokens, Tokens)
    assert isinstance(starts, Tokens)
    assert isinstance(target, Tokens)
    for row in range(10):
        words, first = found.source.columns["tokens"][row], starts.row(row) == 1
        assert first.sum() == len(words)
        assert [found.schema.classes[k] for k in target.row(row)[first]] == list(
            found.source.columns["tags"][row]
        )
        assert (target.row(row)[~first] == -100).all()


def test_words_in_a_sentence_have_the_pieces_that_they_have_in_a_text(tmp_path: Path) -> None:
    rows = tagged(60)
    texts = [" ".join(w for w, _ in row) for row in rows]
    path = train_tokenizer(texts, kind="bpe", vocab=400).save(tmp_path / "own.json")
    file = write_conll(tmp_path / "people.conll", rows)
    found = open_data(file, DataOptions(units="pieces", tokenizer=str(path)))
    whole = train_tokenizer(texts, kind="bpe", vocab=400)
    tokens, starts = found.columns.inputs["tokens"], found.columns.inputs["starts"]
    assert isinstance(tokens, Tokens)
    assert isinstance(starts, Tokens)
    for row in range(10):
        assert tokens.row(row).tolist() == whole.encode(texts[row]).ids.tolist()


def test_new_rows_are_read_as_in_training(file: Path) -> None:
    trained = open_data(file)
    again = read_rows(file, trained.schema)
    for name, column in trained.columns.inputs.items():
        other = again.columns.inputs[name]
        assert isinstance(column, Tokens)
        assert isinstance(other, Tokens)
        assert np.array_equal(column.values, other.values)
    assert read_rows(file, trained.schema, target=False).columns.target is None


def test_a_folder_of_three_files_is_its_own_split(tmp_path: Path) -> None:
    rows = tagged(90)
    for name, part in (("train", rows[:60]), ("valid", rows[60:75]), ("test", rows[75:])):
        write_conll(tmp_path / f"{name}.txt", part)
    (tmp_path / "README.txt").write_text("what this is\n")
    found = open_data(tmp_path)
    assert found.schema.task == "tag"
    assert len(found.splits["test"]) == 15
    assert open_data(tmp_path / "train.txt").schema.task == "tag"


def test_texts_that_are_no_tags_are_none(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("It was late.\n\nWe went home.\n")
    with pytest.raises(DataError):
        open_data(tmp_path / "note.txt")


# ---------------------------------------------------------------------------- refused


def refused(found: Source, *words: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(found)
    for word in words:
        assert word in str(error.value)


def test_tokens_and_tags_of_different_number() -> None:
    good = (("Ann", "ran"), ("B-PER", "O"))
    found = source([good[0], ("Ann", "ran", ".")], [good[1], ("B-PER", "O")])
    refused(found, "row 2: 3 tokens and 2 tags", "a tag for each token", "correct the row")


def test_an_entity_that_nothing_begins() -> None:
    found = source([("Ann", "Lee")], [("O", "I-PER")])
    refused(found, "I-PER at 'Lee' follows O", "B-PER where an entity begins", "write B-PER")


def test_a_tag_of_another_form() -> None:
    refused(source([("Ann",)], [("PER",)]), "'PER' at 'Ann' is no tag", "B-type")


def test_nothing_to_find() -> None:
    found = replace(source([("a",), ("b",)], [("O",), ("O",)]), classes={"tags": ("O",)})
    refused(found, "every tag is O", "tags to learn")


@pytest.mark.parametrize("units", ["words", "pieces"])
def test_sentences_without_a_token_and_tokens_that_cannot_be_read(units: str) -> None:
    rows = [("Ann", "ran"), (), ("a\0b",), ("",), ("\ud800",), ("Bea",)]
    tags = [("B-PER", "O"), (), ("O",), ("O",), ("O",), ("B-PER",)]
    found = source(rows, tags)  # type: ignore[arg-type]
    options = DataOptions(val=0, test=0, units=units)  # type: ignore[arg-type]
    with pytest.raises(DataError) as error:
        open_data(found, options)
    for said in ("4 rows of 6", "row 2: a sentence without a token", "null byte", "surrogate"):
        assert said in str(error.value)
    kept = open_data(found, replace(options, bad_rows="skip"))
    assert kept.splits["train"].tolist() == [0, 5]


def test_a_sentence_beyond_the_limit_is_named_and_not_cut(tmp_path: Path) -> None:
    rows = tagged(20)
    rows[7] = rows[7] * 5
    file = write_conll(tmp_path / "people.conll", rows)
    line = 1 + sum(len(row) + 1 for row in rows[:7])
    with pytest.raises(DataError) as error:
        open_data(file, DataOptions(max_length=12))
    assert f"people.conll line {line}: it has" in str(error.value)
    assert "the limit is 12 (max_length raises it)" in str(error.value)
    assert "bad_rows=skip" in str(error.value)
    kept = open_data(file, DataOptions(max_length=12, bad_rows="skip"))
    assert 7 not in np.concatenate(list(kept.splits.values()))


def test_what_cannot_go_together(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task=classify"):
        open_data(file, DataOptions(task="classify"))
    with pytest.raises(ConfigError, match="reads whole words"):
        open_data(file, DataOptions(tokenizer="bpe"))
    with pytest.raises(DataError, match="the target 'tags'"):
        open_data(file, DataOptions(target="tokens"))
    (tmp_path / "plain.csv").write_text("a,y\n" + "\n".join(f"{i},{i % 2}" for i in range(40)))
    with pytest.raises(DataError, match="nothing to tag"):
        open_data(tmp_path / "plain.csv", DataOptions(task="tag"))


def test_a_tag_that_training_did_not_know(file: Path, tmp_path: Path) -> None:
    schema = open_data(file).schema
    other = write_conll(tmp_path / "other.conll", [[("Mars", "B-PLANET"), (".", "O")]])
    with pytest.raises(DataError, match=r"other.conll line 1: the tag 'B-PLANET'"):
        read_rows(other, schema)
    plain = {"a": np.arange(5.0)}
    with pytest.raises(DataError, match="has no tokens"):
        read_rows(plain, schema)


def test_characters_as_tokens_keep_their_spaces() -> None:
    text, places = joined_tokens(list("ab c"))
    assert (text, places[-1]) == ("ab c", (3, 4))
