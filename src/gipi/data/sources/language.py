"""Named sets of text, and files of text that are known by their form."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.schema import PRETEXT, WRITTEN
from gipi.data.source import TRAIN, VAL, Source
from gipi.data.sources import conll, corpus, parallel, squad
from gipi.data.sources.compressed import find_file, kind_of
from gipi.data.sources.plain import objects
from gipi.data.sources.table import read_table

if TYPE_CHECKING:
    from pathlib import Path

CONLL = ("train.txt", "valid.txt", "test.txt")
KLUE_NER = ("klue-ner-v1.1_dev.tsv",)
MULTI30K = tuple(
    f"{n}.{lang}" for n in ("train", "val", "test_2016_flickr") for lang in ("en", "de")
)
WIKITEXT = ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens")
SHAKESPEARE = ("input.txt",)
XQUAD = tuple(f"xquad.{language}.json" for language in ("en", "de", "zh"))
KORQUAD = ("KorQuAD_v1.0_dev.json",)
CHATBOT = ("ChatbotData.csv",)
PLAIN = (".txt", ".tsv")  # endings of files that may hold tagged tokens, or anything else
RUNNING = ("generate", *PRETEXT)  # tasks that read running text
MOST = 16  # files of JSON that are looked into where none is SQuAD's: they are pictures' notes
SHARE = 0.9  # of Tiny Shakespeare's characters that are for training, as everybody cuts it


def read_form(path: Path, task: str | None) -> Source | None:
    """Return the source of a file or folder of text in a form of this folder, else None.

    Tagged tokens are known by their suffix or their form, SQuAD's JSON by its content, line-aligned
    files by two names that differ in the language; other text only where the task asks for it.
    """
    if path.is_dir():
        pairs = parallel.pairs_in(path)
        if pairs and task in (None, *WRITTEN):
            found, lone = parallel.read_parallel(pairs, root=path), parallel.lone_in(path, pairs)
            said = (f"without a partner, and left out: {', '.join(lone[:5])}",) if lone else ()
            return replace(found, notes=(*found.notes, *said))
        if task in WRITTEN:
            parallel.refuse_many(path)
        tagged = _tagged(path, asked=task == "tag") if task in (None, "tag") else []
        if tagged:
            return conll.read_conll(tagged, root=path)
        files = sorted(p for p in path.iterdir() if kind_of(p) == ".json")
        if task in (None, "answer") and any(squad.is_squad(p) for p in files[:MOST]):
            return squad.read_squad([p for p in files if squad.is_squad(p)], root=path)
        return corpus.read_corpus_folder(path) if task in RUNNING else None
    kind = kind_of(path)
    if task is None and kind in PLAIN and conll.is_conll(path):
        return conll.read_conll([path])
    if kind in conll.SUFFIXES or (task == "tag" and kind not in (".csv", ".json", ".jsonl")):
        return conll.read_conll([path])
    if kind == ".json" and squad.is_squad(path):
        return squad.read_squad([path])
    if task == "translate" and kind in (".tsv", ".txt"):
        return parallel.read_parallel_table(path)
    if task in RUNNING and kind in corpus.SUFFIXES:
        return corpus.read_corpus([path])
    return None


def _tagged(path: Path, *, asked: bool) -> list[Path]:
    """Return the files of tagged tokens in a folder; where nobody asked, all texts must be so."""
    files = sorted(p for p in path.iterdir() if p.is_file())
    known = [p for p in files if kind_of(p) in conll.SUFFIXES]
    if known:
        return known
    plain = [p for p in files if kind_of(p) in PLAIN and "readme" not in p.name.lower()]
    if asked:  # beside a file of tags another one of its kind is damaged, and its reader says where
        found = [p for p in files if conll.is_conll(p)]
        kinds = {kind_of(p) for p in found}
        return [p for p in files if p in found or (p in plain and kind_of(p) in kinds)]
    return plain if all(conll.is_conll(p) for p in plain) else []


# ---------------------------------------------------------------------------- named sets


def _paths(folder: Path, names: tuple[str, ...]) -> list[Path]:
    found = [find_file(folder, name) for name in names]
    assert all(found), names  # `complete` said so
    return [path for path in found if path is not None]


def read_conll2003(folder: Path) -> Source:
    """Return 14,041 training, 3,250 validation and 3,453 test sentences with four types."""
    return conll.read_conll(_paths(folder, CONLL), root=folder)


def read_klue_ner(folder: Path) -> Source:
    """Return the 5,000 sentences of the development set, a character a token, with six types."""
    found = conll.read_conll(_paths(folder, KLUE_NER), root=folder)
    return replace(found, notes=(*found.notes, "development set only: rows are split anew"))


def read_multi30k(folder: Path) -> Source:
    """Return 29,000 training, 1,014 validation and the 1,000 test pairs of 2016, en to de."""
    paths = _paths(folder, MULTI30K)
    pairs = list(zip(paths[::2], paths[1::2], strict=True))
    return parallel.read_parallel(pairs, names=("en", "de"), root=folder)


def read_wikitext2(folder: Path) -> Source:
    """Return the articles of WikiText-2, training, validation and test."""
    return corpus.read_corpus(_paths(folder, WIKITEXT), documents="wikitext", root=folder)


def read_tinyshakespeare(folder: Path) -> Source:
    """Return two rows: the first 90 % of the characters for training, the rest for validation."""
    found = corpus.read_corpus(_paths(folder, SHAKESPEARE), documents="file", root=folder)
    column = found.columns["text"]
    assert isinstance(column, np.ndarray)
    text = column[0]
    cut = int(SHARE * len(text))
    return replace(
        found,
        columns={"text": objects([text[:cut], text[cut:]])},
        rows=2,
        row_names=("the first 90 %", "the last 10 %"),
        parts=(),
        given_split=np.array([TRAIN, VAL], np.int8),
        fingerprint=hashlib.sha256(f"{found.fingerprint} {SHARE}".encode()).hexdigest(),
        notes=("one text: its first 90 % of characters are training rows, the rest validation",),
    )


def read_xquad(folder: Path) -> Source:
    """Return 1,190 questions in each of English, German and Chinese, with their language."""
    found = squad.read_squad(_paths(folder, XQUAD), root=folder)
    names = [name.split(".")[1] for name in XQUAD]
    languages = np.repeat(np.array(names, dtype=object), [n for _, n in found.parts])
    assert found.bound is not None
    # The n-th article is the same in every language: all its questions stay together.
    articles = int(found.bound[-1] + 1) // len(names)
    questions = found.row_names or ()
    return replace(
        found,
        columns={"language": languages, **found.columns},
        row_names=tuple(f"{n} ({lang})" for n, lang in zip(questions, languages, strict=True)),
        bound=found.bound % articles,
        notes=(*found.notes, "an evaluation set without training rows: rows are split anew"),
    )


def read_korquad(folder: Path) -> Source:
    """Return the 5,774 questions of the development set."""
    found = squad.read_squad(_paths(folder, KORQUAD), root=folder)
    return replace(found, notes=(*found.notes, "development set only: rows are split anew"))


def read_korean_chatbot(folder: Path) -> Source:
    """Return 11,823 questions with their answers; label 0 daily life, 1 negative, 2 positive."""
    found = read_table(_paths(folder, CHATBOT)[0])
    return replace(
        found,
        target="A",
        task="translate",
        task_reason="a text for each text",
        schema_hints={"Q": "text", "A": "text"},
    )
