"""Which tokenizer reads the texts: a given one, that of a run which goes on, or a trained one.

Only texts of training rows are seen here. The kind and the size that were not asked for follow from
how much text there is, and the reason is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.data.cache import keep, key_of
from gipi.text import Tokenizer, train_tokenizer

if TYPE_CHECKING:
    from gipi.data.options import DataOptions

KINDS = ("bpe", "unigram", "wordpiece", "word", "char")
OPTIONS = ("kind", "vocab")
SMALLEST, LARGEST = 512, 32_768  # ids of a vocabulary that was not asked for
IDS_PER_ROOT = 4.0  # ids for each square root of a character: a word more is seen ever more rarely
MOST_CHARACTERS = 2_000_000  # that a tokenizer is trained on: more hardly changes its vocabulary
WORTH_KEEPING = 500_000  # characters from which a trained tokenizer is kept in the cache
LONE_WORDS, SHORT_WORDS = 1.5, 16  # words and letters of a text below which it is a name, say
FORMAT = 1
SPECIAL = ("pad", "unk", "cls", "sep", "mask")
WORDS = {
    "bpe": "byte-level BPE", "unigram": "unigram pieces", "wordpiece": "word pieces",
    "word": "whole words", "char": "characters",
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A tokenizer, and why it is this one."""

    tokenizer: Tokenizer
    reason: str


def choose_tokenizer(
    columns: list[list[str]],
    options: DataOptions,
    *,
    key: tuple[object, ...] = (),
    usual: tuple[str, str] | None = None,
    special: tuple[str, ...] = SPECIAL,
    languages: int = 1,
) -> Choice:
    """Return the tokenizer for texts, trained on `columns` where none is given.

    columns  the training texts of each column, "" for missing ones
    key      names the training rows, for the cache
    usual    kind where none was asked for, and why; None: guessed from the texts
    special  roles of the special tokens of a tokenizer that is trained
    languages  that share the vocabulary: its size follows from the text of one, for few pairs are
               translated better with short pieces (Ding, Renduchintala and Duh 2019,
               arXiv:1905.10453)

    Raises `ConfigError` for an unknown kind or option, `DataError` where all texts are empty or the
    file of a tokenizer cannot be read.
    """
    if options.tokenizer_kept is not None:
        found = options.tokenizer_kept
        return Choice(found, f"tokens: {_ids(found)}, as the run began")
    kind, vocab = _asked(options)
    if kind is not None and kind not in KINDS:
        found = Tokenizer.from_file(Path(kind).expanduser())
        return Choice(found, f"tokens: {_ids(found)}, of {kind}")
    texts = [t for column in columns for t in column if t]
    if not texts:
        raise DataError(
            "every training text is empty", "texts to learn from", "check the column and the file"
        )
    lengths = np.array([len(t) for t in texts])
    total = read = int(lengths.sum())
    if total > MOST_CHARACTERS:  # every so many, so that all of the file is seen
        step = math.ceil(total / MOST_CHARACTERS)
        texts, read = texts[::step], int(lengths[::step].sum())
    kind, why = (kind, "as asked") if kind is not None else usual or guess(texts)
    wanted = vocab or size_for(total // languages)
    if vocab is None and kind != "bpe":  # every character needs an id, or two within a word
        wanted = max(wanted, 2 * len(set().union(*texts)) + SMALLEST)
    name = (*key, kind, wanted, FORMAT, version("tokenizers"))
    name = name if special == SPECIAL else (*name, special)
    tokenizer = _trained(texts, kind, wanted, name, read, options, special)
    much = f"{len(texts):,} training texts of {read:,} characters"
    return Choice(tokenizer, f"tokens: {_ids(tokenizer)}, trained on {much} ({why})")


def guess(texts: list[str]) -> tuple[str, str]:
    """Return the kind for these texts and why: characters for lone words, else byte-level BPE.

    BPE has a token for every text whatever its script, needs no spaces between words (Chinese,
    Japanese, Thai) and cuts endings from stems (Korean, German).
    """
    some = texts[:: max(1, len(texts) // 1000)]
    words = sum(len(t.split()) for t in some) / len(some)
    letters = sum(map(len, some)) / len(some)
    if words < LONE_WORDS and letters < SHORT_WORDS:
        return "char", "each text is a short word"
    return "bpe", "it spells every text in every script"


def size_for(characters: int) -> int:
    """Return the number of ids for a corpus: 4 √characters, to the nearest power of two.

    >>> size_for(5_000_000), size_for(100), size_for(10**12)
    (8192, 512, 32768)
    """
    wanted = IDS_PER_ROOT * math.sqrt(max(characters, 1))
    return max(SMALLEST, min(LARGEST, 1 << round(math.log2(wanted))))


def _asked(options: DataOptions) -> tuple[str | None, int | None]:
    """Return the kind (or file) and the size that were asked for."""
    given: dict[str, Any] = options.tokenizer_options
    for key in given:
        if key not in OPTIONS:
            raise ConfigError(
                f"tokenizer.{key} is no option of a tokenizer",
                "one of " + ", ".join(f"tokenizer.{o}" for o in OPTIONS),
                did_you_mean(key, OPTIONS),
            )
    kind = options.tokenizer if options.tokenizer is not None else given.get("kind")
    if options.tokenizer is not None and given.get("kind") not in (None, options.tokenizer):
        raise ConfigError(
            f"tokenizer={options.tokenizer} and tokenizer.kind={given['kind']}",
            "one of them", "leave one out",
        )  # fmt: skip
    vocab = given.get("vocab")
    if vocab is not None and (not isinstance(vocab, int) or isinstance(vocab, bool) or vocab < 1):
        raise ConfigError(
            f"tokenizer.vocab={vocab!r}", "a number of tokens", "for instance tokenizer.vocab=8000"
        )
    if kind is None or kind in KINDS:
        return kind, vocab
    kind = str(kind)
    if not Path(kind).expanduser().exists():
        raise ConfigError(
            f"tokenizer={kind} is neither a kind nor a file",
            "one of " + ", ".join(KINDS) + ", or a tokenizer.json",
            did_you_mean(kind, KINDS),
        )
    if vocab is not None:
        raise ConfigError(
            f"tokenizer.vocab={vocab} with the tokenizer of {kind}",
            "a size only for a tokenizer that is trained",
            "leave tokenizer.vocab out",
        )
    return kind, None


def _trained(
    texts: list[str], kind: str, vocab: int, name: tuple[object, ...], characters: int,
    options: DataOptions, special: tuple[str, ...],
) -> Tokenizer:  # fmt: skip
    def train() -> Tokenizer:
        try:
            return train_tokenizer(texts, kind=kind, vocab=vocab, special=special)
        except ConfigError as error:
            raise ConfigError(
                f"tokenizer.{error.found}", error.needed, "set a larger tokenizer.vocab"
            ) from error

    def make() -> dict[str, np.ndarray]:
        return {"json": np.frombuffer(train().to_json().encode(), dtype=np.uint8)}

    if characters < WORTH_KEEPING:
        return train()
    found = keep(key_of("tokenizer", *name), make, name="a tokenizer", folder=options.cache)
    return Tokenizer.from_json(found["json"].tobytes().decode())


def _ids(tokenizer: Tokenizer) -> str:
    return f"{WORDS.get(tokenizer.kind, tokenizer.kind)}, {tokenizer.vocab_size:,} ids"
