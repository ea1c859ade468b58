"""Readers of text: tagged tokens, questions, line-aligned files, running text."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gipi.core.errors import ConfigError, DataError
from gipi.data.source import TEST, TRAIN, VAL, hash_columns
from gipi.data.sources import language, named, read_source
from gipi.data.sources.conll import is_conll, read_conll, to_bio
from gipi.data.sources.corpus import cut_documents, read_corpus, read_corpus_folder
from gipi.data.sources.parallel import pairs_in, read_parallel, read_parallel_table
from gipi.data.sources.plain import lines_of, part_of, read_text
from gipi.data.sources.squad import is_squad, read_squad


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# ------------------------------------------------------------------ tagged tokens


CONLL = "-DOCSTART- -X- -X- O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\nPeter NNP I-NP B-PER\n"


def test_conll_columns_become_rows_of_tuples(tmp_path):
    path = write(tmp_path / "train.txt", CONLL)
    source = read_conll([path])
    assert source.columns["tokens"].tolist() == [("EU", "rejects"), ("Peter",)]
    assert source.columns["tags"].tolist() == [("B-ORG", "O"), ("B-PER",)]
    assert source.classes["tags"] == ("O", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert (source.target, source.task, source.notes) == ("tags", "tag", ())
    assert source.row_name(1) == "train.txt line 6"
    assert source.given_split is None
    took = source.take(np.array([1]))
    assert took.columns["tokens"][0] == ("Peter",)
    assert took.row_name(0) == "train.txt line 6"
    assert hash_columns(source.columns) != hash_columns(took.columns)


def test_files_are_a_split_by_name_and_documents_stay_together(tmp_path):
    more = CONLL + "\n-DOCSTART- -X- -X- O\n\nBonn NNP I-NP B-LOC\n"
    paths = [write(tmp_path / f"eng.{n}.gz", t)
             for n, t in (("train", more), ("testa", CONLL), ("testb", CONLL))]  # fmt: skip
    source = read_conll(paths, root=tmp_path)
    assert source.given_split.tolist() == [TRAIN] * 3 + [VAL] * 2 + [TEST] * 2
    assert source.bound.tolist() == [1, 1, 2, 4, 4, 6, 6]
    assert source.bound_by == "the same document"
    assert [rows for _, rows in source.parts] == [3, 2, 2]


def test_a_space_is_a_token_and_comments_are_none(tmp_path):
    text = "## token : \\t\n## id-1\t<김:PS> 씨\n김\tB-PS\n \tO\n#\tO\n\n## id-2\tx\n씨\tO\n"
    source = read_conll([write(tmp_path / "ner.tsv", text)])
    assert source.columns["tokens"].tolist() == [("김", " ", "#"), ("씨",)]
    assert source.columns["tags"].tolist() == [("B-PS", "O", "O"), ("O",)]
    hashes = read_conll([write(tmp_path / "hash.txt", "# O 0\none O 0\n\ntwo B-X 0\n")])
    assert hashes.columns["tokens"].tolist() == [("#", "one"), ("two",)]


def test_the_column_of_tags_is_the_same_in_all_files(tmp_path):
    train = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\n"
    lone = "He PRP B-NP O\nsaid VBD B-VP O\n"  # no entity here, but chunks
    paths = [write(tmp_path / "train.txt", train), write(tmp_path / "test.txt", lone)]
    source = read_conll(paths, root=tmp_path)
    assert source.columns["tags"].tolist() == [("B-ORG", "O"), ("B-PER",), ("O", "O")]


def test_a_slip_in_the_tags_does_not_make_another_column_the_tags(tmp_path):
    lines = [f"w{i} NN B-NP {'B-ORG' if i % 3 == 0 else 'O'}" for i in range(30)]
    lines[11] = "w11 NN B-NP 0"
    path = write(tmp_path / "a.conll", "\n".join(lines) + "\n")
    with pytest.raises(DataError, match="a.conll line 12: '0' is no tag"):
        read_conll([path])


@pytest.mark.parametrize(
    ("tags", "expected", "note"),
    [
        (("I-PER", "I-PER", "O", "I-LOC", "B-LOC"), ("B-PER", "I-PER", "O", "B-LOC", "B-LOC"),
         "IOB1: the first tags of 2 entities"),
        (("S-LOC", "B-ORG", "I-ORG", "E-ORG", "S-LOC"),
         ("B-LOC", "B-ORG", "I-ORG", "I-ORG", "B-LOC"), "BIOES: read as BIO"),
        (("B-LOC", "E-LOC", "I-LOC", "S-LOC", "I-LOC"),  # after an end, I- begins anew
         ("B-LOC", "I-LOC", "B-LOC", "B-LOC", "B-LOC"), "BIOES: read as BIO"),
        (("U-LOC", "B-ORG", "L-ORG", "O", "O"), ("B-LOC", "B-ORG", "I-ORG", "O", "O"),
         "BILOU: read as BIO"),
        (("B-LOC", "I-LOC", "O", "I-PER", "I-PER"), ("B-LOC", "I-LOC", "O", "B-PER", "I-PER"),
         "1 entities begin with I- and no B-"),
        (("B-LOC", "I-LOC", "B-LOC", "O", "B-PER"), ("B-LOC", "I-LOC", "B-LOC", "O", "B-PER"), ""),
    ],
)  # fmt: skip
def test_every_scheme_becomes_bio(tmp_path, tags, expected, note):
    path = write(tmp_path / "a.conll", "".join(f"w{i} {t}\n" for i, t in enumerate(tags)))
    source = read_conll([path])
    assert source.columns["tags"][0] == expected
    assert to_bio(expected) == expected
    assert (note in source.notes[0]) if note else not source.notes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from("XYO")), min_size=1, max_size=8))
def test_schemes_round_trip(entities):
    """The same entities written in BIO, IOB1 and BIOES are the same after reading."""
    bio, iob1, bioes, last = [], [], [], "O"
    for size, kind in entities:
        if kind == "O":
            for tags in (bio, iob1, bioes):
                tags.extend(["O"] * size)
        else:
            bio += [f"B-{kind}"] + [f"I-{kind}"] * (size - 1)
            iob1 += [f"{'B' if last == kind else 'I'}-{kind}"] + [f"I-{kind}"] * (size - 1)
            middle = [f"I-{kind}"] * (size - 2)
            bioes += [f"S-{kind}"] if size == 1 else [f"B-{kind}", *middle, f"E-{kind}"]
        last = kind
    assert to_bio(bio) == to_bio(iob1) == to_bio(bioes) == tuple(bio)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a O\nb\n", ["a.conll line 2", "1 column in 'b'", "2 columns"]),
        ("a O\n\nb c O\n", ["line 3", "3 columns", "as in the lines above"]),
        ("a B-X\nb B_X\nc B_X\n", ["line 2", "'B_X' is no tag", "1 more lines"]),
        ("a O\nb B-\n", ["line 2", "'B-' is no tag"]),
        ("\tO\na\tO\n", ["line 1", "empty token"]),
        ("\n\n", ["no sentences"]),
        ("", ["empty"]),
        ("a O\nM\xfcller O\n".encode("latin1"),
         ["0xFC", "position 5", "line 2", "not UTF-8", "iconv"]),
        ("a O\nb\0 O\n", ["null byte", "position 5", "line 2"]),
        ("\xfe\xff".encode("latin1") + b"\0a\0 \0O\0", ["begins as UTF-16"]),
    ],
)  # fmt: skip
def test_bad_tags_are_named_with_file_and_line(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read_conll([write(tmp_path / "a.conll", text)])
    for word in words:
        assert word in str(caught.value)


# ------------------------------------------------------------------ questions


def squad(*paragraphs):
    return {"version": "x", "data": [
        {"title": f"T{i}", "paragraphs": [{"context": c, "qas": q}]}
        for i, (c, q) in enumerate(paragraphs)
    ]}  # fmt: skip


def question(ident, *answers, **more):
    given = [{"text": t, "answer_start": s} for t, s in answers]
    return {"id": ident, "question": f" Q{ident}? ", "answers": given, **more}


def test_questions_with_and_without_answers(tmp_path):
    data = squad(
        ("Oslo is in Norway.", [question("1", ("Oslo", 0), ("Norway", 11)),
                                question("2", is_impossible=True,
                                         plausible_answers=[{"text": "x", "answer_start": 0}])]),
        ("한국의 수도는 서울이다.", [question("3", ("서울", 8)), {"id": "4", "question": "?"}]),
    )  # fmt: skip
    path = write(tmp_path / "dev.json", json.dumps(data, ensure_ascii=False))
    source = read_squad([path])
    assert list(source.columns) == ["id", "title", "context", "question", "answers", "starts"]
    assert source.columns["answers"].tolist() == [("Oslo", "Norway"), (), ("서울",), None]
    assert source.columns["starts"].tolist() == [(0, 11), (), (8,), None]
    assert source.columns["question"][0] == "Q1?"
    assert source.columns["title"].tolist() == ["T0", "T0", "T1", "T1"]
    assert source.bound.tolist() == [0, 0, 1, 1]
    assert source.row_name(2) == "question 3"
    assert (source.target, source.task) == ("answers", "answer")
    assert "1 of 4 questions have no answer" in source.notes[0]
    assert "1 questions come without answers" in source.notes[1]
    assert is_squad(path)
    assert not is_squad(write(tmp_path / "b.json", '{"data": [{"images": []}]}'))
    assert not is_squad(write(tmp_path / "c.json", "[1, 2"))


def broken(change):
    data = squad(("Ärger in Köln, Ärger", [question("1", ("Köln", 9)), question("2")]))
    change(data["data"][0]["paragraphs"][0])
    return json.dumps(data)


def answer(text, start):
    return lambda p: p["qas"][0].update(answers=[{"text": text, "answer_start": start}])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (broken(answer("Köln", 3)), ["question 1", "'Köln' is not at character 3", "stands at 9"]),
        (broken(answer("Köln", 10)), ["count characters, not bytes", "stands at 9"]),
        (broken(answer("Bonn", 9)), ["'Bonn'", "'Köln' stands", "does not hold it"]),
        (broken(answer("r", -2)), ["not at character -2"]),
        (broken(answer("", 0)), ["question 1", "empty answer", "is_impossible"]),
        (broken(answer("Köln", "9")), ["question 1", "'answer_start' is '9'"]),
        (broken(lambda p: p.pop("context")), ["data[0].paragraphs[0] has no 'context'"]),
        (broken(lambda p: p["qas"][1].pop("question")), ["qas[1] has no 'question'"]),
        (broken(lambda p: p["qas"][1].update(id="1")), ["two questions have the id '1'"]),
        (broken(lambda p: p.update(qas=[])), ["no questions"]),
        ('{"data": 3}', ["bad.json: 'data' is 3"]),
        ("[1]", ["bad.json has no 'data'"]),
        ("{", ["not JSON"]),
    ],
)
def test_bad_questions_are_named(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read_squad([write(tmp_path / "bad.json", text)])
    for word in words:
        assert word in str(caught.value)


# ------------------------------------------------------------------ aligned lines


def test_aligned_files_are_pairs_with_their_languages(tmp_path):
    for name, text in (("train.en", "a\nb \n\n"), ("train.de.gz", "x\r\ny\r\nz\r\n"),
                       ("val.en", "c\n"), ("val.de", "w"), ("notes.txt", "n"),
                       ("test.en", "d\n"), ("test.de", "v\n")):  # fmt: skip
        write(tmp_path / name, text)
    pairs = pairs_in(tmp_path, source="en", target="de")
    assert [(a.name, b.name) for a, b in pairs] == [
        ("train.en", "train.de.gz"), ("val.en", "val.de"), ("test.en", "test.de"),
    ]  # fmt: skip
    source = read_parallel(pairs, root=tmp_path)
    assert source.columns["en"].tolist() == ["a", "b", None, "c", "d"]
    assert source.columns["de"].tolist() == ["x", "y", "z", "w", "v"]
    assert (source.target, source.task) == ("de", "translate")
    assert source.given_split.tolist() == [TRAIN] * 3 + [VAL, TEST]
    assert source.row_name(3) == "val row 1"
    assert source.notes == ("1 lines are empty on one side only",)
    assert pairs_in(tmp_path, source="de", target="en")[0][0].name == "train.de.gz"


def test_two_languages_are_found_and_three_are_not_guessed(tmp_path):
    for name in ("train.en", "train.de"):
        write(tmp_path / name, "a\n")
    assert [(a.name, b.name) for a, b in pairs_in(tmp_path)] == [("train.de", "train.en")]
    write(tmp_path / "train.fr", "a\n")
    assert pairs_in(tmp_path) == ()
    for name in ("other/a.png", "other/a.txt", "other/a.xml", "other/a.md"):
        write(tmp_path / name, "a\n")
    assert pairs_in(tmp_path / "other") == ()
    given = pairs_in(tmp_path / "other", source="txt", target="md")
    assert [(a.name, b.name) for a, b in given] == [("a.txt", "a.md")]


def test_a_character_that_unicode_calls_a_line_end_is_no_line_end(tmp_path):
    one = write(tmp_path / "t.en", "a\u2028b\nc\x0bd\x85\n")
    other = write(tmp_path / "t.de", "x\ny\n")
    assert read_parallel([(one, other)]).rows == 2
    assert lines_of(one) == ["a\u2028b", "c\x0bd\x85"]


def test_unequal_files_are_named_with_counts_and_the_first_lonely_line(tmp_path):
    one = write(tmp_path / "t.en", "a\nb\nc\nthe last line\n")
    other = write(tmp_path / "t.de", "x\n\nz\n")
    for pair in ((one, other), (other, one)):
        with pytest.raises(DataError) as caught:
            read_parallel([pair])
        for word in ("t.en", "4 lines", "t.de", "3", "line 4 of t.en", "'the last line'",
                     "line 2 is empty in one of them"):  # fmt: skip
            assert word in str(caught.value) or word == "4 lines"
    assert "t.de has 3 lines and t.en 4" in str(caught.value)


def test_a_table_of_two_texts_is_parallel(tmp_path):
    path = write(tmp_path / "p.tsv", "id\ten\tde\n1\ta dog\tein Hund\n2\ta cat\teine Katze\n")
    source = read_parallel_table(path)
    assert list(source.columns) == ["en", "de"]
    assert (source.target, source.task) == ("de", "translate")
    with pytest.raises(DataError, match=r"q\.tsv has 1 column of text"):
        read_parallel_table(write(tmp_path / "q.tsv", "id\ten\n1\ta dog\n2\ta cat\n"))


# ------------------------------------------------------------------ running text


WIKI = " \n = One = \n \n text \n = = Part = = \n \n x = 3 = y \n \n = Two = \n \n more \n"


def test_documents_are_cut_where_they_begin():
    assert cut_documents(WIKI, "wikitext") == [WIKI[: WIKI.index(" = Two")],
                                               WIKI[WIKI.index(" = Two") :]]  # fmt: skip
    assert cut_documents("a\nb\n\n \n\nc\n\n", "blank") == ["a\nb\n\n \n\n", "c\n\n"]
    assert cut_documents("\n\na\n\nb", "blank") == ["\n\na\n\n", "b"]
    assert cut_documents("a\n\nb\nc", "line") == ["a\n\n", "b\n", "c"]
    no = "a\n = No = \n\nb\n\n = = No = = \n\n = No = \nc"  # a line of text above, or below
    assert cut_documents(no, "wikitext") == [no]
    assert cut_documents("intro\n\n = A = \n\nx", "wikitext") == ["intro\n\n", " = A = \n\nx"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(["a", " = T = ", " = = S = = ", "", " ", "b = c", "한"])),
       st.sampled_from(["file", "wikitext", "blank", "line"]))  # fmt: skip
def test_documents_together_are_the_text_and_none_is_blank(lines, how):
    text = "\n".join(lines)
    documents = cut_documents(text, how)
    assert "".join(documents) == text
    assert all(d.strip() for d in documents) or not text.strip()


def test_a_corpus_is_read_exactly_and_cut_by_its_form(tmp_path):
    path = write(tmp_path / "a.txt", "  first\tline\r\nsecond  \n\n\nthird\n")
    source = read_corpus([path])
    assert source.columns["text"].tolist() == ["  first\tline\r\nsecond  \n\n\n", "third\n"]
    assert (source.task, source.target) == ("generate", None)
    assert "blank lines: 2" in source.notes[0]
    whole = read_corpus([path], documents="file")
    assert whole.rows == 1
    assert whole.fingerprint != source.fingerprint
    assert read_corpus([write(tmp_path / "w.txt", WIKI)]).rows == 2
    assert read_corpus([write(tmp_path / "one.txt", "a\nb\n")]).rows == 1


def test_a_folder_is_a_document_a_file_or_a_split(tmp_path):
    for name, text in (
        ("a/x.txt", "one\n\ntwo"),
        ("a/y.md", "three"),
        ("a/z.txt", " \n"),
        ("a/p.png", "no"),
        ("b/train.txt", "a\n\nb"),
        ("b/test.txt", "c"),
    ):
        write(tmp_path / name, text)  # fmt: skip
    source = read_corpus_folder(tmp_path / "a")
    assert source.columns["text"].tolist() == ["one\n\ntwo", "three"]
    assert source.row_name(1) == "y.md row 1"
    assert "1 empty files left out: z.txt" in source.notes[1]
    split = read_corpus_folder(tmp_path / "b")
    assert split.columns["text"].tolist() == ["c", "a\n\nb"]
    assert split.given_split.tolist() == [TEST, TRAIN]
    assert read_corpus_folder(tmp_path / "b", documents="blank").rows == 3


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (DataError, lambda p: read_corpus([write(p / "a.txt", b"\xef\xbb\xbfab\n\xe9")]),
         ["byte 0xE9 at position 6 (line 2)", "iconv"]),
        (DataError, lambda p: read_corpus([write(p / "a.txt", b"ab\n\0")]),
         ["null byte at position 3 (line 2)"]),
        (DataError, lambda p: read_corpus([write(p / "a.txt", " \n\n")]), ["holds no text"]),
        (DataError, read_corpus_folder, ["no text files", ".txt"]),
        (ConfigError, lambda p: read_corpus([write(p / "a.txt", "a")], documents="blnk"),
         ["'blnk'", "did you mean 'blank'"]),
    ],
)  # fmt: skip
def test_bad_text_is_named_with_its_position(tmp_path, error, call, words):
    with pytest.raises(error) as caught:
        call(tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_utf_16_with_its_mark_is_read(tmp_path):
    assert read_text(write(tmp_path / "a.txt", "한글".encode("utf-16"))) == "한글"


def test_parts_are_told_by_words_of_the_name(tmp_path):
    names = {
        "train.en": TRAIN,
        "test_2016_flickr.de.gz": TEST,
        "wiki.valid.tokens": VAL,
        "eng.testb": TEST,
        "contest.txt": None,
        "train_test.txt": None,
        "x.dev": VAL,
        "newstest2014.en": TEST,
    }
    assert {n: part_of(tmp_path / n) for n in names} == names


def test_a_file_of_no_part_beside_a_published_test_is_named(tmp_path):
    paths = [write(tmp_path / f"{n}.conll", CONLL) for n in ("train", "test", "more")]
    with pytest.raises(DataError, match="more.conll beside files that are called train") as e:
        read_conll(paths, root=tmp_path)
    assert "move it elsewhere" in e.value.do
    texts = [write(tmp_path / f"{n}.txt", f"{n}\n") for n in ("train", "test", "more")]
    source = read_corpus(texts, root=tmp_path)
    assert source.given_split is None
    assert any("split anew" in note for note in source.notes)


# ------------------------------------------------------------------ what is told by its form


def test_a_large_file_is_told_by_its_beginning(tmp_path, monkeypatch):
    lines = "".join(f"wört{i} {'B-X' if i % 5 else 'O'}\n" + "\n" * (i % 7 == 0)
                    for i in range(40_000))  # fmt: skip
    path = write(tmp_path / "large.txt", lines)
    monkeypatch.setattr("gipi.data.sources.conll.lines_of", None)  # nothing reads it whole
    assert len(lines) > 1 << 18
    assert is_conll(path)
    assert not is_conll(write(tmp_path / "bytes.txt", b"a \xff O\n\n"))
    assert not is_conll(write(tmp_path / "null.txt", b"a\0 X\n\n"))
    assert not is_conll(tmp_path / "none.txt")
    assert not is_conll(write(tmp_path / "lone.txt", "a O\nb O\n"))
    assert is_conll(write(tmp_path / "wide.txt", CONLL.encode("utf-16")))


def test_all_files_of_a_folder_are_read_or_named(tmp_path):
    for i in range(language.MOST + 3):
        asked = squad(("Oslo", [question(f"{i}", ("Oslo", 0))]))
        write(tmp_path / "q" / f"{i:02}.json", json.dumps(asked))
    assert language.read_form(tmp_path / "q", None).rows == language.MOST + 3
    for name in ("train.en", "train.de", "test.en"):
        write(tmp_path / "p" / name, "a\n")
    notes = language.read_form(tmp_path / "p", None).notes
    assert "without a partner, and left out: test.en" in notes
    write(tmp_path / "t" / "train.txt", "a O\nb\n\nc B-X\n")
    write(tmp_path / "t" / "test.txt", CONLL)
    with pytest.raises(DataError, match="train.txt line 2: 1 column"):
        language.read_form(tmp_path / "t", "tag")


def test_forms_are_told_and_other_text_only_where_the_task_asks(tmp_path):
    tagged = write(tmp_path / "t" / "train.txt", CONLL)
    write(tmp_path / "t" / "test.txt", CONLL)
    assert is_conll(tagged)
    assert not is_conll(write(tmp_path / "plain.txt", "O what a day\n\nB-sides\n"))
    assert language.read_form(tmp_path / "t", None).task == "tag"
    assert language.read_form(tmp_path / "t", "tag").rows == 4
    assert language.read_form(write(tmp_path / "a.conll", CONLL), None).task == "tag"
    assert language.read_form(tmp_path / "plain.txt", None) is None
    assert language.read_form(tmp_path / "plain.txt", "generate").task == "generate"
    questions = squad(("Oslo", [question("1", ("Oslo", 0))]))
    path = write(tmp_path / "q" / "dev.json", json.dumps(questions))
    assert language.read_form(path, None).task == "answer"
    assert language.read_form(tmp_path / "q", None).task == "answer"
    for name in ("p/train.en", "p/train.de"):
        write(tmp_path / name, "a\n")
    assert language.read_form(tmp_path / "p", None).task == "translate"


# ------------------------------------------------------------------ the real files


def build(name):
    return next(s for s in named.NAMED if s.name == name).build()


def by_part(values, split):
    return [sum(v for v, s in zip(values, split, strict=True) if s == part) for part in range(3)]


@pytest.mark.data
def test_conll2003(data_folder):
    source = build("conll2003")
    assert np.bincount(source.given_split).tolist() == [14_041, 3_250, 3_453]
    tokens = by_part([len(t) for t in source.columns["tokens"]], source.given_split)
    assert tokens == [203_621, 51_362, 46_435]
    assert source.classes["tags"] == (
        "O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER",
    )  # fmt: skip
    assert source.notes == ()  # the tags are BIO already
    begun = by_part([sum(t[0] == "B" for t in row) for row in source.columns["tags"]],
                    source.given_split)  # fmt: skip
    assert begun == [23_499, 5_942, 5_648]  # entities of the shared task's table 2


@pytest.mark.data
def test_klue_ner(data_folder):
    source = build("klue-ner")
    assert (source.rows, source.given_split) == (5_000, None)
    types = {t[2:] for t in source.classes["tags"]} - {""}
    assert types == {"PS", "LC", "OG", "DT", "TI", "QT"}
    assert source.columns["tokens"][0][:5] == ("경", "찰", "은", " ", "또")
    assert source.columns["tags"][0][:3] == ("B-OG", "I-OG", "O")


@pytest.mark.data
def test_multi30k(data_folder):
    source = build("multi30k")
    assert np.bincount(source.given_split).tolist() == [29_000, 1_014, 1_000]
    assert list(source.columns) == ["en", "de"]
    assert source.columns["de"][0] == (
        "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche."
    )
    assert source.target == "de"


@pytest.mark.data
def test_wikitext2(data_folder):
    source = build("wikitext2")
    assert np.bincount(source.given_split).tolist() == [600, 60, 60]
    words = by_part([len(t.split()) + t.count("\n") for t in source.columns["text"]],
                    source.given_split)  # fmt: skip
    assert words == [2_088_628, 217_646, 245_569]


@pytest.mark.data
def test_tinyshakespeare(data_folder):
    source = build("tinyshakespeare")
    train, val = source.columns["text"]
    assert (len(train), len(val)) == (1_003_854, 111_540)
    assert len(set(train + val)) == 65
    assert source.given_split.tolist() == [TRAIN, VAL]


@pytest.mark.data
def test_questions_of_three_languages_and_of_korean(data_folder):
    source = build("xquad")
    assert source.rows == 3 * 1_190
    for lang in ("en", "de", "zh"):
        own = source.columns["language"] == lang
        assert own.sum() == 1_190
        assert len(set(source.columns["context"][own])) == 240
    en, de = (source.columns["language"] == lang for lang in ("en", "de"))
    assert source.columns["id"][en].tolist() == source.columns["id"][de].tolist()
    assert source.bound[en].tolist() == source.bound[de].tolist()
    korean = build("korquad")
    assert korean.rows == 5_774
    assert len(set(korean.columns["context"])) == 960  # of 964 paragraphs four come twice
    raw = gzip.decompress((data_folder / "korquad" / "KorQuAD_v1.0_dev.json.gz").read_bytes())
    assert sum(len(entry["paragraphs"]) for entry in json.loads(raw)["data"]) == 964
    assert korean.bound.max() + 1 == 140


@pytest.mark.data
def test_korean_chatbot(data_folder):
    source = build("korean-chatbot")
    assert source.rows == 11_823
    assert np.bincount(source.columns["label"]).tolist() == [5_290, 3_570, 2_963]
    assert source.target == "A"


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["klue-ner", "multi30k", "tinyshakespeare", "xquad", "korean-chatbot"]
)
def test_checksums_are_those_of_the_files(data_folder, name):
    files = next(s for s in named.NAMED if s.name == name).files
    folder = data_folder / name.replace("-", "_")
    for remote in files:
        path = named.find_file(folder, remote.name.removesuffix(".gz"))
        assert named_sha(path) == remote.sha256


def named_sha(path):
    from gipi.data.sources.download import content_sha256

    return content_sha256(path.read_bytes(), path)


def test_a_text_that_is_no_table_is_told_of_the_task(tmp_path):
    (tmp_path / "book.txt").write_text("A line.\nOne, with a comma.\nAnother, one, here.\n" * 5)
    with pytest.raises(DataError) as error:
        read_source(tmp_path / "book.txt")
    assert "add --task generate" in error.value.do
    with pytest.raises(DataError) as error:
        read_source(tmp_path / "book.txt", task="classify")
    assert "generate" not in error.value.do
    assert read_source(tmp_path / "book.txt", task="generate").task == "generate"
