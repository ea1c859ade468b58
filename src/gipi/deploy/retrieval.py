"""Vectors of texts from a run or a folder, and what is found by them.

Shapes: N texts, Q queries, C candidates, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import ConfigError, DataError, ModelError
from gipi.data import text_fields, tokenizer_of
from gipi.deploy.embed import Embedding, embed, embedding_of
from gipi.deploy.predict import load
from gipi.models import load_folder
from gipi.text import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

CHUNK = 1 << 22  # scores held at once


@dataclass(frozen=True)
class Encoder:
    """A model that gives texts vectors, with all that this needs."""

    model: nn.Module
    tokenizer: Tokenizer
    how: Embedding

    def __call__(self, texts: Sequence[str], *, cut: bool = False) -> np.ndarray:
        """Return (N, D) float32; see `gipi.embed`."""
        found = embed(self.model, self.tokenizer, texts, how=self.how, cut=cut)
        return np.asarray(found.numpy())


@dataclass(frozen=True)
class Ranking:
    """The nearest candidates of each query, the nearest first.

    index   (Q, k) int64 numbers of the candidates
    score   (Q, k) float32 cosines
    """

    index: np.ndarray
    score: np.ndarray


def open_encoder(where: str | Path) -> Encoder:
    """Return what gives vectors: of a folder in Hugging Face form, a run, or a model folder.

    A run of the tasks embed and rank gives the vectors that it learnt; another one that has an
    encoder gives the mean over its tokens. Raises `ModelError` for a model without an encoder.
    """
    place = Path(where).expanduser()
    if (place / "config.json").is_file():
        loaded = load_folder(place, head="none")
        return Encoder(loaded.model, Tokenizer.from_file(place), embedding_of(place))
    predictor = load(where)
    model = predictor.model
    body = getattr(model, "body", None)
    fields = text_fields(predictor.schema)
    if body is None or not fields or not hasattr(body, "encoder"):
        raise ModelError(
            f"{where} holds a {type(model).__name__}, which gives no vectors",
            "a Transformer with an encoder", "train one with --task embed",
        )  # fmt: skip
    paired = predictor.task.name in ("embed", "rank")
    pool: Any = body.config.pooling if paired else "mean"
    return Encoder(model, tokenizer_of(predictor.schema), Embedding(pool, normalise=paired))


def vectors(where: str | Path, texts: str | Sequence[str], *, cut: bool = False) -> np.ndarray:
    """Return (N, D) float32 vectors of texts; a text's does not depend on the others.

    where  folder of an encoder in Hugging Face form, a run, or a model folder
    cut    keep the beginning of a text that is longer than the model reads; otherwise it is refused

    Raises `DataError` for an empty or a too long text, `ModelError` where there is no encoder.
    """
    return open_encoder(where)([texts] if isinstance(texts, str) else list(texts), cut=cut)


def rank(
    where: str | Path, queries: str | Sequence[str], candidates: Sequence[str], *, k: int = 10,
    cut: bool = False,
) -> Ranking:  # fmt: skip
    """Return the k candidates whose vectors lie nearest to each query's, by cosine.

    Raises as `vectors`, and `ConfigError` for k below 1; `DataError` without candidates.
    """
    if k < 1:
        raise ConfigError(f"k={k}", "a number of candidates from 1", "10 is usual")
    if not len(candidates):
        raise DataError("no candidates to rank", "at least one text", "give some")
    encoder = open_encoder(where)
    asked = encoder([queries] if isinstance(queries, str) else list(queries), cut=cut)
    return nearest(asked, encoder(list(candidates), cut=cut), k=k)


def nearest(queries: np.ndarray, candidates: np.ndarray, *, k: int) -> Ranking:
    """Return the k rows of (C, D) with the largest cosine to each of (Q, D); the first of equals.

    >>> found = nearest(np.eye(2, dtype=np.float32), np.eye(3, 2, dtype=np.float32), k=1)
    >>> found.index.ravel().tolist()
    [0, 1]
    """
    a, b = (torch.nn.functional.normalize(torch.from_numpy(x).float(), dim=1)
            for x in (queries, candidates))  # fmt: skip
    rows = max(1, CHUNK // max(len(b), 1))
    index, score = [], []
    for part in a.split(rows):
        order = (part @ b.t()).sort(dim=1, descending=True, stable=True)
        index.append(order.indices[:, :k])
        score.append(order.values[:, :k])
    empty = torch.zeros(0, min(k, len(b)))
    return Ranking(torch.cat(index or [empty.long()]).numpy(),
                   torch.cat(score or [empty]).numpy())  # fmt: skip


__all__ = ["Encoder", "Ranking", "nearest", "open_encoder", "rank", "vectors"]
