"""Bytes of tokens: together they are the bytes of the text."""

from __future__ import annotations

import pytest

from gipi.text import train_tokenizer
from gipi.text.sizes import token_bytes

TEXT = "the smith hears 깊이 and naïve Ünder 🦊\nat dawn. " * 40


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_the_bytes_of_lossless_tokens_are_those_of_the_text(kind: str) -> None:
    made = train_tokenizer([TEXT], kind=kind, vocab=400, special=("pad", "unk", "eos"))
    sizes = token_bytes(made)
    ids = made.encode(TEXT, special=False).ids
    assert sum(sizes[i] for i in ids.tolist()) == len(TEXT.encode())
    assert len(sizes) == made.vocab_size
    assert [sizes[i] for i in made.special_tokens.values()] == [0] * len(made.special_tokens)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "word"])
def test_the_bytes_of_other_tokens_are_about_those_of_the_text(kind: str) -> None:
    plain = "the smith hears the queen at dawn by the river " * 60
    made = train_tokenizer([plain], kind=kind, vocab=200, special=("pad", "unk"))
    ids = made.encode(plain, special=False).ids
    read = sum(token_bytes(made)[i] for i in ids.tolist())
    assert read == pytest.approx(len(plain), rel=0.02)
