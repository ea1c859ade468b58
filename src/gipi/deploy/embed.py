"""A vector for each text, out of a Transformer's hidden states.

Shapes: B texts, T tokens, D width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ConfigError, DataError, ModelError
from gipi.deploy.pieces import named, refuse_no_text, vocabulary_of
from gipi.nn.stepper import device_of, padded
from gipi.text.fits import check_fit
from gipi.train.mode import eval_mode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from gipi.text import Tokenizer

Pool = Literal["mean", "first", "max", "last"]
TOKENS = 1 << 14  # of a batch, padding included
POOLING, MODULES, LENGTHS = "1_Pooling/config.json", "modules.json", "sentence_bert_config.json"


@dataclass(frozen=True)
class Embedding:
    """How hidden states become the vector of a text.

    pool       the mean over its tokens, the first or last of them, or the maximum in each channel
    normalise  whether the vector gets length 1
    longest    tokens of a text at most; None: what the model knows
    """

    pool: Pool = "mean"
    normalise: bool = False
    longest: int | None = None


def embedding_of(folder: Path) -> Embedding:
    """Return how the vectors of a folder are made, as sentence-transformers writes it there.

    Where its files are missing: the mean, as it is. Raises `ModelError` for a way that is unknown.
    """
    pooling, modules, lengths = (
        _read(folder / n, kind) for n, kind in ((POOLING, dict), (MODULES, list), (LENGTHS, dict))
    )
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first",
             "pooling_mode_max_tokens": "max", "pooling_mode_lasttoken": "last"}  # fmt: skip
    asked = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    if len(asked) > 1 or any(key not in names for key in asked):
        raise ModelError(
            f"{folder / POOLING} asks for {', '.join(asked)}", "one of: " + ", ".join(names),
            "pass pool=...",
        )  # fmt: skip
    pool: Any = names[asked[0]] if asked else "mean"
    kinds = [str(m.get("type", "")) for m in modules if isinstance(m, dict)]
    return Embedding(pool, any(kind.endswith("Normalize") for kind in kinds),
                     lengths.get("max_seq_length") if lengths else None)  # fmt: skip


def embed(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    how: Embedding | None = None,
    cut: bool = False,
) -> Tensor:
    """Return (B, D) float32 vectors of texts, on the CPU; a text's does not depend on the others.

    model  a Transformer that answers hidden states (B, T, D)
    how    pooling and length
    cut    keep the beginning of a text that is too long; otherwise it is refused

    Raises `DataError` for an empty or a too long text, `ModelError` for a model without hidden
    states or with other ids, `ConfigError` for an unknown way of pooling.
    """
    texts, how = ([texts] if isinstance(texts, str) else list(texts)), how or Embedding()
    if how.pool not in get_args(Pool):
        raise ConfigError(f"pool={how.pool!r}", "one of " + ", ".join(get_args(Pool)),
                          "leave pool out")  # fmt: skip
    refuse_no_text(texts)
    known = vocabulary_of(model)
    if known is not None:
        check_fit(tokenizer, known, special={})
    most = _longest(model, how)
    encoded = tokenizer.encode_batch(texts)
    rows = [_within(tokenizer, ids.tolist(), named(row, text), text, most, cut=cut)
            for row, (ids, text) in enumerate(zip(encoded, texts, strict=True))]  # fmt: skip
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[Tensor | None] = [None] * len(rows)
    with eval_mode(model), torch.inference_mode():
        for batch in _batches(order, rows):
            ids_BT, real_BT = padded([rows[i] for i in batch], left=False, device=device_of(model),
                                     fill=tokenizer.pad or 0)  # fmt: skip
            vectors_BD = pooled(_hidden(model, ids_BT, real_BT), real_BT, how.pool)
            vectors_BD = F.normalize(vectors_BD, dim=-1) if how.normalise else vectors_BD
            for i, vector in zip(batch, vectors_BD.cpu(), strict=True):
                found[i] = vector
    vectors = [v for v in found if v is not None]
    return torch.stack(vectors) if vectors else torch.zeros(0, 0)


def pooled(hidden_BTD: Tensor, real_BT: Tensor, pool: Pool) -> Tensor:
    """Return (B, D) float32 of hidden states, padding left out.

    >>> h = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> [pooled(h, torch.tensor([[1, 1, 0]]), p).item() for p in ("mean", "first", "max", "last")]
    [2.0, 1.0, 3.0, 3.0]
    """
    h, mask = hidden_BTD.float(), real_BT.bool()[..., None]
    if pool == "first":
        return h[:, 0]
    if pool == "last":
        return h[torch.arange(len(h), device=h.device), real_BT.long().sum(1) - 1]
    if pool == "max":
        return h.masked_fill(~mask, -torch.inf).amax(1)
    mean: Tensor = (h * mask).sum(1) / mask.sum(1)
    return mean


def _hidden(model: nn.Module, ids_BT: Tensor, real_BT: Tensor) -> Tensor:
    mask = None if bool(real_BT.all()) else real_BT
    body: Any = getattr(model, "body", model)
    if callable(getattr(body, "encode", None)):  # the encoder of an encoder-decoder
        encoded: Tensor = body.encode(ids_BT, mask)
        return encoded
    hidden = getattr(body(ids_BT, mask), "hidden", None)
    if hidden is None:
        raise ModelError(
            f"a {type(body).__name__} without hidden states", "a Transformer",
            "use a BERT, a GPT-2 or another of their kin",
        )  # fmt: skip
    found: Tensor = hidden
    return found


def _longest(model: nn.Module, how: Embedding) -> int | None:
    config = getattr(getattr(model, "body", model), "config", None)
    known = getattr(getattr(config, "embed", None), "longest", None)
    sizes = [n for n in (how.longest, known) if n]
    return min(sizes) if sizes else None


def _within(
    tokenizer: Tokenizer, ids: list[int], name: str, text: str, most: int | None, *, cut: bool
) -> list[int]:
    """Return the tokens of a text, its beginning where it is too long and `cut` says so."""
    if not ids:
        raise DataError(f"{name} has no token", "at least one",
                        "use a tokenizer that knows its characters")  # fmt: skip
    if most is None or len(ids) <= most:
        return ids
    if not cut:
        raise DataError(
            f"{name} has {len(ids)} tokens", f"at most {most}",
            "shorten it, or pass cut=True to keep its beginning",
        )  # fmt: skip
    added = tokenizer.encode(text).special_mask
    ends = int(added[::-1].argmin())  # tokens that stand behind every text
    return [*ids[: most - ends], *ids[len(ids) - ends :]]


def _batches(order: list[int], rows: list[list[int]]) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    for i in order:  # the shortest first: the last one is as wide as the batch
        if batches[-1] and (len(batches[-1]) + 1) * len(rows[i]) > TOKENS:
            batches.append([])
        batches[-1].append(i)
    return [b for b in batches if b]


def _read(path: Path, kind: type) -> Any:
    """Return the JSON of a file, empty where there is none; raise for damaged or other JSON."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read", "a JSON file",
                         "fetch the folder again, or delete the file") from error  # fmt: skip
    if not isinstance(found, kind):
        raise ModelError(
            f"{path} holds a {type(found).__name__}", f"a {kind.__name__} of JSON",
            "fetch the folder again, or delete the file",
        )  # fmt: skip
    return found
