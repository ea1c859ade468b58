"""Between texts and tokens where a language model is asked: what is read, where each token stands.

T tokens of a text. A tokenizer is anything with `encode` and `decode`; see `Tokens`.
"""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from gipi.core.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.nn.stepper import Stepper

SHOWN = 40  # characters of a text by which it is called


class Tokens(Protocol):
    """What a tokenizer must have. Where it has `vocab_size` too, that is held against the model."""

    @property
    def bos(self) -> int | None:
        """Id that begins a text, or None."""

    @property
    def eos(self) -> int | None:
        """Id that ends a text, or None."""

    @property
    def pad(self) -> int | None:
        """Id that fills rows up, or None."""

    def encode(self, text: str) -> Any:
        """Return ids, or an object with `ids`, `offsets` and `special_mask`.

        With a parameter `special` it leaves out, on request, what it puts around a text.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""


def ids_of(tokenizer: Tokens, text: str, *, special: bool = False) -> list[int]:
    """Return the ids of a text; `special`: with what the tokenizer puts around it."""
    return _ids(_encoded(tokenizer, text, special=special))


def placed(tokenizer: Tokens, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of a text and the characters [a, b) of each, nothing being put around it.

    Where the tokenizer does not tell, the places are those of the decoded beginnings.
    """
    found = _encoded(tokenizer, text, special=False)
    ids = _ids(found)
    if hasattr(found, "offsets"):
        return ids, [(int(a), int(b)) for a, b in found.offsets]
    ends = [0, *(len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids)))]
    return ids, list(itertools.pairwise(ends))


def opening(tokenizer: Tokens, begin: tuple[int, ...] | None = None) -> list[int]:
    """Return the ids before a text that a model goes on from: `begin`, or the tokenizer's bos.

    None for `begin` takes bos where the tokenizer puts it before texts itself. It does not take
    what only encoders were trained with, such as [CLS].
    """
    if begin is not None:
        return list(begin)
    found = _encoded(tokenizer, "a", special=True)
    mask = [bool(m) for m in getattr(found, "special_mask", ())]
    ids = _ids(found)
    return ids[:1] if mask[:1] == [True] and ids[0] == tokenizer.bos else []


def continued(tokenizer: Tokens, prompt: Sequence[int], said: Sequence[int]) -> str:
    """Return the text that the tokens `said` add to a prompt, a leading space included.

    Some tokenizers drop the space before the first token that they decode; behind the prompt none
    is the first.
    """
    before = tokenizer.decode(list(prompt))
    whole = tokenizer.decode([*prompt, *said])
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(list(said))


def named(row: int, text: str) -> str:
    """Return how an error calls a text: by its number and its beginning."""
    cut = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return f"text {row} ({cut!r})"


# ------------------------------------------------------------------------ checks


def refuse_no_text(texts: Sequence[str], *, empty: bool = False) -> None:
    """Raise the `DataError` of the first that is no text, or an empty one unless `empty`."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {row} is {type(text).__name__}", "a text",
                            "give a list of strings")  # fmt: skip
        if not text and not empty:
            raise DataError(f"text {row} is empty", "at least one character",
                            "leave empty texts out, or give `begin` to write from nothing"
                            )  # fmt: skip


def vocabulary_of(model: nn.Module | Stepper) -> int | None:
    """Return how many ids a model knows by its configuration or its head, or None."""
    inner = getattr(model, "model", None)
    parts = [part for whole in (model, inner) for part in (whole, getattr(whole, "body", None))]
    for part in parts:
        vocab = getattr(getattr(getattr(part, "config", None), "embed", None), "vocab", None)
        head = getattr(part, "head", None)
        if isinstance(vocab, int):
            return vocab
        if isinstance(head, nn.Linear):
            return head.out_features
    return None


def check_fit(model: nn.Module | Stepper, tokenizer: Tokens) -> None:
    """Raise the `ModelError` of a tokenizer that has ids which the model does not know."""
    known, size = vocabulary_of(model), getattr(tokenizer, "vocab_size", None)
    if known is not None and size is not None and size > known:
        raise ModelError(f"a tokenizer of {size} ids for a model of {known}",
                         "a tokenizer whose ids the model knows",
                         "use the tokenizer that the model was trained with")  # fmt: skip
    for role in ("bos", "eos"):
        found = getattr(tokenizer, role)
        if known is not None and found is not None and found >= known:
            raise ModelError(f"{role} id {found} for a model of {known} ids",
                             f"an id below {known}",
                             "use the tokenizer that the model was trained with")  # fmt: skip


def check_ids(model: nn.Module | Stepper, rows: Sequence[Sequence[int]]) -> None:
    """Raise the `ModelError` of the first row with an id that the model does not know."""
    known = vocabulary_of(model)
    for row, ids in enumerate(rows):
        worst = min(ids, default=0) if min(ids, default=0) < 0 else max(ids, default=0)
        if worst < 0 or (known is not None and worst >= known):
            limit = "or more" if known is None else f"to {known - 1}"
            raise ModelError(f"id {worst} in text {row}", f"ids of 0 {limit}",
                             "use the tokenizer that the model was trained with")  # fmt: skip


# ------------------------------------------------------------------------ the tokenizer's own way


def _encoded(tokenizer: Tokens, text: str, *, special: bool) -> Any:
    encode: Any = tokenizer.encode
    if "special" in inspect.signature(encode).parameters:
        return encode(text, special=special)
    return encode(text)


def _ids(found: Any) -> list[int]:
    return [int(i) for i in getattr(found, "ids", found)]
