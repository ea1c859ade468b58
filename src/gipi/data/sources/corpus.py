"""Running text for language models: files, or a folder of them, as documents.

A row is a document, exactly as it lies in its file: the rows of a file, put one behind the other,
are the file again, white space included.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.data.source import Source
from gipi.data.sources.compressed import fingerprint_files, kind_of, stem_of
from gipi.data.sources.plain import is_half_named, objects, read_text, split_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUFFIXES = (".txt", ".text", ".md", ".tokens", ".raw")
DOCUMENTS = ("file", "wikitext", "blank", "line")
# A heading of the first level, "= Title =", on a line of its own with blank lines around it.
_HEADING = re.compile(r"^[ \t]*= (?!=)[^\n]*?[^\s=] =[ \t]*\n(?=[ \t]*\r?\n)", re.MULTILINE)
_BLANK = re.compile(r"\n(?:[ \t\r]*\n)+")
_LINE = re.compile(r"\n(?:[ \t\r]*\n)*")


def read_corpus(
    paths: Sequence[Path], *, documents: str | None = None, root: Path | None = None
) -> Source:
    """Return the documents of text files.

    documents  where they begin: "file" (one a file), "wikitext" (at each "= Title ="), "blank" (at
               blank lines), "line" (one a line); None: one a file where there are several files
               that are no split, else the first of "wikitext" and "blank" that finds two in the
               first file, else one a file

    Files whose names say train, valid (dev) and test are the given split. Nothing is stripped.
    Raises `DataError` for text that is no UTF-8 (with the position of the byte), for a null byte
    and where there is no text at all; `ConfigError` for another word.
    """
    if documents is not None and documents not in DOCUMENTS:
        raise ConfigError(
            f"documents={documents!r}", "one of " + ", ".join(DOCUMENTS),
            did_you_mean(documents, DOCUMENTS),
        )  # fmt: skip
    texts = [read_text(path) for path in paths]
    how = documents or _way(list(paths), texts)
    found = [cut_documents(text, how) if text.strip() else [] for text in texts]
    rows = [document for one in found for document in one]
    if not rows:
        raise DataError(
            f"{root or paths[0]} holds no text", "at least one document", "check the file"
        )
    counts = [len(one) for one in found]
    mark, of = fingerprint_files(list(paths), root or paths[0].parent)
    empty = [p.name for p, n in zip(paths, counts, strict=True) if not n]
    said = {"file": "one document a file", "line": "one document a line",
            "blank": "documents begin at blank lines",
            "wikitext": "documents begin at lines like = Title ="}[how]  # fmt: skip
    notes = [f"{said}: {len(rows):,}"]
    if is_half_named(paths):
        notes.append("some files are called train, valid or test and others are not: the names of "
                     "files say nothing here, and all documents are split anew")  # fmt: skip
    if empty:
        notes.append(f"{len(empty)} empty files left out: {', '.join(empty[:3])}")
    return Source(
        name=stem_of(paths[0]) if len(paths) == 1 else (root or paths[0].parent).absolute().name,
        columns={"text": objects(rows)},
        rows=len(rows),
        parts=tuple((p.name, n) for p, n in zip(paths, counts, strict=True) if n),
        given_split=split_of(paths, counts, lenient=True),
        task="generate",
        task_reason="running text",
        schema_hints={"text": "text"},
        fingerprint=hashlib.sha256(f"{mark} {how}".encode()).hexdigest(),
        fingerprint_of=of,
        origin=root or paths[0],
        notes=tuple(notes),
    )


def read_corpus_folder(folder: Path, *, documents: str | None = None) -> Source:
    """Return the documents of all text files below a folder, in order of their paths.

    Raises as `read_corpus`, and `DataError` where there is no text file.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and kind_of(p) in SUFFIXES)
    if not paths:
        raise DataError(
            f"{folder} has no text files",
            f"files that end in {', '.join(SUFFIXES)} (.gz, .xz, .bz2 too)",
            "name another folder",
        )
    return read_corpus(paths, documents=documents, root=folder)


def cut_documents(text: str, how: str) -> list[str]:
    r"""Return the documents of a text, one of `DOCUMENTS`; together they are the text.

    What stands before the first title is part of the first document; blank lines belong to the
    document before them.

    >>> cut_documents("a\nb\n\nc\n", "blank")
    ['a\nb\n\n', 'c\n']
    """
    if how == "file":
        return [text]
    if how == "wikitext":
        starts = [m.start() for m in _HEADING.finditer(text) if _clear(text, m.start())]
    else:
        pattern = _BLANK if how == "blank" else _LINE
        starts = [m.end() for m in pattern.finditer(text)]
    body = len(text) - len(text.lstrip())  # where the first word stands
    last = len(text.rstrip())
    if how != "wikitext":
        starts = [0, *(s for s in starts if body < s < last)]
    elif not starts or not text[: starts[0]].strip():
        starts = [0, *starts[1:]]
    else:
        starts = [0, *starts]
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def titled(documents: Sequence[str]) -> bool:
    """Return whether every document but the first begins with a heading, "= Title ="."""
    return len(documents) > 1 and all(_HEADING.match(text) for text in documents[1:])


def _clear(text: str, at: int) -> bool:
    """Return whether the line before position `at` is blank, or there is none."""
    end = at - 1
    return at == 0 or not text[text.rfind("\n", 0, max(end, 0)) + 1 : end].strip()


def _way(paths: list[Path], texts: list[str]) -> str:
    if len(paths) > 1 and split_of(paths, [1] * len(paths), lenient=True) is None:
        return "file"
    for how in ("wikitext", "blank"):
        if len(cut_documents(texts[0], how)) > 1:
            return how
    return "file"
