"""Train a tokenizer: which pieces of text become tokens is learned from text.

    bpe        bytes; the most frequent pair of neighbours becomes one token, again and again
               (Sennrich, Haddow and Birch 2016, arXiv:1508.07909; over bytes: Radford et al. 2019)
    unigram    many pieces with a probability each; the least useful are dropped
               (Kudo 2018, arXiv:1804.10959)
    wordpiece  words from left to right by the longest piece that is known
               (Schuster and Nakajima 2012; the pieces are found by merging frequent pairs, as the
               `tokenizers` package does it, not by likelihood)
    word       the most frequent words
    char       the most frequent characters

The same texts give the same tokenizer, in the same order of ids. The package does not promise that:
its WordPiece breaks ties by the order of a hash table, and its Unigram hands out the last scores
and adds up counts in such an order. Here words are counted first and given in a fixed order, and
scores are rounded to four digits. What could still differ are two Unigram pieces of exactly the
same worth at the very edge of the vocabulary.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Core

from gipi.core.errors import ConfigError, DataError, UnknownName, did_you_mean
from gipi.text.bytelevel import ALPHABET
from gipi.text.counting import Counted, count_words, covered
from gipi.text.encoded import check_texts
from gipi.text.normalise import KINDS, normaliser, of_kind
from gipi.text.roles import ROLES, name_of
from gipi.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CONTINUES = "##"
"""What a piece begins with that does not begin a word (wordpiece)."""
SPACE = "▁"
"""What a space is written as (unigram)."""
LONGEST = 100
"""Characters of a word beyond which WordPiece knows it not."""
_DIGITS = 4  # of the scores: what is behind them depends on the order of a sum


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: str,
    vocab: int,
    lowercase: bool | None = None,
    special: Sequence[str] = ROLES,
    extra: Sequence[str] = (),
    min_count: int | None = None,
    coverage: float = 1.0,
) -> Tokenizer:
    """Learn a tokenizer from texts, which are read once.

    texts      any iterable of texts; the words are held in memory, the texts are not
    kind       bpe, unigram, wordpiece, word or char
    vocab      the most ids there may be, special tokens included; fewer where the texts do not
               give as many
    lowercase  None for what the kind does: see `gipi.text.normalise`
    special    roles of special tokens; padding is always there and always id 0
    extra      further special tokens, such as the sentinels of span corruption
    min_count  how often a pair, word or character must occur; default 2, and 1 for characters; not
               for unigram, which has no counts
    coverage   share of the characters of the texts that must be known (unigram and wordpiece); the
               rarest beyond it become [UNK], which leaves room for longer pieces
    With cls and sep a text becomes [CLS] text [SEP], and a pair [CLS] text [SEP] text [SEP]; else
    [BOS] text [EOS], as far as these are wanted. Raises `UnknownName`, `ConfigError`, `DataError`.
    """
    if kind not in KINDS:
        raise UnknownName(
            f"no kind of tokenizer is called '{kind}'",
            "one of " + ", ".join(KINDS),
            did_you_mean(kind, KINDS),
        )
    roles = _roles(kind, special)
    names = [*(name_of(role) for role in roles), *extra]
    if len(set(names)) < len(names) or "" in names:
        raise ConfigError(
            f"extra special tokens {list(extra)}", "different names, none empty", "rename them"
        )
    if not 0 < coverage <= 1:
        raise ConfigError(f"coverage = {coverage}", "a share above 0 and up to 1", "use 0.9995")
    for name, given, kinds in (
        ("min_count", min_count is not None, [k for k in KINDS if k != "unigram"]),
        ("coverage", coverage != 1, ["unigram", "wordpiece"]),
    ):
        if given and kind not in kinds:
            raise ConfigError(
                f"{name} for the kind {kind}, in which it changes nothing",
                "one of " + ", ".join(kinds),
                f"leave {name} out",
            )
    core = _empty(kind, lowercase=lowercase)
    least = min_count if min_count is not None else (1 if kind == "char" else 2)
    if kind == "bpe":
        model = _train_bpe(core, texts, vocab, names, least)
    else:
        counted = count_words(texts, core, characters=kind == "char")
        if not counted.words:
            raise _empty_corpus(counted.texts)
        if kind in {"unigram", "wordpiece"}:
            counted = covered(counted, coverage)
        model = {
            "unigram": _train_unigram,
            "wordpiece": _train_wordpiece,
            "word": _train_words,
            "char": _train_words,
        }[kind](counted, vocab, names, least)
    core.model = model
    core.add_special_tokens(names)
    core.post_processor = _template(core, roles)
    return Tokenizer(core, kind, {role: name_of(role) for role in roles})


# ------------------------------------------------------------------------ what a kind is made of


def _empty(kind: str, *, lowercase: bool | None) -> Core:
    """Return the tokenizer of a kind before it has learned anything."""
    core = Core(models.BPE())
    wanted = normaliser(of_kind(kind, lowercase=lowercase))
    if wanted is not None:
        core.normalizer = wanted
    if kind == "bpe":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
    elif kind == "unigram":
        core.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
        core.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    elif kind == "char":
        core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        core.decoder = decoders.Fuse()
    else:
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        if kind == "wordpiece":
            core.decoder = decoders.WordPiece(CONTINUES, cleanup=False)
    return core


def _roles(kind: str, special: Sequence[str]) -> list[str]:
    for role in special:
        if role not in ROLES:
            raise UnknownName(
                f"no special token is called '{role}'",
                "of " + ", ".join(ROLES),
                did_you_mean(role, ROLES),
            )
    wanted = {"pad", *special}
    if kind != "bpe":
        wanted.add("unk")  # bytes alone can express everything
    return [role for role in ROLES if role in wanted]


def _template(core: Core, roles: Sequence[str]) -> processors.PostProcessor:
    """Return what puts special tokens around a text and around a pair."""
    first, last = "", ""
    if "cls" in roles and "sep" in roles:
        first, last = name_of("cls"), name_of("sep")
    else:
        first = name_of("bos") if "bos" in roles else ""
        last = name_of("eos") if "eos" in roles else ""
    used = [t for t in (first, last) if t]
    single = [*([first] if first else []), "$A", *([last] if last else [])]
    second = ["$B:1", *([f"{last}:1"] if last else [])]
    return processors.TemplateProcessing(
        single=" ".join(single),
        pair=" ".join([*single, *second]),
        special_tokens=[(t, core.token_to_id(t)) for t in dict.fromkeys(used)],
    )


# ------------------------------------------------------------------------ the kinds


def _train_bpe(core: Core, texts: Iterable[str], vocab: int, names: list[str], least: int) -> Any:
    _check_room(vocab, len(names), len(ALPHABET), "bytes")
    seen = [0, 0]

    def watched() -> Iterator[str]:
        for row, text in enumerate(texts):
            check_texts((text,), first_row=row)
            seen[0] += 1
            seen[1] += len(text)
            yield text

    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=names, min_frequency=least, show_progress=False,
        initial_alphabet=list(ALPHABET),
    )  # fmt: skip
    core.train_from_iterator(watched(), trainer)
    if not seen[1]:
        raise _empty_corpus(seen[0])
    return core.model


def _train_wordpiece(counted: Counted, vocab: int, names: list[str], least: int) -> Any:
    every = sorted({c for w in counted.words for c in w})
    later = sorted({c for w in counted.words for c in w[1:]})
    alphabet = [*every, *(CONTINUES + c for c in later)]
    _check_room(vocab, len(names), len(alphabet), "characters that begin or continue a word")
    core = Core(models.WordPiece(unk_token=name_of("unk")))
    core.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
    # The whole alphabet goes in as special tokens: then its ids, by which ties are broken, are
    # given in this order and not by the order in which a hash table is read.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab, special_tokens=[*names, *alphabet], min_frequency=least,
        show_progress=False, continuing_subword_prefix=CONTINUES,
    )  # fmt: skip
    core.train_from_iterator(counted.lines(), trainer)
    pieces = json.loads(core.to_str())["model"]["vocab"]
    return models.WordPiece(
        pieces,
        unk_token=name_of("unk"),
        max_input_chars_per_word=LONGEST,
        continuing_subword_prefix=CONTINUES,
    )


def _train_unigram(counted: Counted, vocab: int, names: list[str], least: int) -> Any:  # noqa: ARG001
    alphabet = sorted({c for w in counted.words for c in w})
    _check_room(vocab, len(names), len(alphabet), "characters")
    core = Core(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab, special_tokens=names, unk_token=name_of("unk"), show_progress=False,
    )  # fmt: skip
    core.train_from_iterator(counted.lines(), trainer)
    pieces = [tuple(p) for p in json.loads(core.to_str())["model"]["vocab"]]
    settled = settle([p for p in pieces if p[0] not in names])
    return models.Unigram([*((t, 0.0) for t in names), *settled], names.index(name_of("unk")))


def settle(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return Unigram pieces by falling score, with what depends on chance taken out of them.

    The trainer adds up in the order of a hash table, so that the last bits of a score differ from
    run to run: scores are rounded. Characters that it kept only because nothing else spells them
    get the lowest score plus 0, 0.0001, 0.0002, ... in such an order: all get the lowest.
    """
    lowest = min(score for _, score in pieces)
    singles = {round((s - lowest) * 1e4, 3): p for p, s in pieces if len(p) == 1}
    kept: set[str] = set()
    while float(len(kept)) in singles:
        kept.add(singles[float(len(kept))])
    scored = [(p, round(lowest if p in kept else s, _DIGITS)) for p, s in pieces]
    return sorted(scored, key=lambda piece: (-piece[1], piece[0]))


def _train_words(counted: Counted, vocab: int, names: list[str], least: int) -> Any:
    _check_room(vocab, len(names), 1, "word at least")
    ranked = sorted(counted.words.items(), key=lambda item: (-item[1], item[0]))
    kept = [w for w, n in ranked if n >= least and w not in names][: vocab - len(names)]
    if not kept:
        raise DataError(
            f"nothing occurs {least} times in {counted.texts} texts",
            "words that occur again",
            "give more text, or min_count=1",
        )
    return models.WordLevel({t: i for i, t in enumerate([*names, *kept])}, name_of("unk"))


# ------------------------------------------------------------------------ errors


def _check_room(vocab: int, special: int, alphabet: int, what: str) -> None:
    if vocab < special + alphabet:
        raise ConfigError(
            f"vocab = {vocab}",
            f"at least {special + alphabet}: {special} special tokens and {alphabet} {what}",
            f"use --vocab {special + alphabet} or more (usual are 8000 to 50000)"
            + (", or --coverage 0.9995, or kind bpe" if "characters" in what else ""),
        )


def _empty_corpus(texts: int) -> DataError:
    return DataError(
        f"{texts} texts without a character" if texts else "no text at all",
        "text to learn the tokens from",
        "name files that hold text",
    )
