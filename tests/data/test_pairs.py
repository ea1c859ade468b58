"""Pairs of texts as tokens: shifted targets, one vocabulary, what is cut, what cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.data.pairs import WORDS, dataset, lines, write_parallel, write_table

from gipi.core.errors import DataError
from gipi.core.schema import IGNORED_TOKEN
from gipi.data import DataOptions, open_data, read_rows, tokenizer_of
from gipi.data.pairs import ends_of, pair_fields
from gipi.data.tokens import width_of
from gipi.text import Tokenizer, train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def real(row: torch.Tensor, pad: int) -> list[int]:
    return [i for i in row.tolist() if i != pad]


def test_the_target_is_the_input_one_place_later() -> None:
    data = dataset()
    stats = pair_fields(data.schema)[0].stats
    seen = 0
    for batch in data.stream("train", batch_size=7).epoch(0):
        assert batch.target is not None
        assert list(batch.inputs) == ["tokens", "target_in"]
        assert batch.inputs["target_in"].shape == batch.target.shape
        pairs = zip(batch.inputs["target_in"], batch.target, batch.inputs["tokens"], strict=True)
        for written, target, source in pairs:
            said, right = real(written, stats["pad"]), real(target, IGNORED_TOKEN)
            assert said == [stats["begin"], *right[:-1]]
            assert right[-1] == real(source, stats["pad"])[-1] == stats["end"]
            seen += 1
    assert seen == len(data.splits["train"])


def test_tokens_say_the_texts_again() -> None:
    data = dataset()
    tokenizer = tokenizer_of(data.schema)
    stream = data.stream("val", batch_size=5)
    for batch in stream.epoch(0):
        assert batch.ids is not None
        assert batch.target is not None
        written = [tokenizer.decode(real(t, IGNORED_TOKEN)[:-1]) for t in batch.target]
        assert written == stream.references(batch.ids)
        assert written == [data.raw([i])[0]["back"] for i in batch.ids.tolist()]


def test_each_text_has_a_width_of_its_own() -> None:
    pairs = [(" ".join(WORDS[:9] * 2), "one"), *lines(40, most=3)]
    table = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    data = open_data(table, DataOptions(task="translate", target="b", tokenizer="word", val=0.0,
                                        test=0.0))  # fmt: skip
    batches = list(data.stream("train", batch_size=64, shuffle=False).epoch(0))
    assert batches[0].inputs["tokens"].shape[1] == width_of(19)
    assert batches[0].inputs["target_in"].shape[1] == width_of(4)
    assert data.signature(10).length == width_of(19)


def test_batches_are_of_about_one_length() -> None:
    draw = np.random.default_rng(0)
    pairs = [(" ".join(["one"] * a), " ".join(["two"] * b))
             for a, b in draw.integers(1, 60, (2000, 2))]  # fmt: skip
    table = {"a": [a for a, _ in pairs], "b": [f"{b} {k}" for k, (_, b) in enumerate(pairs)]}
    options = DataOptions(task="translate", target="b", tokenizer="word", val=0.0, test=0.0)
    stream = open_data(table, options).stream("train", batch_size=20, seed=3)
    places = sum(batch.target.numel() for batch in stream.epoch(0))  # type: ignore[union-attr]
    real_ones = sum(int((batch.target != IGNORED_TOKEN).sum()) for batch in stream.epoch(0))  # type: ignore[union-attr, misc]
    assert places < 1.35 * real_ones  # at random it would be near 60 / 31
    first, again = (stream.order(e).tolist() for e in (0, 0))
    assert first == again
    assert first != stream.order(1).tolist()


def test_ranks_share_batches_as_wide_as_the_whole() -> None:
    data = dataset(90)
    whole = list(data.stream("train", batch_size=16, seed=1).epoch(0))
    parts = [list(data.stream("train", batch_size=16, seed=1, rank=r, world=3).epoch(0))
             for r in range(3)]  # fmt: skip
    for k, batch in enumerate(whole):
        assert batch.target is not None
        together = torch.cat([part[k].target for part in parts])  # type: ignore[misc]
        if len(batch) >= 3:
            assert torch.equal(together, batch.target)
            sources = torch.cat([part[k].inputs["tokens"] for part in parts])
            assert torch.equal(sources, batch.inputs["tokens"])


def test_long_rows_are_cut_and_the_share_is_said() -> None:
    data = dataset(80, most=6, max_length=4)
    assert any("are longer and lose their end" in note and "max_length=4" in note
               for note in data.notes)  # fmt: skip
    stats = pair_fields(data.schema)[1].stats
    assert stats["cut_rows"] > 0.1
    cut = whole = 0
    for batch in data.stream("train", batch_size=8).epoch(0):
        assert batch.target is not None
        for target in batch.target:
            row = real(target, IGNORED_TOKEN)
            assert len(row) <= 4
            # What was cut has no end, so that no net learns to stop there.
            if len(row) == 4 and row[-1] != stats["end"]:
                cut += 1
            else:
                assert row[-1] == stats["end"]
                whole += 1
    assert cut
    assert whole


def test_one_vocabulary_is_trained_on_both_texts() -> None:
    pairs = [(f"alpha beta {i}", f"gamma delta {i}") for i in range(40)]
    table = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    data = open_data(table, DataOptions(task="translate", target="b", tokenizer="word"))
    tokenizer = tokenizer_of(data.schema)
    assert tokenizer.id_of("alpha") != tokenizer.id_of("gamma")
    assert any("one vocabulary for 'a' and 'b'" in note for note in data.notes)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    bare = train_tokenizer(["one two"] * 9, kind="word", vocab=30, special=("pad", "unk"))
    with pytest.raises(DataError, match="(?s)no token that ends a text.*eos or sep"):
        ends_of(bare)
    marked = train_tokenizer(["one two"] * 9, kind="word", vocab=30,
                             special=("pad", "unk", "cls", "sep"))  # fmt: skip
    assert ends_of(marked).begin == marked.cls
    assert ends_of(marked).end == marked.sep
    assert isinstance(marked, Tokenizer)


def test_files_of_two_languages_are_read_as_pairs(tmp_path: Path) -> None:
    folder = write_parallel(tmp_path / "d", {"train": 30, "val": 6, "test": 5}, ("en", "de"))
    data = open_data(str(folder))
    assert data.schema.task == "translate"
    assert [f.name for f in pair_fields(data.schema)] == ["de", "en"]  # in alphabetical order
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 30, "val": 6, "test": 5}  # fmt: skip
    back = open_data(str(folder), DataOptions(target="de"))
    assert [f.name for f in pair_fields(back.schema)] == ["en", "de"]
    assert back.schema.task == "translate"


def test_columns_are_found_and_others_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"{i},{a},{b},{i % 3}\n" for i, (a, b) in enumerate(lines(40)))
    path.write_text("id,question,answer,mood\n" + rows, encoding="utf-8")
    data = open_data(str(path), DataOptions(task="translate"))
    assert [f.name for f in pair_fields(data.schema)] == ["question", "answer"]
    mood = data.schema.field("mood")
    assert mood.role == "ignored"
    assert "'question' is read" in mood.reason
    other = open_data(str(path), DataOptions(task="translate", target="question"))
    assert [f.name for f in pair_fields(other.schema)] == ["answer", "question"]


def test_a_third_text_of_a_table_can_be_the_target(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    rows = "".join(f"{a}\t{b}\t{b} {b}\n" for a, b in lines(40))
    path.write_text("de\ten\ttwice\n" + rows, encoding="utf-8")
    data = open_data(str(path), DataOptions(task="translate"))
    assert [f.name for f in pair_fields(data.schema)] == ["de", "en"]
    data = open_data(str(path), DataOptions(task="translate", target="twice"))
    assert pair_fields(data.schema)[1].name == "twice"
    assert pair_fields(data.schema)[0].name in ("de", "en")


def test_a_folder_of_pairs_is_summarised_too(tmp_path: Path) -> None:
    folder = write_parallel(tmp_path / "d", {"train": 30}, ("de", "en"))
    assert open_data(str(folder), DataOptions(task="summarise")).schema.task == "summarise"


def test_rows_without_both_texts_take_no_part(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write_parallel(folder, {"train": 30}, ("de", "en"))
    for language, at in (("de", 3), ("en", 5)):
        file = folder / f"train.{language}"
        text = file.read_text(encoding="utf-8").split("\n")
        text[at] = "  "
        file.write_text("\n".join(text), encoding="utf-8")
    data = open_data(str(folder))
    used = np.concatenate(list(data.splits.values()))
    assert len(used) == 28
    assert not {3, 5} & set(used.tolist())
    assert any("2 rows without both texts ('de' and 'en') take no part" in n for n in data.notes)


def test_where_no_row_has_both_texts_that_is_said() -> None:
    table = {"a": [None] * 20, "b": [b for _, b in lines(20)]}
    with pytest.raises(DataError, match="no row of arrays has both texts"):
        open_data(table, DataOptions(task="translate", target="b"))


def test_a_text_in_three_languages_is_named(tmp_path: Path) -> None:
    write_parallel(tmp_path, {"train": 9}, ("de", "en"))
    (tmp_path / "train.fr").write_text("x\n" * 9)
    with pytest.raises(DataError, match="holds train in 3 languages: de, en, fr"):
        open_data(str(tmp_path), DataOptions(task="translate"))


def test_unequal_files_are_named_with_counts_and_the_first_line(tmp_path: Path) -> None:
    write_parallel(tmp_path / "d", {"train": 9}, ("de", "en"))
    with (tmp_path / "d" / "train.en").open("a") as file:
        file.write("a line too many\n")
    with pytest.raises(DataError, match=r"train.de has 9 lines and train.en 10: line 10 of "
                                        r"train.en has no partner, 'a line too many'"):  # fmt: skip
        open_data(str(tmp_path / "d"))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"caf\xe9\n", r"byte 0xE9 at position 3 \(line 1\) is not UTF-8"),
     (b"a\0b\n", r"a null byte at position 1 \(line 1\)")],
)  # fmt: skip
def test_unreadable_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "train.de").write_bytes(content)
    (tmp_path / "train.en").write_text("x\n")
    with pytest.raises(DataError, match=words):
        open_data(str(tmp_path))


def test_unreadable_rows_are_named_or_skipped() -> None:
    pairs = lines(40)
    table = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    table["b"][7] = "two\0three"
    options = {"task": "translate", "target": "b", "tokenizer": "word"}
    with pytest.raises(DataError, match="'b' holds a null byte at character 4"):
        open_data(table, DataOptions(**options))  # type: ignore[arg-type]
    data = open_data(table, DataOptions(**options, bad_rows="skip"))  # type: ignore[arg-type]
    assert 7 not in np.concatenate(list(data.splits.values()))


def test_what_is_no_text_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{t},{i}\n" for i, (t, _) in enumerate(lines(20))))
    with pytest.raises(DataError, match="(?s)the target 'b' of t holds no text.*name one with --t"):
        open_data(str(path), DataOptions(task="translate", target="b"))
    with pytest.raises(DataError, match="(?s)t has 1 column of text among a, b.*two columns"):
        open_data(str(path), DataOptions(task="summarise"))
    with pytest.raises(DataError, match="t has no text to translate from: 'b'"):
        open_data(str(path), DataOptions(task="translate", target="a"))


def test_new_rows_are_read_as_in_training(tmp_path: Path) -> None:
    data = dataset()
    new = read_rows({"said": ["one two"]}, data.schema, target=False)
    assert list(new.columns.inputs) == ["tokens"]
    assert new.columns.target is None
    path = write_table(tmp_path / "p.tsv", lines(9, seed=5), ("said", "back"))
    known = read_rows(str(path), data.schema)
    assert known.columns.target is not None
    assert len(known.columns.references) == 9
    alone = tmp_path / "one.tsv"
    alone.write_text("said\none two\nthree four\n")
    assert read_rows(str(alone), data.schema, target=False).source.rows == 2
    long = read_rows({"said": ["one " * 40]}, data.schema, target=False)
    assert any("lose their end" in note for note in long.notes)
