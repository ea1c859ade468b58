"""Texts in two languages: two files whose lines belong together, or a table with two columns.

A row is a pair. Files are called as one text in two languages: train.en and train.de.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL, Source
from gipi.data.sources.compressed import SUFFIXES, fingerprint_files
from gipi.data.sources.plain import lines_of, objects, part_of, split_of
from gipi.data.sources.table import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CODES = (  # ISO 639-1
    " aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv "
    "cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr "
    "ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw "
    "ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv "
    "ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr "
    "ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi "
    "yo za zh zu "
)
_LANGUAGE = re.compile(r"([a-z]{2})(?:[-_][A-Za-z]{2,4})?")
_ORDER = {TRAIN: 0, VAL: 1, TEST: 2, None: 3}


def read_parallel(
    pairs: Sequence[tuple[Path, Path]],
    *,
    names: tuple[str, str] | None = None,
    root: Path | None = None,
) -> Source:
    """Return the pairs of lines of one or several pairs of files (source, target).

    names  of the two columns; None: what stands behind the last dot of the files' names

    The second is the target. Lines are stripped; a line that is empty on one side is a missing
    value, and a note says how many there are. Files whose names say train, valid (dev) and test are
    the given split. Raises `DataError` where two files have different numbers of lines, with both
    numbers and the first line that has no partner.
    """
    left: list[str | None] = []
    right: list[str | None] = []
    counts = []
    for one, other in pairs:
        a, b = lines_of(one), lines_of(other)
        if len(a) != len(b):
            raise _unequal(one, other, a, b)
        left += [line.strip() or None for line in a]
        right += [line.strip() or None for line in b]
        counts.append(len(a))
    first, second = names or (_language(pairs[0][0]), _language(pairs[0][1]))
    files = [path for pair in pairs for path in pair]
    found, of = fingerprint_files(files, root or files[0].parent)
    empty = sum((a is None) != (b is None) for a, b in zip(left, right, strict=True))
    return Source(
        name=_bare(files[0]) if len(pairs) == 1 else files[0].absolute().parent.name,
        columns={first: objects(left), second: objects(right)},
        rows=len(left),
        parts=tuple((_bare(one), n) for (one, _), n in zip(pairs, counts, strict=True)),
        given_split=split_of([one for one, _ in pairs], counts),
        target=second,
        task="translate",
        task_reason="two files with a line for each line",
        schema_hints={first: "text", second: "text"},
        fingerprint=found,
        fingerprint_of=of,
        origin=root or files[0],
        notes=(f"{empty:,} lines are empty on one side only",) if empty else (),
    )


def read_parallel_table(path: Path) -> Source:
    """Return the texts of a table: the first column of text is the source, the second the target.

    Raises `DataError` where it has fewer than two columns of text.
    """
    found = read_table(path)
    texts = [
        name for name, column in found.columns.items()
        if isinstance(column, np.ndarray) and column.dtype.kind == "O"
    ]  # fmt: skip
    if len(texts) < 2:
        raise DataError(
            f"{path.name} has {len(texts)} column{'s'[: len(texts) != 1]} of text",
            "two, a text and its translation",
            "separate them with a tab, or name two files: train.en and train.de",
        )
    return replace(
        found,
        columns={n: found.columns[n] for n in texts},
        target=texts[1],
        task="translate",
        task_reason="two columns of text",
        schema_hints=dict.fromkeys(texts[:2], "text"),
    )


def pairs_in(
    folder: Path, *, source: str | None = None, target: str | None = None
) -> tuple[tuple[Path, Path], ...]:
    """Return the pairs of files of a folder, training first; () where there are none.

    source, target  the languages; None: the two that there are, in alphabetical order

    Files of one text are those whose names differ only behind the last dot, where the language
    stands (ISO 639-1, or as given): test_2016_flickr.en.gz and test_2016_flickr.de.gz.
    """
    texts: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if _is_language(_language(path), (source, target)) and path.is_file():
            texts.setdefault(_bare(path), {})[_language(path)] = path
    spoken = sorted({language for found in texts.values() for language in found})
    if source is None or target is None:
        if len(spoken) != 2:
            return ()
        source, target = source or spoken[0], target or spoken[1]
    pairs = [(found[source], found[target]) for found in texts.values()
             if source in found and target in found]  # fmt: skip
    return tuple(sorted(pairs, key=lambda pair: (_ORDER[part_of(pair[0])], pair[0].name)))


def refuse_many(folder: Path) -> None:
    """Raise `DataError` where one text lies there in more than two languages."""
    texts: dict[str, set[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and _is_language(_language(path), (None, None)):
            texts.setdefault(_bare(path), set()).add(_language(path))
    name, spoken = max(texts.items(), key=lambda item: len(item[1]), default=("", set()))
    if len(spoken) > 2:
        raise DataError(
            f"{folder} holds {name} in {len(spoken)} languages: {', '.join(sorted(spoken))}",
            "a text in two languages", "keep two of them in a folder of their own",
        )  # fmt: skip


def lone_in(folder: Path, pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return the names of files in the two languages of `pairs` that have no partner."""
    known = {path for pair in pairs for path in pair}
    spoken = {_language(path) for path in known}
    return [p.name for p in sorted(folder.iterdir())
            if p.is_file() and p not in known and _language(p) in spoken]  # fmt: skip


def _plain_name(path: Path) -> str:
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _language(path: Path) -> str:
    """Return what stands behind the last dot, compression aside: "en" of train.en.gz."""
    return _plain_name(path).rpartition(".")[2]


def _is_language(word: str, given: tuple[str | None, str | None]) -> bool:
    found = _LANGUAGE.fullmatch(word)
    return word in given or (found is not None and f" {found[1]} " in _CODES)


def _bare(path: Path) -> str:
    return _plain_name(path).rpartition(".")[0] or path.name


def _unequal(one: Path, other: Path, a: list[str], b: list[str]) -> DataError:
    longer, lines, least = (one, a, len(b)) if len(a) > len(b) else (other, b, len(a))
    lone = next((i for i, (x, y) in enumerate(zip(a, b, strict=False), 1)
                 if bool(x.strip()) != bool(y.strip())), None)  # fmt: skip
    empty = "" if lone is None else f" (line {lone:,} is empty in one of them: look there first)"
    return DataError(
        f"{one.name} has {len(a):,} lines and {other.name} {len(b):,}: line {least + 1:,} of "
        f"{longer.name} has no partner, {lines[least].strip()[:60]!r}",
        "as many lines in both, each the translation of the other",
        f"find the line that is missing or broken in two{empty}",
    )
