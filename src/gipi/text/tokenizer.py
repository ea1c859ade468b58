"""A tokenizer as a value: text in, ids with their places in the text out, and back.

A thin layer over a Hugging Face `tokenizers.Tokenizer`, which does the work in Rust. What it adds:
roles for special tokens (which id is padding, which one ends a text), ragged numpy batches instead
of lists of lists, a fingerprint, errors that name the row, and three promises:

- text of a user never becomes a special token: "[CLS]" typed by somebody is five characters;
- nothing is cut or padded, whatever the file of the tokenizer asks for;
- `lossless` tells whether every text comes back exactly as it was.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer as Core

from gipi.core.atomic import write_file
from gipi.core.errors import DataError, UnknownName, did_you_mean
from gipi.text import roles as roles_
from gipi.text.characters import CharacterTable
from gipi.text.encoded import Encoded, Encodings, check_texts, flat, joined
from gipi.text.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tokenizers import Encoding as CoreEncoding

_CHUNK = 4096  # texts handed to Rust at once: enough for its threads, and the lists stay small


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A trained tokenizer; never changed after it was made.

    core   the tokenizer of the `tokenizers` package
    kind   bpe, unigram, wordpiece, word or char
    roles  role ("pad", "unk", "bos", "eos", "cls", "sep", "mask") -> token
    """

    core: Core
    kind: str
    roles: Mapping[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.to_json(), dict(self.roles))

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {self.vocab_size} ids, {self.fingerprint[:12]})"

    # ---------------------------------------------------------------- text -> ids

    def encode(
        self, text: str, pair: str | None = None, *, special: bool = True, parse: bool = False
    ) -> Encoded:
        """Return the tokens of a text or of a pair of texts.

        special  add the tokens that the tokenizer puts around a text, such as [CLS] and [SEP]
        parse    take special tokens that are written in the text for what they name; only for text
                 of your own, such as a prompt with [MASK] in it
        Raises `DataError` where `text` is no text or holds half of a surrogate pair.
        """
        core = self._plain if parse else self._safe
        try:
            found = core.encode(text, pair, add_special_tokens=special)
        except (TypeError, ValueError, UnicodeError) as error:
            check_texts([text] if pair is None else [text, pair])
            raise DataError(
                f"a text cannot be encoded: {error}", "a text", "report it with the text"
            ) from error
        return Encoded(
            np.array(found.ids, np.int32),
            np.array(found.offsets, np.int32).reshape(-1, 2),
            np.array(found.type_ids, np.int32),
            np.array(found.special_tokens_mask, bool),
            np.array([-1 if w is None else w for w in found.word_ids], np.int32),
        )

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        special: bool = True,
        spans: bool = False,
        words: bool = False,
    ) -> Encodings:
        """Return the tokens of many texts, or pairs of texts, as one ragged array.

        special  as in `encode`
        spans    also return which characters each token covers
        words    also return which word each token belongs to
        Raises `DataError` naming the row that is no text; where texts and pairs differ in number.
        """
        if pairs is not None and len(pairs) != len(texts):
            raise DataError(
                f"{len(texts)} first texts and {len(pairs)} second texts",
                "as many second texts as first texts",
                "give one second text for each first one",
            )
        if self._table is not None and pairs is None and not spans and not words:
            return self._by_table(self._table, list(texts), special=special)
        counts: list[int] = []
        values, segments, places, numbers = [], [], [], []
        for found in self._batches(texts, pairs, special=special, places=spans):
            ids = [e.ids for e in found]
            counts += [len(row) for row in ids]
            values.append(flat(ids))
            if pairs is not None:
                segments.append(flat(e.type_ids for e in found))
            if spans:
                places.append(flat(chain.from_iterable(e.offsets) for e in found))
            if words:
                rows = ([-1 if w is None else w for w in e.word_ids] for e in found)
                numbers.append(flat(rows))
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        return Encodings(
            joined(values),
            offsets,
            None if pairs is None else joined(segments),
            joined(places).reshape(-1, 2) if spans else None,
            joined(numbers) if words else None,
        )

    def _by_table(self, table: CharacterTable, texts: list[str], *, special: bool) -> Encodings:
        try:
            return Encodings(*table.encode(texts, special=special))
        except (TypeError, UnicodeError):
            check_texts(texts)
            raise

    def _batches(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, special: bool, places: bool
    ) -> Iterator[list[CoreEncoding]]:
        encode = self._safe.encode_batch if places else self._safe.encode_batch_fast
        for start in range(0, len(texts), _CHUNK):
            first = list(texts[start : start + _CHUNK])
            second = None if pairs is None else list(pairs[start : start + _CHUNK])
            rows: list[Any] = first if second is None else list(zip(first, second, strict=True))
            try:
                yield encode(rows, add_special_tokens=special)
            except (TypeError, ValueError, UnicodeError) as error:
                check_texts(first, first_row=start)
                check_texts(second or (), first_row=start, what="the second text of row")
                raise DataError(
                    f"texts {start} to {start + len(rows) - 1} cannot be encoded: {error}",
                    "texts",
                    "report it with the texts",
                ) from error

    # ---------------------------------------------------------------- ids -> text

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Return the text of ids; special tokens are left out, or written where `special` is true.

        Equals the text exactly where the tokenizer is `lossless`, else what normalising left of it.
        Raises `DataError` for an id that the vocabulary does not have.
        """
        wanted = [int(i) for i in ids]
        for i in wanted:
            if not 0 <= i < self.vocab_size:
                raise DataError(
                    f"id {i}", f"ids of 0 to {self.vocab_size - 1}", "decode with the tokenizer "
                    "that the ids come from",
                )  # fmt: skip
        return self._safe.decode(wanted, skip_special_tokens=not special)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens of ids as they stand in the vocabulary."""
        return [self.core.id_to_token(int(i)) or "" for i in ids]

    def id_of(self, token: str) -> int:
        """Return the id of a token; raises `UnknownName` where the vocabulary does not have it."""
        found = self.core.token_to_id(token)
        if found is None:
            raise UnknownName(
                f"the vocabulary has no token {token!r}",
                f"one of its {self.vocab_size} tokens",
                did_you_mean(token, self.special_tokens),
            )
        return found

    # ---------------------------------------------------------------- what it is

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids: one more than the largest, so that an embedding of this size holds all."""
        return 1 + max(self.core.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Every special token and its id, those without a role included."""
        added = self.core.get_added_tokens_decoder()
        found = {t.content: i for i, t in sorted(added.items()) if t.special}
        named = {t: self.core.token_to_id(t) for t in self.roles.values()}
        return {**found, **{t: i for t, i in named.items() if i is not None}}

    def _role(self, role: str) -> int | None:
        token = self.roles.get(role)
        return None if token is None else self.core.token_to_id(token)

    @property
    def pad(self) -> int | None:
        """Id that fills rows up; 0 in every tokenizer trained here."""
        return self._role("pad")

    @property
    def unk(self) -> int | None:
        """Id of what the vocabulary cannot express."""
        return self._role("unk")

    @property
    def bos(self) -> int | None:
        """Id that begins a text."""
        return self._role("bos")

    @property
    def eos(self) -> int | None:
        """Id that ends a text."""
        return self._role("eos")

    @property
    def cls(self) -> int | None:
        """Id whose place stands for the whole text."""
        return self._role("cls")

    @property
    def sep(self) -> int | None:
        """Id between two texts."""
        return self._role("sep")

    @property
    def mask(self) -> int | None:
        """Id of a hidden token."""
        return self._role("mask")

    @cached_property
    def lossless(self) -> bool:
        """Whether `decode(encode(text))` is `text`, for every text."""
        return roles_.is_lossless(json.loads(self.to_json()))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides how text is encoded."""
        body = json.loads(self.to_json())
        return hashlib.sha256(
            json.dumps([body, sorted(self.roles.items())], sort_keys=True).encode()
        ).hexdigest()

    @cached_property
    def _plain(self) -> Core:
        core = Core.from_str(self.to_json())
        core.encode_special_tokens = False
        return core

    @cached_property
    def _safe(self) -> Core:
        return guarded(self.to_json(), tuple(self.special_tokens))

    @cached_property
    def _table(self) -> CharacterTable | None:
        """The quick way for characters, None where the tokenizer is not that simple."""
        if self.kind != "char" or self.unk is None or self.core.normalizer is not None:
            return None
        around = self.encode("\x00")
        at = int(np.flatnonzero(~around.special_mask)[0])
        ids = tuple(around.ids.tolist())
        vocabulary = self.core.get_vocab()
        return CharacterTable.of(vocabulary, self.unk, around=(ids[:at], ids[at + 1 :]))

    # ---------------------------------------------------------------- to files and back

    def to_json(self) -> str:
        """Return the tokenizer as the text of a `tokenizer.json`, which other libraries read."""
        return self.core.to_str()

    @staticmethod
    def from_json(text: str, *, roles: Mapping[str, str | None] | None = None) -> Tokenizer:
        """Return the tokenizer of the text of a `tokenizer.json`.

        roles  role -> token; what is not given is told from the usual names of tokens
        Padding and truncation that the file asks for are left out. Raises `DataError`.
        """
        try:
            core = Core.from_str(text)
        except Exception as error:  # the package raises Exception itself
            raise DataError(
                f"this is no tokenizer: {' '.join(str(error).split())[:200]}",
                "the text of a tokenizer.json",
                "save one with `tokenizer.save`, or `gipi tokenizer train`",
            ) from error
        core.no_truncation()
        core.no_padding()
        body = json.loads(core.to_str())
        return Tokenizer(core, roles_.kind_of(body), roles_.roles_of(body, core, given=roles or {}))

    @staticmethod
    def from_file(path: str | Path) -> Tokenizer:
        """Return the tokenizer of a `tokenizer.json`, or of a folder that has one.

        The files `special_tokens_map.json` and `tokenizer_config.json` beside it name the roles.
        Raises `DataError` where there is none.
        """
        place = Path(path)
        file = place / roles_.FILE if place.is_dir() else place
        try:
            text = file.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file} cannot be read ({getattr(error, 'strerror', None) or error})",
                f"a {roles_.FILE}, or a folder that has one",
                "train one with `gipi tokenizer train`, or name another file",
            ) from error
        try:
            return Tokenizer.from_json(text, roles=roles_.read_roles(file.parent))
        except DataError as error:
            raise DataError(f"{file}: {error.found}", error.needed, error.do) from error

    def save(self, path: str | Path) -> Path:
        """Write the tokenizer and return the file.

        path  a file that ends in .json, or a folder: there the names of the special tokens are
              written too, as the transformers package reads them
        Raises `StorageError`.
        """
        place = Path(path)
        if place.suffix == ".json":
            place.parent.mkdir(parents=True, exist_ok=True)
            write_file(place, self.to_json())
            return place
        place.mkdir(parents=True, exist_ok=True)
        write_file(place / roles_.FILE, self.to_json())
        for name, content in roles_.role_files(dict(self.roles)).items():
            write_file(place / name, content)
        return place / roles_.FILE


def _rebuild(text: str, roles: Mapping[str, str]) -> Tokenizer:
    return Tokenizer.from_json(text, roles=roles)
