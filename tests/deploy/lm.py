"""Tokenizers for the tests of texts in and out: one that gives plain ids, one that gives all."""

from __future__ import annotations

from types import SimpleNamespace


class Letters:
    """One id a letter, nothing put around a text; knows 20 letters and the space."""

    LETTERS = " abcdefghijklmnopqrst"
    pad, bos, eos = 22, None, 21
    vocab_size = 23

    def encode(self, text):
        return [self.LETTERS.index(c) for c in text]

    def decode(self, ids):
        return "".join(self.LETTERS[i] for i in ids if i < len(self.LETTERS))


class Bytes:
    """One id a byte behind three special ones; [bos] text [eos] with `special`, places told.

    As byte-level tokenizers do, it cuts characters into several tokens, and decodes what is no
    whole character as a question mark in a diamond.
    """

    pad, bos, eos = 0, 1, 2
    vocab_size = 259

    def encode(self, text, *, special=True):
        ids, offsets = [], []
        for place, c in enumerate(text):
            for byte in c.encode():
                ids.append(byte + 3)
                offsets.append((place, place + 1))
        mask = [False] * len(ids)
        if special:
            ids, offsets = [1, *ids, 2], [(0, 0), *offsets, (0, 0)]
            mask = [True, *mask, True]
        return SimpleNamespace(ids=ids, offsets=offsets, special_mask=mask)

    def decode(self, ids):
        return bytes(i - 3 for i in ids if i > 2).decode("utf-8", "replace")


class Pieces(Letters):
    """Decodes without the space that a text begins with, as sentence pieces do."""

    def decode(self, ids):
        return super().decode(ids).removeprefix(" ")
