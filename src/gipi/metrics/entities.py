"""Entities in tagged text, counted as the scorer of CoNLL-2003 (conlleval) counts them.

Tags are O, B-type and I-type. An entity is right where its first and last token and its type are.

B rows, T positions, K tags, E types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError
from gipi.core.schema import IGNORED_TOKEN
from gipi.metrics.metric import Metric, State, zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

OUTSIDE = -1


@dataclass(frozen=True)
class TagSet:
    """What the tags mean: for each id whether it begins an entity (B-), and its type (-1: O)."""

    begins: tuple[bool, ...]
    kinds: tuple[int, ...]
    types: tuple[str, ...]


def tag_set(tags: Sequence[str]) -> TagSet:
    """Return the meaning of the tags, in the order of their ids.

    >>> tag_set(["O", "B-LOC", "I-LOC", "B-PER"])
    TagSet(begins=(False, True, False, True), kinds=(-1, 0, 0, 1), types=('LOC', 'PER'))

    Raises `ConfigError` where a tag is neither O nor B- or I- with a type, or where there is none.
    """
    wrong = [t for t in tags if t != "O" and (t[:2] not in ("B-", "I-") or len(t) < 3)]
    if wrong or not tags:
        raise ConfigError(
            f"the tag {wrong[0]!r}" if wrong else "entity_f1 without tags",
            "the tags in the order of their ids: O, B-type, I-type",
            "give the option tags; BIOES and IOB1 are converted when the file is read",
        )
    types = tuple(sorted({t[2:] for t in tags if t != "O"}))
    return TagSet(
        tuple(t.startswith("B-") for t in tags),
        tuple(OUTSIDE if t == "O" else types.index(t[2:]) for t in tags),
        types,
    )


def entity_f1(classes: int = 0, *, tags: Sequence[str] = ()) -> Metric:  # noqa: ARG001
    """Return the F1 of entities, all types together.

        F1 = 2 right / (true + found)

    outputs  (B, T, K) logits, or (B, T) int64 tags;  target (B, T) int64, -100 where no tag counts
             (padding, later pieces of a word): those positions are as if they were not there
    tags     names of the K tags

    Strict as conlleval: an I- without its B- before it begins an entity (so IOB1 and BIO give the
    same score), and the end of a row ends one. NaN where there is no entity on either side.
    Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 shared task",
    arXiv:cs/0306050. Raises `ConfigError` as `tag_set`.
    """
    meaning = tag_set(tags)
    size = len(meaning.types)
    placed: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        device = target.device
        if device not in placed:
            begins = torch.tensor(meaning.begins, device=device)
            placed[device] = begins, torch.tensor(meaning.kinds, device=device)
        guess = outputs.argmax(-1) if outputs.is_floating_point() else outputs
        real, guess, truth = _side_by_side(guess, target)
        found = _entities(guess, real, *placed[device])
        true = _entities(truth, real, *placed[device])
        same = (found.kind == true.kind) & (found.end == true.end)
        right = found.start & true.start & same
        for name, there, kind in (
            ("right", right, true.kind), ("true", true.start, true.kind),
            ("found", found.start, found.kind),
        ):  # fmt: skip
            w = there.to(state[name].dtype)
            if weight is not None:
                w = w * weight.to(w.dtype)[:, None]
            state[name].index_add_(0, kind.clamp_min(0).flatten(), w.flatten())

    def compute(state: State) -> float:
        both = float(state["true"].sum() + state["found"].sum())
        return 2 * float(state["right"].sum()) / both if both else float("nan")

    sizes = {"right": (max(size, 1),), "true": (max(size, 1),), "found": (max(size, 1),)}
    return Metric("entity_f1", greater_is_better=True, init=zeros(sizes), update=update,
                  compute=compute)  # fmt: skip


def entity_scores(state: State, tags: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Return type -> (precision, recall, F1) of a state of `entity_f1`; 0 where nothing is right.

    As conlleval prints them: 0 too where a type was never found or does not occur.
    """
    scores = {}
    for k, name in enumerate(tag_set(tags).types):
        right, true, found = (float(state[s][k]) for s in ("right", "true", "found"))
        precision, recall = right / found if found else 0.0, right / true if true else 0.0
        f1 = 2 * right / (true + found) if right else 0.0
        scores[name] = precision, recall, f1
    return scores


# ---------------------------------------------------------------------------- runs of tags


@dataclass(frozen=True)
class _Entities:
    """(B, T): whether an entity starts here, the type at each position, where the entity ends."""

    start: Tensor
    kind: Tensor
    end: Tensor


def _side_by_side(guess: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which positions count, and both tags, with those that count first in each row."""
    counted = target != IGNORED_TOKEN
    order = (~counted).to(torch.uint8).argsort(dim=1, stable=True)
    return counted.gather(1, order), guess.gather(1, order), target.gather(1, order)


def _entities(tags: Tensor, real: Tensor, begins: Tensor, kinds: Tensor) -> _Entities:
    tags = tags.masked_fill(~real, 0)
    kind = kinds[tags].masked_fill(~real, OUTSIDE)
    begin = begins[tags] & real
    edge = torch.full_like(kind[:, :1], OUTSIDE)
    before = torch.cat([edge, kind[:, :-1]], 1)
    # A change of type starts an entity with or without B-; so does an I- after O.
    start = (kind != OUTSIDE) & (begin | (before != kind))
    after = torch.cat([kind[:, 1:], edge], 1)
    fresh = torch.cat([start[:, 1:], torch.zeros_like(start[:, :1])], 1)
    last = (kind != OUTSIDE) & (fresh | (after != kind))
    width = tags.shape[1]
    place = torch.arange(width, device=tags.device).expand_as(tags)
    end = place.masked_fill(~last, width).flip(1).cummin(1).values.flip(1) if width else place
    return _Entities(start, kind, end)
