"""Texts as inputs: which columns are texts, the tokenizer, composed rows, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.data.texts import reviews, write_csv, write_rows

from gipi.core.errors import ConfigError, DataError
from gipi.data import DataOptions, Dataset, audit, open_data, read_rows
from gipi.data import texts as texts_
from gipi.data.cache import ragged
from gipi.data.compose import Frame, compose, frame_of, pad_of
from gipi.data.infer import infer_schema
from gipi.data.keys import folded
from gipi.data.sources import read_source
from gipi.data.texts import tokenizer_of
from gipi.data.tokenizing import choose_tokenizer, guess, size_for
from gipi.data.wordy import words_in
from gipi.text import train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

TEXTS, LABELS = zip(*reviews(120), strict=True)
KOREAN = ["영화가 정말 재미있어요", "배우들의 연기가 너무 아쉬웠다", "다시 보고 싶은 영화"]


def opened(columns: dict[str, Any] | None = None, **options: Any) -> Dataset:
    table = columns or {"text": list(TEXTS), "label": list(LABELS)}
    return open_data(table, DataOptions(**options))


def kinds(columns: dict[str, Any], **options: Any) -> dict[str, tuple[str, str]]:
    schema = infer_schema(read_source(columns), DataOptions(**options))
    return {f.name: (f.kind, f.role) for f in schema.fields}


# ------------------------------------------------------------------ which columns


def test_a_column_of_text_is_found_by_itself() -> None:
    found = opened()
    field = found.schema.field("text")
    assert (field.kind, field.role) == ("text", "input")
    assert "words a row" in field.reason
    assert list(found.columns.inputs) == ["tokens"]
    signature = found.signature(2)
    assert signature.vocab == tokenizer_of(found.schema).vocab_size
    assert signature.pad == 0
    widest = max(b.inputs["tokens"].shape[1] for name in found.splits
                 for b in found.stream(name, batch_size=7).epoch(0))  # fmt: skip
    assert signature.length == widest


def test_two_columns_of_text_are_a_pair() -> None:
    found = opened({"a": TEXTS, "b": TEXTS[::-1], "label": LABELS})
    assert list(found.columns.inputs) == ["tokens", "segments"]
    tokenizer = tokenizer_of(found.schema)
    row, marks = (found.columns.inputs[k].row(3).tolist() for k in ("tokens", "segments"))
    whole = tokenizer.encode(TEXTS[3], TEXTS[-4])
    assert row == whole.ids.tolist()
    assert marks == whole.segments.tolist()


def test_of_three_texts_the_two_with_most_words_are_read() -> None:
    short = [f"title number {i} of all" for i in range(120)]
    found = kinds({"t": short, "a": TEXTS, "b": TEXTS[::-1], "label": LABELS})
    assert found["t"] == ("text", "ignored")
    assert found["a"] == found["b"] == ("text", "input")


def test_text_beside_a_table_says_how_to_read_it() -> None:
    table = {f"x{i}": np.arange(120.0) * i for i in range(1, 6)}
    source = read_source({**table, "text": TEXTS, "label": LABELS})
    schema = infer_schema(source, DataOptions())
    assert schema.field("text").role == "ignored"
    assert "beside 5 other columns" in schema.field("text").reason
    assert "schema.text=text" in schema.field("text").reason
    alone = infer_schema(source, DataOptions(overrides={"text": "text"}))
    assert [f.name for f in alone.inputs] == ["text"]
    assert "schema.text=ignored" in alone.field("x1").reason


def test_a_document_is_worth_more_than_a_small_table() -> None:
    found = kinds({"when": np.arange(120.0) / 7, "text": TEXTS, "label": LABELS})
    assert found["text"] == ("text", "input")
    assert found["when"] == ("number", "ignored")
    titles = [" ".join(t.split()[:4]) + f" {i}" for i, t in enumerate(TEXTS)]
    assert kinds({"when": np.arange(120.0) / 7, "t": titles, "label": LABELS})["t"][1] == "ignored"


def test_text_and_a_table_cannot_both_be_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"schema\.text=text and schema\.x as an input"):
        kinds({"x": np.arange(120.0), "text": TEXTS, "label": LABELS},
              overrides={"text": "text", "x": "number"})  # fmt: skip


def test_lone_words_are_text_where_there_is_nothing_else() -> None:
    names = ["".join(chr(97 + (i * k) % 26) for k in range(1, 8)) + chr(97 + i % 26)
             for i in range(60)]  # fmt: skip
    found = kinds({"name": sorted(set(names)), "label": ["a", "b"] * (len(set(names)) // 2)
                   + ["a"] * (len(set(names)) % 2)})  # fmt: skip
    assert found["name"] == ("text", "input")
    assert guess(names) == ("char", "each text is a short word")


def test_the_last_column_is_no_target_where_it_is_text() -> None:
    schema = infer_schema(read_source({"mood": LABELS, "words": TEXTS}), DataOptions())
    assert schema.target is not None
    assert schema.target.name == "mood"
    assert "no text" in schema.target.reason


def test_words_of_scripts_without_spaces_are_counted() -> None:
    assert words_in("今天天气很好我们去公园") > 4
    assert words_in("영화가 재미있다") == 2


# ------------------------------------------------------------------ the tokenizer


def test_the_tokenizer_sees_training_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(val=0.2, test=0.2)
    held = np.concatenate([first.splits["val"], first.splits["test"]])
    strange = list(TEXTS)
    for i in held.tolist():
        strange[i] = "zyx " * 4 + str(i)
    table = {"text": strange, "label": list(LABELS)}
    part = np.full(len(strange), "train", dtype=object)
    part[first.splits["val"]], part[first.splits["test"]] = "val", "test"

    def fingerprint(texts: list[str]) -> str:
        data = opened({"text": texts, "label": list(LABELS), "part": part}, split_column="part")
        return tokenizer_of(data.schema).fingerprint

    plain = fingerprint(list(TEXTS))
    assert fingerprint(strange) == plain
    choose = texts_.choose_tokenizer

    def leaky(columns: list[list[str]], options: DataOptions, **key: Any) -> Any:
        return choose([[*columns[0], *strange]], options, **key)

    monkeypatch.setattr(texts_, "choose_tokenizer", leaky)  # the leak: it would be seen
    assert fingerprint(strange) != plain
    assert table["text"] is strange


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "word", "char"])
def test_kinds_and_sizes_as_asked(kind: str) -> None:
    found = opened(tokenizer=kind)
    assert found.schema.field("text").stats["kind"] == kind
    assert any("as asked" in note for note in found.notes)
    sized = opened(tokenizer_options={"kind": kind, "vocab": 300})
    assert sized.signature(2).vocab <= 300


def test_a_tokenizer_of_a_file_is_used_as_it_is(tmp_path: Path) -> None:
    mine = train_tokenizer(TEXTS, kind="wordpiece", vocab=200)
    path = mine.save(tmp_path / "mine")
    found = opened(tokenizer=str(path))
    assert tokenizer_of(found.schema) == mine
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab=9 with the tokenizer of"):
        opened(tokenizer=str(path), tokenizer_options={"vocab": 9})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "bpee"}, "did you mean 'bpe'"),
        ({"tokenizer_options": {"vocb": 9}}, "did you mean 'vocab'"),
        ({"tokenizer_options": {"vocab": "many"}}, r"tokenizer\.vocab='many'"),
        ({"tokenizer_options": {"vocab": 10, "kind": "bpe"}}, r"set a larger tokenizer\.vocab"),
        ({"tokenizer": "bpe", "tokenizer_options": {"kind": "word"}}, "leave one out"),
        ({"max_length": 1}, "tokens stand around each row"),
    ],
)
def test_a_request_that_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(**options)


def test_the_size_follows_from_the_corpus() -> None:
    assert size_for(10_000) < size_for(1_000_000) < size_for(100_000_000)
    chosen = choose_tokenizer([KOREAN * 10], DataOptions())
    assert chosen.tokenizer.lossless
    assert "30 training texts" in chosen.reason


def test_a_kept_tokenizer_is_not_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened()
    kept = tokenizer_of(first.schema)
    monkeypatch.setattr("gipi.data.tokenizing.train_tokenizer", None)
    again = opened(tokenizer_kept=kept)
    assert again.columns.inputs["tokens"].values.tolist() == (
        first.columns.inputs["tokens"].values.tolist()
    )


# ------------------------------------------------------------------ rows of tokens


def parts(*lengths: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [ragged([np.full(n, 50 + k, np.int32) for n in column])
            for k, column in enumerate(lengths)]  # fmt: skip


def test_pairs_lose_the_end_of_the_longer_text_first() -> None:
    tokenizer = train_tokenizer(TEXTS, kind="bpe", vocab=300)
    frame = frame_of(tokenizer, texts=2)
    rows = compose(parts((10, 2, 20, 4), (2, 10, 20, 3)), frame, 13, tokenizer)
    sizes = [(int((r == 50).sum()), int((r == 51).sum()))
             for r in (rows.tokens.row(i) for i in range(4))]  # fmt: skip
    assert sizes == [(8, 2), (2, 8), (5, 5), (4, 3)]
    assert rows.tokens.lengths.tolist() == [13, 13, 13, 10]
    assert rows.full.tolist() == [15, 15, 43, 10]
    assert rows.cut(np.arange(4)) == (0.75, 1 - 49 / 83)


def test_one_text_keeps_its_beginning_and_the_marks_around_it() -> None:
    tokenizer = train_tokenizer(TEXTS, kind="bpe", vocab=300)
    whole = tokenizer.encode(TEXTS[0]).ids
    values = tokenizer.encode_batch([TEXTS[0]], special=False)
    rows = compose([(values.values, values.offsets)], frame_of(tokenizer, texts=1), 6, tokenizer)
    assert rows.tokens.row(0).tolist() == [*whole[:5], whole[-1]]


def test_a_row_without_a_token_gets_one() -> None:
    tokenizer = train_tokenizer(TEXTS, kind="word", vocab=60, special=("pad", "unk"))
    rows = compose(parts((0, 3, 0)), Frame(), 5, tokenizer)
    assert rows.tokens.lengths.tolist() == [1, 3, 1]
    assert rows.tokens.row(2).tolist() == [tokenizer.unk]


def test_a_tokenizer_without_padding_gets_one_more_id() -> None:
    tokenizer = train_tokenizer(TEXTS, kind="bpe", vocab=300)
    bare = type(tokenizer)(tokenizer.core, "bpe", {})
    assert pad_of(bare) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)


def test_what_is_cut_is_said() -> None:
    found = opened(max_length=8)
    note = next(n for n in found.notes if n.startswith("texts: "))
    share = found.schema.field("text").stats["cut_rows"]
    assert share > 0.5
    assert "are longer and lose their end" in note
    assert "max_length=8" in note
    assert found.columns.inputs["tokens"].longest == 8
    again = read_rows({"text": ["a lovely film of the plot with a very fine book"]}, found.schema)
    assert any("1 (100.00%) are longer" in n for n in again.notes)
    assert any("none is cut" in n for n in opened().notes)


def test_unknown_tokens_are_said() -> None:
    found = opened(tokenizer="word")
    assert not any("unknown to the tokenizer" in n for n in found.notes)
    strange = read_rows({"text": ["qqq zzz the of www"]}, found.schema)
    assert "texts: 43% of the tokens are unknown to the tokenizer (word)" in strange.notes
    bytes_ = read_rows({"text": ["qqq zzz the of www"]}, opened().schema)
    assert not any("unknown" in n for n in bytes_.notes)


def test_new_rows_are_read_as_the_training_rows() -> None:
    found = opened()
    again = read_rows({"text": list(TEXTS)}, found.schema)
    assert again.columns.inputs["tokens"].values.tolist() == (
        found.columns.inputs["tokens"].values.tolist()
    )
    with pytest.raises(DataError, match="the column 'text' is missing"):
        read_rows({"a": list(TEXTS), "b": list(TEXTS)}, found.schema)


def test_many_texts_are_tokenised_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(texts_, "WORTH_KEEPING", 10)
    monkeypatch.setattr("gipi.data.tokenizing.WORTH_KEEPING", 10)
    first = opened(cache=tmp_path)
    monkeypatch.setattr("gipi.data.tokenizing.train_tokenizer", None)
    monkeypatch.setattr("gipi.text.Tokenizer.encode_batch", None)
    again = opened(cache=tmp_path)
    assert again.columns.inputs["tokens"].values.tolist() == (
        first.columns.inputs["tokens"].values.tolist()
    )


def test_a_kept_tokenizer_is_that_of_its_column(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gipi.data.tokenizing.WORTH_KEEPING", 10)
    table = {"a": list(TEXTS), "b": [t[::-1] for t in TEXTS], "label": list(LABELS)}
    found = [
        opened(table, cache=tmp_path, overrides={name: "text", other: "ignored"})
        for name, other in (("a", "b"), ("b", "a"))
    ]
    said = [tokenizer_of(data.schema).to_json() for data in found]
    assert said[0] != said[1]


# ------------------------------------------------------------------ bad input


def test_null_bytes_and_halves_of_surrogates_are_named_with_their_row() -> None:
    bad = list(TEXTS)
    bad[6] = "a fine\0film and more of it"
    bad[9] = "a fine \ud800 film and more of it"
    with pytest.raises(DataError, match="row 7: the text 'text' holds a null byte at character 7"):
        opened({"text": bad, "label": LABELS})
    found = opened({"text": bad, "label": LABELS}, bad_rows="skip")
    assert any("2 rows of 120 left out" in n for n in found.notes)
    assert not {6, 9} & {int(i) for ids in found.splits.values() for i in ids}
    with pytest.raises(DataError, match="half of a surrogate pair at character 8"):
        read_rows({"text": [bad[9]]}, found.schema)


def test_empty_texts_take_part_and_are_counted() -> None:
    some = ["", "   ", *TEXTS[2:]]
    found = opened({"text": some, "label": LABELS})
    assert any("2 texts are empty" in n for n in found.notes)
    assert found.columns.inputs["tokens"].lengths.min() > 0
    with pytest.raises(DataError, match="no input column"):
        opened({"text": [""] * 120, "label": LABELS})
    with pytest.raises(DataError, match="every training text is empty"):
        opened({"text": [None] * 120, "label": LABELS}, overrides={"text": "text"})


def test_a_label_that_is_missing_is_named_with_its_row(tmp_path: Path) -> None:
    rows: list[list[object]] = [list(r) for r in reviews(30)]
    rows[4][1] = ""
    path = write_rows(tmp_path / "reviews.csv", rows, ("text", "label"))
    with pytest.raises(DataError, match="target 'label' is missing in 1 of 30 rows: row 5"):
        open_data(str(path))


def test_jsonl_and_json_hold_texts(tmp_path: Path) -> None:
    records = [{"text": t, "label": y} for t, y in reviews(40)]
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(json.dumps(r) for r in records))
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps(records))
    table = write_csv(tmp_path / "a.csv", 40)
    found = [open_data(str(p)).columns.inputs["tokens"].values.tolist()
             for p in (lines, whole, table)]  # fmt: skip
    assert found[0] == found[1] == found[2]


def test_augmentation_of_texts_is_refused() -> None:
    with pytest.raises(ConfigError, match="augment=mixup on texts"):
        opened().stream("train", batch_size=8, augment=("mixup",))


# ------------------------------------------------------------------ copies and leaks


def test_copies_that_differ_in_case_and_spaces_stay_on_one_side() -> None:
    some = list(TEXTS[:60])
    copies = [t.upper().replace(" ", "  ") for t in some]
    found = opened({"text": some + copies, "label": list(LABELS[:60]) * 2})
    side = {int(i): name for name, ids in found.splits.items() for i in ids}
    assert all(side[i] == side[i + 60] for i in range(60))
    assert any(
        "60 rows repeat the inputs of another row but for case and" in n for n in found.notes
    )
    assert folded(np.array(["Ａ  b", None], dtype=object)).tolist() == ["a b", ""]


def test_a_training_copy_of_a_given_test_text_is_dropped() -> None:
    some = [*TEXTS[:60], TEXTS[0].title()]
    part = ["train"] * 60 + ["test"]
    found = opened({"text": some, "label": [*LABELS[:60], "good"], "part": part},
                   split_column="part")  # fmt: skip
    assert 0 not in found.splits["train"]
    assert any("1 training row repeats a given" in n for n in found.notes)


def test_an_answer_left_in_the_text_is_found() -> None:
    marked = [f"{t} {'yes' if y == 'good' else 'no'}" for t, y in zip(TEXTS, LABELS, strict=True)]
    found = audit({"text": marked, "label": list(LABELS)})
    leak = next(f for f in found.findings if f.code == "leak")
    assert "last word" in leak.message
    assert "letters, median" in next(f for f in found.fields if f.name == "text").values
    clean = audit({"text": list(TEXTS), "label": list(LABELS)})
    assert not [f for f in clean.findings if f.code == "leak"]
