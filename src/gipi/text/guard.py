"""Nobody can type a special token: what a user writes is text, whatever it looks like.

A model that reads "[SEP]" in a review as the end of the review can be told anything by its author.
The `tokenizers` package looks for special tokens in the text unless told not to; a vocabulary in
which they are pieces (Unigram keeps them there) finds them even then. `guarded` closes both ways,
and leaves every text in which no special token is written as it is.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Core

if TYPE_CHECKING:
    from collections.abc import Sequence


def guarded(text: str, special: Sequence[str]) -> Core:
    """Return the tokenizer of a `tokenizer.json` that takes no special token from its input.

    text     the text of a tokenizer.json
    special  every special token
    """
    core = _quiet(text)
    unknown = _unknown(core)
    leaking = [t for t in special if _leaks(core, t, unknown=unknown)]
    if not leaking:
        return core
    # The first character of such a token becomes a word of its own wherever the rest follows it,
    # so that no piece can cover both.
    pattern = "|".join(f"{_escaped(t[0])}(?={_escaped(t[1:])})" for t in leaking if len(t) > 1)
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    body: dict[str, Any] = json.loads(text)
    before = body["pre_tokenizer"]
    steps = [] if before is None else [before]
    body["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*steps, cut]}
    return _quiet(json.dumps(body, ensure_ascii=False))


def _quiet(text: str) -> Core:
    core = Core.from_str(text)
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = True  # the package's name for: do not look for them in the text
    return core


def _unknown(core: Core) -> str | None:
    """Return the mark of what the vocabulary cannot express."""
    model = json.loads(core.to_str())["model"]
    found: str | None = model.get("unk_token")
    if found is None and model.get("unk_id") is not None:
        found = core.id_to_token(model["unk_id"])
    return found


def _leaks(core: Core, token: str, *, unknown: str | None) -> bool:
    """Whether the id of `token` comes out where somebody writes it."""
    wanted = core.token_to_id(token)
    texts = (token, f"a{token}b", f"a {token} b", f"{token}{token}")
    found = {i for t in texts for i in core.encode(t, add_special_tokens=False).ids}
    return len(token) > 1 and wanted in found and (token != unknown or _is_piece(core, token))


def _is_piece(core: Core, token: str) -> bool:
    """Whether `token` itself is matched as a piece, where it is also the mark of the unknown."""
    spans = core.encode(f"a{token}b", add_special_tokens=False)
    wanted = core.token_to_id(token)
    return any(
        i == wanted and b - a >= len(token)
        for i, (a, b) in zip(spans.ids, spans.offsets, strict=True)
    )


def _escaped(text: str) -> str:
    """Escape for the regular expressions of the package, which are Oniguruma's."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
