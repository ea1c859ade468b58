"""Tagged text in columns: a token a line, blank lines between sentences (CoNLL, KLUE-NER).

A row is a sentence: two tuples of one length, its tokens and their tags. Tags are made BIO, in
which every entity begins with B-, whatever scheme the file is written in.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import Source
from gipi.data.sources.compressed import fingerprint_files, read_head, stem_of
from gipi.data.sources.plain import lines_of, objects, split_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".bioes", ".iobes", ".bilou")
DOCUMENT = "-DOCSTART-"
HEAD, LINES = 1 << 18, 400  # bytes and lines by which a file is told
MOSTLY = 0.9  # share of tags from which a column is that of the tags, and the others are slips
_TAG = re.compile(r"O|[BIESLU]-\S+")
_ENDS, _BEGINS = "ESLU", "BSU"


@dataclass
class _File:
    """What one file holds: of each sentence its fields token by token, first line and document.

    numbers  of the lines of all tokens
    """

    path: Path
    sentences: list[list[list[str]]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    document: int = 0

    @property
    def width(self) -> int:
        """Columns of each line."""
        return len(self.sentences[0][0])


def read_conll(paths: Sequence[Path], *, root: Path | None = None) -> Source:
    """Return the sentences of one or several files, in order.

    Columns are separated by tabs where a line has one, else by spaces. The token is the first, the
    tag the last column of tags (O, B-X, I-X, and E- S- L- U-), the same in all files. Lines of
    -DOCSTART- begin a document, whose sentences stay together; lines with # before a sentence are
    comments.
    Files that are named train, valid (dev, testa) and test (testb) are the given split.

    Ramshaw and Marcus 1995 (IOB1); Tjong Kim Sang and De Meulder 2003 (the format).
    Raises `DataError` with file and line for another number of columns, an empty token, something
    that is no tag, and text that is no UTF-8; and for a file without sentences.
    """
    files = [_read(path) for path in paths]
    column = {width: _tag_column([f for f in files if f.width == width])
              for width in {file.width for file in files}}  # fmt: skip
    raw = [tuple(f[column[file.width]] for f in s) for file in files for s in file.sentences]
    tags = [to_bio(row) for row in raw]
    types = sorted({t[2:] for row in tags for t in row if t != "O"})
    rows = [len(file.sentences) for file in files]
    documented = all(file.document for file in files)
    starts = np.cumsum([0, *(file.document + 1 for file in files)])
    found, of = fingerprint_files(list(paths), root or paths[0].parent)
    return Source(
        name=stem_of(paths[0]) if len(paths) == 1 else paths[0].absolute().parent.name,
        columns={
            "tokens": objects([tuple(f[0] for f in s) for file in files for s in file.sentences]),
            "tags": objects(tags),
        },
        rows=len(tags),
        row_names=tuple(
            f"{path.name} line {n}"
            for path, file in zip(paths, files, strict=True)
            for n in file.lines
        ),
        parts=tuple((p.name, n) for p, n in zip(paths, rows, strict=True)),
        bound=np.array(
            [s + d for s, file in zip(starts, files, strict=False) for d in file.documents]
        ) if documented else None,
        bound_by="the same document" if documented else "",
        given_split=split_of(paths, rows),
        target="tags",
        task="tag",
        task_reason="a token and its tag a line",
        classes={"tags": ("O", *(f"{p}-{t}" for t in types for p in "BI"))},
        schema_hints={"tokens": "tokens", "tags": "tags"},
        fingerprint=found,
        fingerprint_of=of,
        origin=root or paths[0],
        notes=_notes(raw, tags),
    )  # fmt: skip


def to_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags of a sentence in BIO, from BIO, IOB1, BIOES or BILOU.

    An entity begins at B-, S- and U-, after O, after the end of another, and where the type
    changes; an I- there becomes B-, as the scorer of CoNLL-2003 counts it.

    >>> to_bio(("I-PER", "I-PER", "O", "I-LOC", "B-LOC", "S-ORG", "B-ORG", "E-ORG"))
    ('B-PER', 'I-PER', 'O', 'B-LOC', 'B-LOC', 'B-ORG', 'B-ORG', 'I-ORG')
    """
    out, before = [], "O"
    for tag in tags:
        if tag == "O":
            out.append(tag)
        else:
            begins = tag[0] in _BEGINS or before[0] in "O" + _ENDS or before[2:] != tag[2:]
            out.append(("B" if begins else "I") + tag[1:])
        before = tag
    return tuple(out)


def is_conll(path: Path) -> bool:
    """Return whether a text file looks like tagged tokens: its first lines, and a blank one."""
    data = read_head(path, HEAD)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if len(data) == HEAD and not wide:  # the last line is not whole, nor is its last character
        data = data[: data.rfind(b"\n") + 1]
    try:
        text = data.decode("utf-16", "ignore") if wide else data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    head = [line.removesuffix("\r") for line in text.split("\n")[:LINES]]
    if not head[-1] and len(head) < LINES:
        head.pop()
    rows = [_fields(line) for line in head if line.strip() and not line.startswith(("#", DOCUMENT))]
    tagged = [row for row in rows if len(row) > 1 and any(_TAG.fullmatch(f) for f in row[1:])]
    return bool(rows) and len(tagged) == len(rows) and any(not line.strip() for line in head)


# ---------------------------------------------------------------------------- one file


def _fields(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _read(path: Path) -> _File:
    file = _File(path)
    rows: list[list[str]] = []  # of the sentence that is being read
    width = 0

    def close() -> None:
        if rows:
            file.sentences.append(list(rows))
            file.lines.append(file.numbers[-len(rows)])
            file.documents.append(file.document)
            rows.clear()

    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            close()
            continue
        fields = _fields(line)
        if line.startswith(DOCUMENT):
            close()
            file.document += 1
            continue
        if not rows and line.startswith("#") and not any(_TAG.fullmatch(f) for f in fields[1:]):
            continue
        width = width or len(fields)
        if len(fields) != width or width < 2:
            raise DataError(
                f"{path.name} line {number}: {len(fields)} column{'s'[: len(fields) != 1]} in "
                f"{line[:60]!r}",
                f"{max(width, 2)} columns, a token first and its tag behind it"
                + ("" if width < 2 else ", as in the lines above"),
                "correct the line, or put a blank line where a sentence ends",
            )
        if not fields[0]:
            raise DataError(
                f"{path.name} line {number}: an empty token in {line[:60]!r}",
                "a token before the first tab", "correct the line",
            )  # fmt: skip
        rows.append(fields)
        file.numbers.append(number)
    close()
    if not file.sentences:
        raise DataError(f"{path} has no sentences", "a token and its tag a line", "check the file")
    return file


def _tag_column(files: Sequence[_File]) -> int:
    """Return the last column of which most values are tags; raise where one of them is none.

    A column of nothing but O is taken only where there is no other. Looked for in all files at
    once, for one of them alone may hold no entity.
    """
    rows = [[f for s in file.sentences for f in s] for file in files]
    counts: list[Counter[str]] = [Counter() for _ in range(files[0].width)]
    for one in rows:
        for seen, values in zip(counts, zip(*one, strict=True), strict=True):
            seen.update(values)
    tags = {c: [v for v in seen if _TAG.fullmatch(v)] for c, seen in enumerate(counts) if c}
    good = {c: sum(counts[c][v] for v in found) for c, found in tags.items()}
    mostly = [c for c in good if good[c] >= MOSTLY * sum(map(len, rows))]
    best = max(mostly or good, key=lambda c: (bool(mostly) or good[c], len(tags[c]) > 1, c))
    known = set(tags[best])
    for file, one in zip(files, rows, strict=True):
        faults = [i for i, row in enumerate(one) if row[best] not in known]
        if faults:
            raise DataError(
                f"{file.path.name} line {file.numbers[faults[0]]}: {one[faults[0]][best]!r} is no "
                "tag" + (f" (and {len(faults) - 1:,} more lines)" if len(faults) > 1 else ""),
                "O, or B-, I- (E-, S-, L-, U-) and a type",
                "correct the tag, or check which column holds the tags",
            )
    return best


def _notes(raw: list[tuple[str, ...]], tags: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return what was made of tags that were not BIO, in words."""
    changed = sum(a != b for old, new in zip(raw, tags, strict=True)
                  for a, b in zip(old, new, strict=True))  # fmt: skip
    if not changed:
        return ()
    used = {t[0] for row in raw for t in row}
    if used & set(_ENDS):
        scheme = "BILOU" if used & set("LU") else "BIOES"
        return (f"tags are {scheme}: read as BIO",)
    opened = sum(
        a[0] == "B" and (before == "O" or before[2:] != a[2:])
        for old in raw for before, a in zip(("O", *old), old, strict=False)
    )  # fmt: skip
    if not opened:
        return (f"tags are IOB1: the first tags of {changed:,} entities, I-, were made B-",)
    return (f"{changed:,} entities begin with I- and no B- before it: read as B-",)
