"""Text files: what is wrong with them is named with its place; and the command that trains."""

from __future__ import annotations

import gzip
import json
import os

import pytest

from gipi.cli import main
from gipi.core.errors import ConfigError, DataError
from gipi.text import Tokenizer
from gipi.text.files import read_documents, read_lines, train_from_files

TEXT = "the cat sat on the mat\nthe cat ran\n\n나는 학교에 갑니다\n" * 4


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "corpus.txt"
    path.write_bytes(TEXT.encode())
    return path


# ------------------------------------------------------------------------ reading


def test_units(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\n\n \nthree".encode())
    other = tmp_path / "b.txt.gz"
    other.write_bytes(gzip.compress(b"four\nfive\x00\n"))
    both = [path, str(other)]
    assert list(read_lines(path)) == ["one\r\n", "two\n", "\n", " \n", "three"]
    assert list(read_documents(both)) == ["one", "two", "three", "four", "five\x00"]
    paragraphs = list(read_documents(both, unit="paragraph"))
    assert paragraphs == ["one\r\ntwo\n", "three", "four\nfive\x00\n"]
    assert list(read_documents(both, unit="file"))[1] == "four\nfive\x00\n"
    with pytest.raises(ConfigError, match="unit = word"):
        list(read_documents(both, unit="word"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"ab\nc\xff\n", "byte 4 (line 2) is 0xff"),
        ("한글\n".encode() + "학교에 간다\n".encode("cp949"), "byte 7 (line 2) is 0xc7"),
        ("ab\n".encode("utf-16"), "byte 0 (line 1) is 0xff"),
        (b"x" * 9 + "é".encode("latin-1"), "byte 9 (line 1) is 0xe9"),
        (b"ab\xe2\x82", "byte 2 (line 1) is 0xe2"),
    ],
)
def test_a_wrong_encoding_is_named_with_its_place(data, words, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        list(read_lines(path))
    assert words in error.value.found
    assert str(path) in error.value.found
    assert "iconv -f" in error.value.do or "save the file" in error.value.do


def test_the_guess_at_the_encoding(tmp_path):
    for encoding, text in (("cp949", "학교에 간다"), ("utf-16", "abc"), ("cp1252", "a€ é")):
        path = tmp_path / encoding
        path.write_bytes(text.encode(encoding))
        with pytest.raises(DataError) as error:
            list(read_lines(path))
        if encoding != "cp1252":  # which other encodings allow too
            assert encoding.upper() in error.value.do


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"no\.txt cannot be read \(No such file"):
        list(read_lines(tmp_path / "no.txt"))
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"a" * 1000)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_lines(broken))
    plain = tmp_path / "plain.gz"
    plain.write_bytes(b"abc")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_lines(plain))


# ------------------------------------------------------------------------ training from files


def test_training_from_files(corpus, tmp_path):
    packed = tmp_path / "more.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    done = train_from_files([corpus, packed], "wordpiece", vocab=60, out=tmp_path / "made")
    assert (done.texts, done.bytes) == (32, 2 * len(TEXT.encode()))
    assert done.path == tmp_path / "made" / "tokenizer.json"
    assert Tokenizer.from_file(tmp_path / "made") == done.tokenizer
    assert done.seconds > 0


def run(capsys, *args):
    code = main(["tokenizer", *args, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "word", "char"])
def test_the_command_trains_and_shows(kind, corpus, capsys):
    code, found, said = run(capsys, "train", "corpus.txt", "--kind", kind, "--vocab", "300")
    assert code == 0
    assert (found["out"], found["kind"], found["lossless"]) == (
        "tokenizer.json",
        kind,
        kind == "bpe",
    )
    assert found["texts"] == 16
    assert found["vocab"] <= 300
    assert f"{kind}: {found['vocab']} ids from 16 lines" in said
    assert ("300 were asked for" in said) == (found["vocab"] < 300)
    text = "the cat 학교에 👍"
    code, shown, said = run(capsys, "show", "tokenizer.json", text, "--pair", "ran")
    assert code == 0
    made = Tokenizer.from_file("tokenizer.json")
    assert shown["ids"] == made.encode(text, "ran").ids.tolist()
    assert len(shown["tokens"]) == len(shown["offsets"]) == len(shown["ids"])
    assert shown["segments"][-1] == 1
    if kind == "bpe":
        assert shown["decoded"] == text + "ran"
        assert said.splitlines()[0] == f"[CLS]{text}[SEP]ran[SEP]"
    assert f"{kind}, {found['vocab']} ids" in said


def test_a_text_with_brackets_is_shown_as_it_is(corpus, capsys):
    run(capsys, "train", "corpus.txt", "--vocab", "300")
    _, _, said = run(capsys, "show", "tokenizer.json", "[bold]x[/] [CLS]")
    assert said.splitlines()[0] == "[CLS][bold]x[/] [CLS][SEP]"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "nowhere.txt"], "there is no file nowhere.txt"),
        (["train", "corpus.txt", "--vocab", "many"], "vocab = many"),
        (["train", "corpus.txt", "--vocab", "0"], "vocab = 0"),
        (["train", "corpus.txt", "--vocab", "20"], "vocab = 20"),
        (["train", "corpus.txt", "--kind", "bpee"], "called 'bpee'"),
        (["train", "corpus.txt", "--min-count", "x"], "min-count = x"),
        (["train", "corpus.txt", "--coverage", "x"], "coverage = x"),
        (["train", "corpus.txt", "--coverage", "1.5"], "coverage = 1.5"),
        (["train", "corpus.txt", "--vocob", "9"], "no option '--vocob'"),
        (["show", "nowhere.json", "text"], "nowhere.json cannot be read"),
        (["trian"], "trian"),
        ([], "alone does nothing"),
    ],
)
def test_wrong_requests(args, words, corpus, capsys):
    code, found, _ = run(capsys, *args)
    assert code == 2
    assert words in found["error"]["found"]
    assert not os.path.exists("tokenizer.json")  # noqa: PTH110


def test_a_bad_byte_is_named_by_the_command(corpus, capsys):
    corpus.write_bytes(b"fine\n\xb0\xa1\n")
    code, found, _ = run(capsys, "train", "corpus.txt")
    assert code == 2
    assert "corpus.txt: byte 5 (line 2) is 0xb0" in found["error"]["found"]
    assert "CP949" in found["error"]["do"]
