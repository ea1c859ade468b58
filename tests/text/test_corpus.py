"""A corpus is whole or not there, belongs to one tokenizer, and damage to it is found."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gipi.core.errors import DataError, StorageError
from gipi.text import corpus as corpus_
from gipi.text import train_tokenizer
from gipi.text.corpus import (
    DOCUMENTS,
    META,
    TOKENS,
    build_corpus,
    content_of,
    dtype_for,
    encode_documents,
    key_of,
    open_corpus,
)
from gipi.text.local import is_local

DOCUMENTS_ = ("the cat sat", "", "on the mat [EOS]", "나는 학교에 갑니다 👩‍👩‍👧")
KINDS = ("bpe", "unigram", "wordpiece", "word", "char")


@cache
def made(kind="bpe", vocab=300):
    least = None if kind == "unigram" else 1
    return train_tokenizer(DOCUMENTS_ * 3, kind=kind, vocab=vocab, min_count=least)


def build(tmp_path, documents=DOCUMENTS_, content="x", **options):
    return build_corpus(documents, made(), folder=tmp_path, content=content, **options)


def test_documents_end_to_end(tmp_path):
    corpus = build(tmp_path)
    eos = made().eos
    assert corpus.tokens.dtype == np.uint16
    assert len(corpus) == 4
    for number, text in enumerate(DOCUMENTS_):
        want = [*made().encode(text, special=False).ids.tolist(), eos]
        assert corpus.document(number).tolist() == want
    assert corpus.tokens.tolist().count(eos) == 4  # "[EOS]" in a document is text
    bare = build(tmp_path, end=False)
    assert len(bare.tokens) == len(corpus.tokens) - 4
    assert bare.document(1).tolist() == []
    assert not bare.tokens.flags.writeable


def test_a_corpus_that_is_there_is_not_encoded_again(tmp_path):
    first = build(tmp_path)

    def untouched():
        raise AssertionError
        yield ""

    again = build(tmp_path, untouched())
    assert again.path == first.path
    assert again.tokens.tolist() == first.tokens.tolist()
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.path.name]


def test_content_tokenizer_and_settings_are_the_key(tmp_path):
    other = made("bpe", 310)
    keys = {
        key_of("x", made(), end=True), key_of("y", made(), end=True),
        key_of("x", made(), end=False), key_of("x", other, end=True),
    }  # fmt: skip
    assert len(keys) == 4
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("ab")
    two.write_text("c")
    first = content_of([one, two])
    one.write_text("a")
    two.write_text("bc")
    assert content_of([one, two]) != first


def test_ids_that_need_four_bytes():
    assert dtype_for(1 << 16) == np.uint16
    assert dtype_for((1 << 16) + 1) == np.uint32


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_document_is_encoded_in_parts_without_a_difference(kind, monkeypatch):
    monkeypatch.setattr(corpus_, "_PIECE", 7)
    monkeypatch.setattr(corpus_, "_BATCH", 40)
    tokenizer = made(kind, 600)
    assert is_local(tokenizer.to_json())
    long = (
        "a\x1cb!\x1c!\u3000\n c\u2028 d the cat  sat\n\n on the\tmat\u3000the 학교에 x's it'll " * 3
        + "  "
    )
    documents = (long, "", "the", "a" * 50, " " * 30, long[::-1])
    parts = list(encode_documents(documents, tokenizer, end=1))
    assert len(parts) > 2
    assert len(list(corpus_._pieces(long))) > 5
    want = [[*tokenizer.encode(d, special=False).ids.tolist(), 1] for d in documents]
    assert np.concatenate([v for v, _ in parts]).tolist() == sum(want, [])  # noqa: RUF017
    assert np.concatenate([c for _, c in parts]).tolist() == [len(w) for w in want]


def test_tokenizers_that_look_across_spaces_get_a_document_whole():
    assert not is_local(changed("bpe", pre_tokenizer=None))
    assert not is_local(changed("bpe", normalizer={"type": "Prepend", "prepend": "x"}))
    body = json.loads(made().to_json())
    body["pre_tokenizer"]["add_prefix_space"] = True
    assert not is_local(json.dumps(body))
    body = json.loads(made().to_json())
    body["pre_tokenizer"]["use_regex"] = False
    assert not is_local(json.dumps(body))
    body = json.loads(made().to_json())
    body["added_tokens"].append({**body["added_tokens"][0], "special": False, "content": "a b"})
    assert not is_local(json.dumps(body))


def changed(kind, **parts):
    return json.dumps({**json.loads(made(kind).to_json()), **parts})


@pytest.mark.parametrize("name", [TOKENS, DOCUMENTS, META])
@pytest.mark.parametrize("how", ["flip", "shorten", "remove"])
def test_damage_is_found_and_repaired(name, how, tmp_path):
    whole = build(tmp_path)
    path, tokens = whole.path, whole.tokens.tolist()
    file = path / name
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif how == "shorten":
        file.write_bytes(data[:-2])
    else:
        file.unlink()
    with pytest.raises(DataError) as error:
        open_corpus(path)
    assert str(file) in error.value.found
    assert "damaged" in error.value.found
    assert build(tmp_path).tokens.tolist() == tokens


def test_damage_that_is_not_looked_for(tmp_path):
    path = build(tmp_path).path
    data = bytearray((path / TOKENS).read_bytes())
    data[3] ^= 1
    (path / TOKENS).write_bytes(data)
    assert len(open_corpus(path, verify=False).tokens) == len(data) // 2
    with pytest.raises(DataError, match="damaged"):
        open_corpus(path)


def test_another_tokenizer_and_another_format(tmp_path):
    path = build(tmp_path).path
    with pytest.raises(DataError, match=r"another tokenizer[\s\S]*encode the documents again"):
        open_corpus(path, made("bpe", 310))
    body = json.loads((path / META).read_text())
    body["format_version"] = 99
    own = body.pop("own")
    body["own"] = corpus_.digest(json.dumps(body, sort_keys=True).encode())
    assert body["own"] != own
    (path / META).write_text(json.dumps(body))
    with pytest.raises(DataError, match="has format 99"):
        open_corpus(path)


def test_nothing_remains_where_encoding_fails(tmp_path):
    with pytest.raises(DataError, match="document 1 is 5"):
        build(tmp_path, ["a", 5])
    with pytest.raises(DataError, match="2 documents without a token"):
        build(tmp_path, ["", ""], end=False)
    with pytest.raises(DataError, match="0 documents without a token"):
        build(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        build_corpus(DOCUMENTS_, made(), folder=tmp_path / "file", content="x")


def test_another_process_that_was_faster(tmp_path, monkeypatch):
    first = build(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    seen = []

    def documents():
        seen.append(1)
        monkeypatch.undo()
        yield from DOCUMENTS_

    assert build(tmp_path, documents()).tokens.tolist() == first.tokens.tolist()
    assert seen == [1]
