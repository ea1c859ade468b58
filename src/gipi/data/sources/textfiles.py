"""Folders of text files: one sub-folder a class, and above them, if wished, train, val and test.

    reviews/pos/1.txt, reviews/neg/2.txt            classes
    reviews/train/pos/1.txt, reviews/test/neg/2.txt classes and a given split
    reviews/1.txt, reviews/2.txt                    texts without labels, for prediction

One file is one text. What is left out is said in the notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL, Column, Source
from gipi.data.sources.compressed import decompress, fingerprint_files, kind_of, read_raw
from gipi.data.sources.encoding import as_utf8
from gipi.data.sources.folder import SPLITS, entries_of, files_of

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = (".txt", ".text")
NOTES = ("readme", "license", "licence", "notes", "classes", "labels")
"""Names of texts about the data, which are no rows of it."""
NO_CLASS = ("unsup", "unlabeled", "unlabelled")  # folders of texts without a label beside others


def is_text_file(path: Path) -> bool:
    """Return whether the suffix is that of a plain text, compressed or not."""
    return kind_of(path) in TEXTS


def read_text(path: Path, notes: list[str]) -> str:
    """Return the content of a text file; raise `DataError` naming the file, and the place in it."""
    return _decoded(path, notes).strip()


def read_lines(path: Path, notes: list[str]) -> dict[str, str]:
    """Return the lines of a text file by name, "new.txt line 3"; empty ones are counted in a note.

    Raises `DataError` where there is none, and as `read_text`.
    """
    said: list[str] = []
    lines = [line.removesuffix("\r") for line in _decoded(path, said).split("\n")]
    found = {f"{path.name} line {n}": line for n, line in enumerate(lines, 1) if line.strip()}
    if not found:
        raise DataError(f"{path} has no text", "a text a line", "check the file")
    empty = len(lines) - (not lines[-1]) - len(found)
    if empty:
        said.append(f"{path.name}: {empty:,} empty line{'s' * (empty > 1)} left out")
    notes += [f"texts: {sentence}" for sentence in said]
    return found


def _decoded(path: Path, notes: list[str]) -> str:
    said: list[str] = []
    text = as_utf8(decompress(read_raw(path), path), path, said).decode()
    notes += [f"{path.name}: {sentence}" for sentence in said]
    return text


def read_text_files(paths: list[Path], name: str) -> Source:
    """Return text files, in this order, without labels."""
    root = paths[0].parent.absolute()
    notes: list[str] = []
    return _source(name, paths, None, None, root, notes)


def read_text_folder(folder: Path) -> Source | None:
    """Return the texts under `folder` with the label of their class folder; None without any."""
    entries = entries_of(folder)
    parts = {p: SPLITS[p.name.lower()] for p in entries if p.is_dir() and p.name.lower() in SPLITS}
    split = TRAIN in parts.values()
    notes: list[str] = []
    found = [_part(p, code, notes) for p, code in (parts.items() if split else [(folder, TRAIN)])]
    paths = [p for part in found for p in part[0]]
    if not paths:
        return None
    labels = [label for part in found for label in part[1]]
    given = None
    if split and len(parts) > 1:
        given = np.concatenate([np.full(len(p[0]), p[2], np.int8) for p in found])
    labelled = labels if any(label is not None for label in labels) else None
    return _source(folder.absolute().name, paths, labelled, given, folder.absolute(), notes)


def _part(
    folder: Path, code: int, notes: list[str]
) -> tuple[list[Path], list[str | None], int]:  # fmt: skip
    paths: list[Path] = []
    labels: list[str | None] = []
    for entry in (e for e in entries_of(folder) if e.is_dir()):
        texts = [p for p in files_of(entry) if is_text_file(p)]
        if entry.name.lower() in NO_CLASS:
            notes.append(
                f"'{folder.name}/{entry.name}' has {len(texts)} texts of no class: left out"
            )
            continue
        paths += texts
        labels += [entry.name] * len(texts)
    loose = [p for p in entries_of(folder) if p.is_file() and is_text_file(p)]
    loose = [p for p in loose if p.stem.lower() not in NOTES]
    if loose and paths:
        notes.append(f"{len(loose)} texts directly in '{folder.name}' belong to no class: left out")
    elif loose and code in (VAL, TEST):
        notes.append(f"'{folder.name}' has {len(loose)} texts without labels: left out")
    elif loose:
        paths, labels = loose, [None] * len(loose)
    return paths, labels, code


def _source(
    name: str, paths: list[Path], labels: list[str | None] | None, split: np.ndarray | None,
    root: Path, notes: list[str],
) -> Source:  # fmt: skip
    texts = np.empty(len(paths), dtype=object)
    said: list[str] = []
    for i, path in enumerate(paths):
        texts[i] = read_text(path, said) or None
    if len(said) > 3:  # one sentence a file would hide all others
        said = [*said[:2], f"and {len(said) - 2} more files that are not UTF-8"]
    if all(t is None for t in texts):
        raise DataError(f"every text in {root} is empty", "texts", "check the files")
    columns: dict[str, Column] = {"text": texts}
    hints = {"text": "text file"}
    if labels is not None:
        columns["label"] = np.array(labels, dtype=object)
        hints["label"] = "category"
    fingerprint, of = fingerprint_files([p.absolute() for p in paths], root)
    return Source(
        name=name,
        columns=columns,
        rows=len(paths),
        row_names=[
            p.absolute().relative_to(root).as_posix()
            if p.absolute().is_relative_to(root)
            else p.as_posix()
            for p in paths
        ],
        given_split=split,
        target="label" if labels is not None else None,
        task="classify" if labels is not None else None,
        task_reason="one folder per class" if labels is not None else "",
        schema_hints=hints,
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=root,
        notes=(*notes, *said),
    )
