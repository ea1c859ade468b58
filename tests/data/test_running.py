"""Running text: windows where they should be, parts that never meet, and what cannot be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.data.prose import prose

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import IGNORED_TOKEN as IGNORED
from gipi.data import DataOptions, audit, open_data, read_rows, tokenizer_of
from gipi.data.running import FEW

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.data import Dataset

T = 16


def opened(path: Path, **options: object) -> Dataset:
    return open_data(str(path), DataOptions(task="generate", max_length=T, **options))  # type: ignore[arg-type]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(prose(), encoding="utf-8")
    return path


def test_windows_are_what_slices_of_the_tokens_are(book: Path) -> None:
    data = opened(book)
    assert data.running is not None
    a, b = data.running.spans["train"]
    tokens = data.running.tokens[a:b].astype(np.int64)
    seen = 0
    for batch in data.stream("train", batch_size=5, seed=3).epoch(2):
        assert batch.ids is not None
        assert batch.target is not None
        for x, y, at in zip(batch.inputs["tokens"], batch.target, batch.ids.tolist(), strict=True):
            assert x.tolist() == tokens[at - a : at - a + T].tolist()
            assert y.tolist() == tokens[at - a + 1 : at - a + T + 1].tolist()
        assert len(batch) == batch.rows == 5
        seen += len(batch)
    assert seen == (b - a - 1) // T // 5 * 5 or seen == -(-(b - a - 1) // T) // 5 * 5


def test_evaluation_predicts_every_token_but_the_first_once(book: Path) -> None:
    data = opened(book)
    assert data.running is not None
    a, b = data.running.spans["val"]
    stream = data.stream("val", batch_size=3)
    targets = [y for batch in stream.epoch(0) for y in batch.target.flatten().tolist()]  # type: ignore[union-attr]
    assert [y for y in targets if y != IGNORED] == data.running.tokens[a + 1 : b].tolist()
    rows = sum(len(batch) for batch in stream.epoch(0))
    assert rows == stream.rows == len(data.splits["val"])


def test_an_epoch_is_a_function_of_seed_and_number(book: Path) -> None:
    data = opened(book)
    first = data.stream("train", batch_size=4, seed=1)
    assert np.array_equal(
        first.starts(3),
        data.stream("train", batch_size=4, seed=1).starts(3),  # type: ignore[union-attr]
    )
    assert not np.array_equal(first.starts(3), first.starts(4))  # type: ignore[union-attr]
    other = data.stream("train", batch_size=4, seed=2)
    assert not np.array_equal(first.starts(3), other.starts(3))  # type: ignore[union-attr]
    whole = [b.inputs["tokens"] for b in first.epoch(0)]
    again = [b.inputs["tokens"] for b in first.epoch(0, skip=7)]
    assert len(again) == len(whole) - 7
    assert all(torch.equal(x, y) for x, y in zip(again, whole[7:], strict=True))


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("part", ["train", "val"])
def test_ranks_share_the_very_windows(book: Path, world: int, part: str) -> None:
    data = opened(book)
    alone = list(data.stream(part, batch_size=5, seed=0).epoch(1))
    shares = [
        list(data.stream(part, batch_size=5, seed=0, rank=r, world=world).epoch(1))
        for r in range(world)
    ]
    for step, whole in enumerate(alone):
        mine = [share[step] for share in shares]
        assert {b.rows for b in mine} == {whole.rows}
        real = [b for b in mine if b.weight is None or bool(b.weight.any())]
        joined = torch.cat([b.inputs["tokens"] for b in real])
        assert torch.equal(joined, whole.inputs["tokens"])


def test_parts_do_not_overlap_and_no_window_crosses(book: Path) -> None:
    data = opened(book, test=0.1)
    assert data.running is not None
    (a, b), (c, d), (e, f) = (data.running.spans[k] for k in ("train", "val", "test"))
    assert a == 0 < b == c < d == e < f == len(data.running.tokens)
    train = data.stream("train", batch_size=8)
    for epoch in range(3):
        starts = train.starts(epoch)  # type: ignore[union-attr]
        assert starts.min() >= 0
        assert starts.max() + T + 1 <= b - a
    text = book.read_text(encoding="utf-8")
    assert tokenizer_of(data.schema).decode(data.running.tokens) == text
    assert text[b - 1] == "\n"  # cut at the end of a line
    assert "from its end" in data.split_reason


def test_documents_are_held_back_whole_and_copies_stay_together(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i:02}.txt").write_text(prose(6, seed=i % 18), encoding="utf-8")
    data = opened(tmp_path)
    assert data.running is not None
    assert "documents" in data.split_reason
    tokenizer, parts = tokenizer_of(data.schema), {}
    assert any("after each document" in note for note in data.notes)
    for name, (a, b) in data.running.spans.items():
        tokens = data.running.tokens[a:b]
        ends = np.flatnonzero(tokens == tokenizer.eos)
        pieces = np.split(tokens, ends + 1)[:-1]
        parts[name] = [tokenizer.decode(p) for p in pieces]
    assert len(parts["train"]) + len(parts["val"]) == 20
    assert not set(parts["train"]) & set(parts["val"])


def test_a_few_documents_are_one_text(tmp_path: Path) -> None:
    for i in range(FEW - 1):
        (tmp_path / f"{i}.txt").write_text(prose(40, seed=i), encoding="utf-8")
    data = opened(tmp_path)
    assert "from its end" in data.split_reason
    assert not any("after each document" in note for note in data.notes)


def test_given_parts_stay_and_copies_leave_the_training_text(tmp_path: Path) -> None:
    shared = "= Shared =\n\n" + prose(3, seed=99)
    articles = [f"= {i} =\n\n{prose(6, seed=i)}\n" for i in range(12)]
    (tmp_path / "a.train.txt").write_text("".join([*articles, shared]), encoding="utf-8")
    (tmp_path / "a.valid.txt").write_text(articles[0] + shared, encoding="utf-8")
    data = opened(tmp_path)
    assert data.running is not None
    assert set(data.running.spans) == {"train", "val"}
    assert any("2 training documents" in note for note in data.notes)
    a, b = data.running.spans["train"]
    assert "Shared" not in tokenizer_of(data.schema).decode(data.running.tokens[a:b])


@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, "char"), ({"tokenizer_options": {"kind": "bpe", "vocab": 300}}, "bpe")],
)
def test_the_tokenizer_is_chosen_and_the_reason_said(
    book: Path, options: dict[str, object], kind: str
) -> None:
    data = opened(book, **options)
    assert tokenizer_of(data.schema).kind == kind
    said = next(note for note in data.notes if note.startswith("tokens: "))
    assert ("so short a text" in said) is (kind == "char")


def test_a_text_of_many_letters_is_cut_into_bytes_and_pieces(tmp_path: Path) -> None:
    letters = "".join(chr(c) for c in range(0xAC00, 0xAC00 + 300))
    path = tmp_path / "korean.txt"
    path.write_text(f"{letters}\n" * 30, encoding="utf-8")
    assert tokenizer_of(opened(path).schema).kind == "bpe"


def test_rows_of_a_table_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    rows = [json.dumps({"id": i, "text": prose(5, seed=i)}) for i in range(30)]
    path.write_text("\n".join(rows), encoding="utf-8")
    data = opened(path)
    assert [f.role for f in data.schema.fields] == ["ignored", "input"]
    assert "documents" in data.split_reason


def test_other_text_is_read_as_in_training(book: Path, tmp_path: Path) -> None:
    data = opened(book)
    other = tmp_path / "other.txt"
    other.write_text(prose(5, seed=9), encoding="utf-8")
    rows = read_rows(str(other), data.schema)
    assert rows.running is not None
    assert tokenizer_of(data.schema).decode(rows.running.tokens) == prose(5, seed=9)
    assert list(rows.splits) == ["all"]


def test_a_context_that_was_not_asked_for_fits_a_short_text(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text(prose(40), encoding="utf-8")
    data = open_data(str(path), DataOptions(task="generate"))
    assert data.running is not None
    assert data.running.length == 64
    assert len(data.splits["train"]) >= 16


def test_a_split_column_says_what_is_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    rows = [{"text": f"{i} {prose(5, seed=i)}", "part": "train" if i < 20 else "test"}
            for i in range(30)]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = opened(path, split_column="part")
    assert data.running is not None
    a, b = data.running.spans["test"]
    said = tokenizer_of(data.schema).decode(data.running.tokens[a:b])
    assert all(row["text"].strip() in said for row in rows[20:])
    assert not any(row["text"].strip() in said for row in rows[:20])
    assert data.schema.field("part").role == "split"


@pytest.mark.parametrize("role", ["group", "time_column", "weight"])
def test_a_role_that_running_text_has_not_is_refused(book: Path, role: str) -> None:
    with pytest.raises(ConfigError, match=f"{role}=text with running text") as e:
        opened(book, **{role: "text"})
    assert e.value.do == f"leave {role} out"


def test_shares_that_leave_nothing_are_named(book: Path) -> None:
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        opened(book, val=0.6, test=0.5)


def test_names_of_columns_and_parts_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    rows = [json.dumps({"text": prose(5, seed=i), "part": "test"}) for i in range(30)]
    path.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match="split column 'parts' is no column of notes") as e:
        opened(path, split_column="parts")
    assert "'part'" in e.value.do
    with pytest.raises(DataError, match="none for training holds text"):
        opened(path, split_column="part")


def test_one_long_document_is_not_held_back(tmp_path: Path) -> None:
    for seed in range(6):
        for i in range(20):
            (tmp_path / f"{i:02}.txt").write_text(prose(400 if i == 7 else 4, seed=i),
                                                  encoding="utf-8")  # fmt: skip
        data = opened(tmp_path, seed=seed)
        assert data.running is not None
        a, b = data.running.spans["val"]
        assert (b - a) < 0.3 * len(data.running.tokens)


def test_a_short_part_is_not_lost_behind_the_end_of_a_long_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    text = prose(90).replace("\n", " ")[:3000]
    path.write_text(text[:2760] + "\n" + text[2761:], encoding="utf-8")
    data = opened(path, test=0.1)
    assert data.running is not None
    assert set(data.running.spans) == {"train", "val", "test"}


def test_a_trained_column_is_found_again_beside_other_texts(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    rows = [json.dumps({"a": prose(5, seed=i), "b": f"note {i} on it"}) for i in range(30)]
    path.write_text("\n".join(rows), encoding="utf-8")
    data = opened(path, target="a")
    read = read_rows(str(path), data.schema)
    assert read.running is not None
    assert prose(5, seed=3).strip() in tokenizer_of(data.schema).decode(read.running.tokens)


def test_blank_lines_part_documents_where_pairs_of_them_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(prose(20, seed=i) for i in range(30)), encoding="utf-8")
    asked = DataOptions(task="masked", pretext={"next_sentence": True}, max_length=32, val=0.2)
    data = open_data(str(path), asked)
    assert "documents" in data.split_reason
    assert len(data.splits["train"]) > 100
    assert "from its end" in open_data(str(path), DataOptions(task="masked")).split_reason


# ------------------------------------------------------------------------ what cannot be read


def test_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("\n\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no text"):
        opened(path)


@pytest.mark.parametrize("task", ["generate", "masked"])
def test_a_text_of_one_letter_is_named(tmp_path: Path, task: str) -> None:
    path = tmp_path / "one.txt"
    path.write_text("a", encoding="utf-8")
    with pytest.raises(DataError, match="one has 1 characters, and all are held back"):
        open_data(str(path), DataOptions(task=task))  # type: ignore[arg-type]


def test_a_text_shorter_than_the_context_is_named(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("a few words", encoding="utf-8")
    with pytest.raises(DataError, match="the train text of short has 9 tokens") as e:
        opened(path)
    assert "at least 17" in e.value.needed
    assert "max_length below" in e.value.do


def test_wrong_encoding_and_null_bytes_are_named_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good text\n" * 30 + "schön".encode("latin1"))
    with pytest.raises(DataError, match=r"0xF6 at position 303 .*not UTF-8"):
        opened(path)
    path.write_bytes(b"good text\n\0" * 30)
    with pytest.raises(DataError, match="null byte at position 10"):
        opened(path)


def test_a_null_byte_in_a_table_is_refused_or_skipped_aloud(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": prose(5, seed=i) + ("\0" if i == 4 else "")} for i in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="row 5: the text 'text' holds a null byte"):
        opened(path)
    assert any("left out" in note for note in opened(path, bad_rows="skip").notes)


def test_a_table_of_several_texts_asks_which(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("a,b\n" + "one text,another text\n" * 20, encoding="utf-8")
    with pytest.raises(DataError, match="2 columns of text: a, b"):
        opened(path)


def test_augmentation_and_a_bad_batch_are_refused(book: Path) -> None:
    data = opened(book)
    with pytest.raises(DataError, match="augment for running text"):
        data.stream("train", batch_size=4, augment=("flip",))
    with pytest.raises(ConfigError, match="batch_size 0"):
        data.stream("train", batch_size=0)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        data.stream("train", batch_size=4, rank=2, world=2)


@pytest.mark.parametrize("task", ["generate", "masked", "spans"])
def test_an_audit_finds_nothing_wrong_with_running_text(book: Path, task: str) -> None:
    found = audit(str(book), DataOptions(task=task))
    assert found.task == task
    assert not [f for f in found.findings if f.level == "error"]
