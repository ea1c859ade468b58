"""A corpus as one flat file of token ids, memory-mapped, with the place where each document begins.

A corpus is a folder, found by its key (content, tokenizer, settings):

    tokens.bin     ids of all documents end to end, uint16 where the vocabulary allows it
    documents.bin  (D + 1,) int64: document i is tokens[offsets[i] : offsets[i + 1]]
    corpus.json    sizes, dtype, SHA-256 of both files, the tokenizer's fingerprint; written last

It is written beside its place and renamed, so that it is whole or not there; what is damaged is
found by its hash and made again. Shapes: N tokens, D documents.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gipi.core.atomic import digest, digest_file, fsync_dir, storage_error, write_file
from gipi.core.errors import DataError
from gipi.text.encoded import check_texts
from gipi.text.local import CUT, is_local

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gipi.text.tokenizer import Tokenizer

FORMAT = 1
TOKENS, DOCUMENTS, META = "tokens.bin", "documents.bin", "corpus.json"
_PIECE = 1 << 16  # characters after which a long document may be cut for encoding
_BATCH = 1 << 22  # characters that are encoded at once


@dataclass(frozen=True)
class Corpus:
    """Token ids of many documents, mapped read-only.

    tokens     (N,) uint16 or uint32
    offsets    (D + 1,) int64
    path       the folder
    tokenizer  fingerprint of the tokenizer that made it
    """

    tokens: np.ndarray
    offsets: np.ndarray
    path: Path
    tokenizer: str

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, number: int) -> np.ndarray:
        """Return the tokens of one document, without copying them."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds every id: uint16 up to 65536 ids, or uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def key_of(content: str, tokenizer: Tokenizer, *, end: bool) -> str:
    """Return the key of a corpus: a hash of content, tokenizer and settings."""
    return digest(json.dumps([FORMAT, content, tokenizer.fingerprint, end]).encode())[:32]


def build_corpus(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    *,
    folder: Path,
    content: str,
    end: bool = True,
) -> Corpus:
    """Return the corpus of documents, encoding them only where it is not there yet.

    documents  texts, read one after the other; not touched where the corpus is there
    folder     the folder of corpora
    content    what the documents are, such as the hash of their files
    end        put the eos token after each document, where the tokenizer has one
    No special token comes from the documents themselves. Raises `DataError` naming the document
    that is no text, and where there is no token at all; `StorageError`.
    """
    path = folder / key_of(content, tokenizer, end=end)
    if path.exists():
        try:
            return open_corpus(path, tokenizer)
        except DataError:
            shutil.rmtree(path, ignore_errors=True)
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    try:
        temp.mkdir(parents=True)
        _write(temp, documents, tokenizer, tokenizer.eos if end else None)
        try:
            temp.rename(path)
        except OSError:
            if not path.exists():  # else another process was faster, and made the same
                raise
        fsync_dir(folder)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return open_corpus(path, tokenizer)


def open_corpus(path: Path, tokenizer: Tokenizer | None = None, *, verify: bool = True) -> Corpus:
    """Return a corpus that is there.

    tokenizer  where given, it must be the one that made the corpus
    verify     read every byte and compare the hashes
    Raises `DataError` where a file is missing or damaged, or made by another tokenizer.
    """
    meta = _read_meta(path)
    if tokenizer is not None and meta["tokenizer"] != tokenizer.fingerprint:
        raise DataError(
            f"the corpus {path} was made by another tokenizer ({meta['tokenizer'][:12]})",
            f"the tokens of {tokenizer!r}",
            "encode the documents again with this tokenizer",
        )
    for name in (TOKENS, DOCUMENTS):
        file = path / name
        try:
            whole = file.stat().st_size == meta["bytes"][name]
            whole = whole and (not verify or digest_file(file) == meta["sha256"][name])
        except OSError as error:
            raise _damaged(file, error.strerror or str(error)) from error
        if not whole:
            raise _damaged(file, "its size or its hash differs")
    number = meta["tokens"]
    dtype = np.dtype(meta["dtype"])
    tokens = np.memmap(path / TOKENS, dtype, "r", shape=(number,))
    offsets = np.fromfile(path / DOCUMENTS, np.int64)
    return Corpus(tokens, offsets, path, meta["tokenizer"])


# ------------------------------------------------------------------------ writing


def encode_documents(
    documents: Iterable[str], tokenizer: Tokenizer, *, end: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (ids (n,) int32, tokens of each document (d,) int64), many documents at a time.

    end  id that is put after each document
    A long document is cut where white space begins, encoded in parts and put together again: for
    the tokenizers to which a word does not depend on what stands before that space, the ids are
    the same, and memory stays small.
    """
    local = is_local(tokenizer.to_json())
    batch: list[str] = []
    parts: list[int] = []
    size = 0
    for number, document in enumerate(documents):
        check_texts((document,), first_row=number, what="document")
        pieces = list(_pieces(document)) if local and len(document) > _PIECE else [document]
        batch += pieces
        parts.append(len(pieces))
        size += len(document)
        if size >= _BATCH or len(batch) >= _BATCH >> 8:
            yield _encode(batch, parts, tokenizer, end)
            batch, parts, size = [], [], 0
    if parts:
        yield _encode(batch, parts, tokenizer, end)


def _encode(
    batch: list[str], parts: list[int], tokenizer: Tokenizer, end: int | None
) -> tuple[np.ndarray, np.ndarray]:
    found = tokenizer.encode_batch(batch, special=False)
    bounds = found.offsets[np.concatenate([[0], np.cumsum(parts)])]
    counts = np.diff(bounds)
    if end is None:
        return found.values, counts
    return np.insert(found.values, bounds[1:], end), counts + 1


def _pieces(document: str) -> Iterator[str]:
    start = 0
    while len(document) - start > _PIECE:
        cut = CUT.search(document, start + _PIECE)
        if cut is None:
            break
        yield document[start : cut.start()]
        start = cut.start()
    yield document[start:]


def _write(folder: Path, documents: Iterable[str], tokenizer: Tokenizer, end: int | None) -> None:
    dtype = dtype_for(tokenizer.vocab_size)
    hashes = {TOKENS: hashlib.sha256(), DOCUMENTS: hashlib.sha256()}
    total = number = 0

    def put(file: BinaryIO, name: str, values: np.ndarray) -> None:
        data = values.tobytes()
        hashes[name].update(data)
        file.write(data)

    with (folder / TOKENS).open("wb") as ids, (folder / DOCUMENTS).open("wb") as places:
        put(places, DOCUMENTS, np.zeros(1, np.int64))
        for values, counts in encode_documents(documents, tokenizer, end=end):
            put(ids, TOKENS, values.astype(dtype))
            put(places, DOCUMENTS, total + np.cumsum(counts, dtype=np.int64))
            total += len(values)
            number += len(counts)
        for file in (ids, places):
            file.flush()
            os.fsync(file.fileno())
    if not total:
        raise DataError(
            f"{number} documents without a token", "text to learn from", "name files that hold text"
        )
    body: dict[str, Any] = {
        "format_version": FORMAT,
        "dtype": dtype.str,
        "tokens": total,
        "documents": number,
        "tokenizer": tokenizer.fingerprint,
        "bytes": {TOKENS: total * dtype.itemsize, DOCUMENTS: 8 * (number + 1)},
        "sha256": {name: found.hexdigest() for name, found in hashes.items()},
    }
    own = digest(json.dumps(body, sort_keys=True).encode())
    write_file(folder / META, json.dumps({**body, "own": own}, sort_keys=True))


# ------------------------------------------------------------------------ checking


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads((path / META).read_bytes())
        own = body.pop("own")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path / META, "it cannot be read") from error
    if digest(json.dumps(body, sort_keys=True).encode()) != own:
        raise _damaged(path / META, "its hash differs")
    if body["format_version"] != FORMAT:
        raise DataError(
            f"{path} has format {body['format_version']}",
            f"format {FORMAT}",
            "encode the documents again, or use the version that wrote it",
        )
    return body


def _damaged(file: Path, why: str) -> DataError:
    return DataError(
        f"the corpus file {file} is damaged ({why})",
        "the files as they were written",
        "delete the folder: the documents are then encoded again",
    )


def content_of(paths: Iterable[Path]) -> str:
    """Return the hash of files, for the key of their corpus."""
    return digest("".join(chain.from_iterable((digest_file(p), "\n") for p in paths)).encode())
