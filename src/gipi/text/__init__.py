"""Text: tokenizers, what they change in a text, and corpora of tokens."""

from gipi.text.normalise import Normalisation, normalise
from gipi.text.tokenizer import Encoded, Encodings, Tokenizer
from gipi.text.training import train_tokenizer

__all__ = [
    "Encoded",
    "Encodings",
    "Normalisation",
    "Tokenizer",
    "normalise",
    "train_tokenizer",
]
