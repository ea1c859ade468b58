"""Text: tokenizers, what they change in a text, and corpora of tokens."""

from __future__ import annotations

from gipi.text.corpus import Corpus, build_corpus, open_corpus
from gipi.text.encoded import Encoded, Encodings
from gipi.text.files import read_documents, train_from_files
from gipi.text.fits import check_fit
from gipi.text.normalise import Normalisation, normalise
from gipi.text.packing import (
    fill,
    pack_documents,
    random_windows,
    rows_at,
    streams,
)
from gipi.text.tokenizer import Tokenizer
from gipi.text.training import train_tokenizer

__all__ = [
    "Corpus",
    "Encoded",
    "Encodings",
    "Normalisation",
    "Tokenizer",
    "build_corpus",
    "check_fit",
    "fill",
    "normalise",
    "open_corpus",
    "pack_documents",
    "random_windows",
    "read_documents",
    "rows_at",
    "streams",
    "train_from_files",
    "train_tokenizer",
]
