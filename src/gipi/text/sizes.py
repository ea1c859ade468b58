"""How many bytes of text each id of a vocabulary stands for, to count bits per byte with."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from gipi.text.roles import is_lossless

if TYPE_CHECKING:
    from gipi.text.tokenizer import Tokenizer

_WORD_START, _CONTINUES = "▁", "##"  # of Unigram pieces, and of WordPiece


def token_bytes(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the bytes of text behind each id, 0 for special tokens.

    Exact for byte-level BPE, whose tokens are written with one character a byte, and for
    characters. Of the other kinds, which do not give a text back as it was, a piece counts as it
    is written, with one byte for the space before a word.
    """
    return _sizes(tokenizer.to_json(), tokenizer.kind, tuple(tokenizer.special_tokens.values()),
                  tokenizer.vocab_size)  # fmt: skip


@lru_cache(maxsize=8)
def _sizes(text: str, kind: str, special: tuple[int, ...], size: int) -> tuple[int, ...]:
    body = json.loads(text)
    model, none = body["model"]["vocab"], set(special)
    pairs = model.items() if isinstance(model, dict) else ((p, i) for i, (p, _) in enumerate(model))
    found = [0] * size
    by_bytes = kind == "bpe" and is_lossless(body)
    for token, i in pairs:
        if i not in none:
            found[i] = len(token) if by_bytes else _bytes(token, kind)
    return tuple(found)


def _bytes(token: str, kind: str) -> int:
    if kind == "wordpiece":
        return len(token.removeprefix(_CONTINUES).encode()) + (not token.startswith(_CONTINUES))
    if kind == "word":
        return len(token.encode()) + 1
    return len(token.replace(_WORD_START, " ").encode())
