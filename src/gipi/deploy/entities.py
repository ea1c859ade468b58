"""Entities: runs of tags as spans of a text, and what a report needs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.data import joined_tokens
from gipi.deploy.known import Case, Evidence, Known
from gipi.metrics import build

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.core.schema import Schema
    from gipi.data import Source

Entity = tuple[str, int, int]
"""Type, first token, last token."""

LINES = 12  # sentences that a report shows
WORDS = 80  # of a sentence that a report shows


def entities_in(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of BIO tags as conlleval reads them: a stray I- begins one.

    >>> entities_in(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [('PER', 0, 1), ('LOC', 3, 3), ('LOC', 4, 4)]
    """
    found: list[Entity] = []
    before = "O"
    for place, tag in enumerate(tags):
        if tag != "O":
            if tag[0] == "B" or before[2:] != tag[2:]:
                found.append((tag[2:], place, place))
            else:
                kind, first, _ = found[-1]
                found[-1] = (kind, first, place)
        before = tag
    return found


def placed(said: dict[str, np.ndarray], source: Source, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tags of rows with their text, its tokens and the entities in it.

    entities  a list a row of type, text, and the characters [start, end) of the text; the text is
              the one that was given, or the tokens with a space between
    """
    out = {key: np.empty(len(ids), dtype=object) for key in ("text", "tokens", "tags", "entities")}
    for k, row in enumerate(ids.tolist()):
        tokens = list(source.columns["tokens"][row])  # type: ignore[index]
        text, places = _text_of(source, row, tokens)
        tags = list(said["tags"][k])[: len(tokens)]
        out["text"][k], out["tokens"][k], out["tags"][k] = text, tokens, tags
        out["entities"][k] = [
            {"type": kind, "text": text[places[a][0] : places[b][1]], "start": places[a][0],
             "end": places[b][1]}
            for kind, a, b in entities_in(tags)
        ]  # fmt: skip
    return out


def _text_of(source: Source, row: int, tokens: list[str]) -> tuple[str, list[tuple[int, int]]]:
    if "places" in source.columns:
        text, flat = source.columns["text"][row], source.columns["places"][row]  # type: ignore[index]
        return str(text), list(zip(flat[::2], flat[1::2], strict=True))
    return joined_tokens(tokens)


# ---------------------------------------------------------------------------- for a report


def facts_of(
    outputs: Tensor, target: Tensor, weight: Tensor | None, schema: Schema
) -> tuple[dict[str, Any], np.ndarray]:
    """Return what a summary says of tagged rows, and the wrong entities of each row.

    outputs, target  (N, T) int64 tags; -100 in the target where none counts
    """
    metric = build("entity_f1", options={"tags": schema.classes})
    state = metric.init(outputs.device)
    metric.update(state, outputs, target, weight)
    types = sorted({t[2:] for t in schema.classes if t != "O"})
    table = []
    for k, name in enumerate(types):
        right, true, found = (float(state[s][k]) for s in ("right", "true", "found"))
        table.append({
            "class": name, "rows": true, "found": found,
            "precision": right / found if found else None,
            "recall": right / true if true else None,
            "f1": 2 * right / (true + found) if true + found else None,
        })  # fmt: skip
    wrong = np.array([
        len(set(_named(said, truth, schema)) ^ set(_named(truth, truth, schema)))
        for said, truth in zip(outputs, target, strict=True)
    ], dtype=np.float64)  # fmt: skip
    facts = {
        "tagged": True, "types": types, "per_class": table,
        "sentences": {"rows": len(wrong), "right": int((wrong == 0).sum())},
        "baseline": {"metric": "entity_f1", "value": 0.0, "rule": "finding no entity at all"},
    }  # fmt: skip
    return facts, wrong


def worst_sentences(
    outputs: Tensor, target: Tensor, wrong: np.ndarray, schema: Schema,
    *, names: Sequence[str], tokens: Sequence[Sequence[str]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return sentences as the report shows them: tokens, true and found entities.

    All arguments are of the sentences to be shown, in their order.
    """
    return [
        {
            "name": names[k], "loss": float(wrong[k]), "tokens": list(tokens[k])[:WORDS],
            "cut": max(len(tokens[k]) - WORDS, 0),
            "target": [list(e) for e in _named(target[k], target[k], schema)],
            "prediction": [list(e) for e in _named(outputs[k], target[k], schema)],
        }
        for k in range(len(names))
    ]  # fmt: skip


def worst_order(wrong: np.ndarray, target: Tensor) -> np.ndarray:
    """Return the places of sentences with wrong entities: most first, of these the shortest."""
    lengths = (target != torch.tensor(-100)).sum(1).numpy()
    order = np.lexsort((lengths, -wrong))
    return order[wrong[order] > 0][:LINES]


def _named(tags: Tensor, truth: Tensor, schema: Schema) -> list[Entity]:
    real = tags[truth != -100].tolist()
    return entities_in([schema.classes[int(k)] for k in real])


def _evidence(case: Case) -> Known:
    """Return figures by type and, with rows, the worst sentences."""
    judged, schema, rows = case.judged, case.schema, case.shown
    assert judged.outputs is not None
    assert judged.target is not None
    said, truth = case.task.units(judged.outputs, judged.target, schema)
    facts, wrong = facts_of(said, truth, judged.weight, schema)
    if rows is None:
        return Known(facts)
    order = worst_order(wrong, truth)
    ids = order if judged.ids is None else judged.ids.numpy()[order]
    tokens = [row["tokens"] for row in rows.raw(ids)]
    facts["worst"] = worst_sentences(
        said[order], truth[order], wrong[order], schema, names=rows.row_names(ids), tokens=tokens
    )
    return Known(facts)


EVIDENCE = Evidence(
    "tagged sentences", lambda case: case.schema.task == "tag" and case.complete, _evidence
)
