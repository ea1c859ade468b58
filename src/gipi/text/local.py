"""Where a text may be cut without a difference: for most tokenizers, before white space.

A text is cut where white space begins after something that is none. What stands before such a place
does not change how the text after it is normalised and parted into words, if the tokenizer parts
words at white space at all; `is_local` says for which that is certain, and refuses where it does
not know. A long document can then be encoded in parts.
"""

from __future__ import annotations

import json
import re

from gipi.text.roles import steps

# Only before these four: other white space is not white space to everybody (U+001C).
CUT = re.compile(r"(?<=\S)(?=[ \t\r\n])")

_PARTERS = {"ByteLevel", "Metaspace", "BertPreTokenizer", "WhitespaceSplit", "Whitespace"}
_OTHERS = {"Digits", "Punctuation", "Split"}
_CHANGERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Nmt",
             "Precompiled", "Replace", "Strip"}  # fmt: skip


def is_local(text: str) -> bool:
    """Whether the tokenizer of a `tokenizer.json` may get a text in parts that end at `CUT`."""
    body = json.loads(text)
    before = list(steps(body["pre_tokenizer"]))
    parts = any(s["type"] in _PARTERS and s.get("use_regex", True) for s in before)
    characters = [s["pattern"].get("Regex") for s in before if s["type"] == "Split"] == [r"[\s\S]"]
    return (
        (characters or (parts and before[0]["type"] != "Split"))
        and all(step["type"] in _PARTERS | _OTHERS for step in before)
        and all(step.get("prepend_scheme", "always") == "always" for step in before)
        and all(step.get("split", True) for step in before)
        and not any(step.get("add_prefix_space", False) for step in before)
        and all(step["type"] in _CHANGERS for step in steps(body["normalizer"]))
        and not any(
            t["lstrip"] or t["rstrip"] or re.search(r"\S\s", t["content"])
            for t in body["added_tokens"]
            if not t["special"]
        )
    )
