"""What a `tokenizer.json` says about itself: its kind, its special tokens, whether it is lossless.

The file holds special tokens but not what they are for. That stands beside it, in
`special_tokens_map.json` or `tokenizer_config.json`; where neither is there, the usual names tell.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gipi.core.errors import DataError
from gipi.text.bytelevel import ALPHABET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tokenizers import Tokenizer as Core

FILE = "tokenizer.json"
ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
USUAL = {
    "pad": ("[PAD]", "<pad>", "<|pad|>", "<|finetune_right_pad_id|>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
    "bos": ("[BOS]", "<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("[EOS]", "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
}
_KINDS = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "word"}
_CHARACTER = r"[\s\S]"


def name_of(role: str) -> str:
    """Return the token of a role in the tokenizers trained here: [PAD], [UNK], ..."""
    return USUAL[role][0]


def kind_of(body: Mapping[str, Any]) -> str:
    """Return the kind of a parsed `tokenizer.json`."""
    kind = _KINDS[body["model"]["type"]]
    one_by_one = any(
        step.get("type") == "Split" and step["pattern"].get("Regex") == _CHARACTER
        for step in steps(body["pre_tokenizer"])
    )
    return "char" if kind == "word" and one_by_one else kind


def steps(part: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield the steps of a normaliser, pre-tokenizer or decoder, sequences unpacked."""
    if part is None:
        return
    inner = next((part[k] for k in ("normalizers", "pretokenizers", "decoders") if k in part), None)
    if inner is None:
        yield dict(part)
        return
    for step in inner:
        yield from steps(step)


def roles_of(
    body: Mapping[str, Any], core: Core, *, given: Mapping[str, str | None]
) -> dict[str, str]:
    """Return role -> token: what is given, then what the file says, then the usual names."""
    found: dict[str, str] = {}
    model, post = body["model"], body.get("post_processor") or {}
    said: dict[str, str | None] = {"unk": model.get("unk_token")}
    if model.get("unk_id") is not None:
        said["unk"] = core.id_to_token(model["unk_id"])
    if post.get("type") in {"BertProcessing", "RobertaProcessing"}:
        said |= {"cls": post["cls"][0], "sep": post["sep"][0]}
    for role in ROLES:
        if role in given:
            token = given[role]
        else:
            usual = next((t for t in USUAL[role] if core.token_to_id(t) is not None), None)
            token = said.get(role) or usual
        if token is None:
            continue
        if core.token_to_id(token) is None:
            raise DataError(
                f"the {role} token {token!r} is not in the vocabulary",
                "special tokens that the tokenizer has",
                "take tokenizer.json and special_tokens_map.json of the same model",
            )
        found[role] = token
    return found


def read_roles(folder: Path) -> dict[str, str | None]:
    """Return role -> token of the files beside a `tokenizer.json`; {} where there are none."""
    found: dict[str, str | None] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder / name} cannot be read: {error}", "a JSON file", "delete or replace it"
            ) from error
        for role in ROLES:
            token = content.get(f"{role}_token")
            if isinstance(token, dict):
                token = token.get("content")
            if isinstance(token, str):
                found[role] = token
    return found


def role_files(roles: Mapping[str, str]) -> dict[str, str]:
    """Return the files that tell the transformers package what the special tokens are for."""
    names = {f"{role}_token": token for role, token in roles.items()}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    return {
        "special_tokens_map.json": json.dumps(names, indent=1, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps({**config, **names}, indent=1, ensure_ascii=False)
        + "\n",
    }


def is_lossless(body: Mapping[str, Any]) -> bool:
    """Whether every text comes back: bytes as characters, all 256 of them, nothing normalised."""
    before, after = list(steps(body["pre_tokenizer"])), list(steps(body["decoder"]))
    levels = [s for s in before if s["type"] == "ByteLevel"]
    return (
        body["model"]["type"] == "BPE"
        and not list(steps(body["normalizer"]))
        and len(levels) == 1
        and not levels[0].get("add_prefix_space")
        and [s["type"] for s in after] == ["ByteLevel"]
        and all(s["type"] in {"ByteLevel", "Digits"} or _keeps(s) for s in before)
        and set(ALPHABET) <= set(body["model"]["vocab"])
    )


def _keeps(step: Mapping[str, Any]) -> bool:
    return step["type"] == "Split" and step.get("behavior") != "Removed"
