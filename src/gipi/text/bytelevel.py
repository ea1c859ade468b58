"""The 256 bytes written as 256 printable characters, so that pieces of bytes are readable text.

Printable ASCII and Latin-1 stand for themselves; the other 68 bytes follow from U+0100 on, in
order: a space is Ġ, a line break Ċ. (The table of GPT-2: Radford et al. 2019, Language models are
unsupervised multitask learners.)
"""

from __future__ import annotations

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [b for b in range(256) if b not in set(_PRINTABLE)]
_CODE = {b: b for b in _PRINTABLE} | {b: 0x100 + i for i, b in enumerate(_OTHERS)}

ALPHABET = tuple(chr(_CODE[b]) for b in range(256))
"""The character of each byte."""

_BYTE = {c: b for b, c in enumerate(ALPHABET)}


def to_characters(data: bytes) -> str:
    """Return one character for each byte.

    >>> to_characters("a b".encode())
    'aĠb'
    """
    return "".join(ALPHABET[b] for b in data)


def to_bytes(text: str) -> bytes:
    """Return the bytes behind characters of `ALPHABET`."""
    return bytes(_BYTE[c] for c in text)
