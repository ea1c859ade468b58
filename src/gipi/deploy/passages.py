"""Evidence of a language model: what it writes, and where a held-back passage surprises it.

N windows, T positions of a window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import GipiError
from gipi.core.schema import IGNORED_TOKEN
from gipi.data import tokenizer_of
from gipi.deploy.generate import generate
from gipi.deploy.generation import Generation
from gipi.deploy.known import Case, Evidence, Known
from gipi.text.sizes import token_bytes

if TYPE_CHECKING:
    from torch import nn

    from gipi.core.schema import Schema
    from gipi.text import Tokenizer
    from gipi.train.evaluate import Evaluation

SAMPLES, TEMPERATURE = 3, 0.8
LONGEST = 200  # tokens of a sample
PASSAGE = 400  # tokens of the passage that is shown
BINS = 24
MOST_BITS = 12.0  # what is rarer counts into the last bin


def judge(judged: Evaluation, schema: Schema, *, samples: bool) -> Known:
    """Return the bits by place in the window, how often which surprise, and one passage.

    samples  False leaves the passage out
    """
    if judged.outputs is None or judged.target is None:
        return Known()
    bits_NT = judged.outputs.double().numpy() / np.log(2)
    target_NT = judged.target.numpy()
    if judged.ids is not None:  # windows that are read beside each other: back into their order
        order = np.argsort(judged.ids.numpy(), kind="stable")
        bits_NT, target_NT = bits_NT[order], target_NT[order]
    real_NT = target_NT != IGNORED_TOKEN
    counts, edges = np.histogram(
        np.clip(bits_NT[real_NT], 0, MOST_BITS), bins=BINS, range=(0, MOST_BITS)
    )
    places = real_NT.sum(0)
    by_place = (bits_NT * real_NT).sum(0) / np.maximum(places, 1)
    tokenizer = tokenizer_of(schema)
    facts: dict[str, Any] = {"baseline": _without_context(target_NT[real_NT], tokenizer)}
    if samples:
        facts["passage"] = _passage(bits_NT, target_NT, tokenizer)
    arrays = {"bits_counts": counts, "bits_edges": edges, "bits_by_place": by_place}
    return Known(facts, arrays)


def write_samples(model: nn.Module, schema: Schema, *, seed: int) -> list[str]:
    """Return a few texts that the model writes from the beginning of a line or document.

    A report must not fail for want of them: where a model cannot write there are none.
    """
    tokenizer, stats = tokenizer_of(schema), schema.of("input", "text")[0].stats
    start = _start(tokenizer, ends=bool(stats.get("end")))
    never = tuple(i for i in (tokenizer.pad, tokenizer.unk) if i is not None)
    how = Generation(max_new_tokens=min(LONGEST, int(stats["length"])), temperature=TEMPERATURE,
                     samples=SAMPLES, seed=seed, forbidden=never)  # fmt: skip
    if not start:
        return []
    if len(start) >= int(stats["length"]):
        how = replace(how, max_new_tokens=1)
    try:
        found = generate(model, tokenizer, [start], how=how)
    except GipiError:
        return []
    return [one.text for one in found]


def _start(tokenizer: Tokenizer, *, ends: bool) -> list[int]:
    if ends and tokenizer.eos is not None:
        return [tokenizer.eos]
    ids: list[int] = tokenizer.encode("\n", special=False).ids.tolist()
    known = [i for i in ids if i != tokenizer.unk]
    return known or [next(i for i in range(tokenizer.vocab_size)
                          if i not in tokenizer.special_tokens.values())]  # fmt: skip


def _without_context(target: np.ndarray, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the bits per byte of these tokens by how often each of them occurs here."""
    counts = np.bincount(target)
    share = counts[counts > 0] / counts.sum()
    sizes = np.zeros(max(len(counts), tokenizer.vocab_size))
    sizes[: tokenizer.vocab_size] = token_bytes(tokenizer)
    size = max(float((counts * sizes[: len(counts)]).sum()), 1.0)
    value = float(-(share * np.log2(share)).sum() * counts.sum() / size)
    rule = "the frequency of each token, without its context"
    return {"metric": "bits_per_byte", "value": value, "rule": rule}


def _passage(
    bits_NT: np.ndarray, target_NT: np.ndarray, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """Return consecutive tokens from the middle: text and bits of each, whole characters only."""
    rows, width = target_NT.shape
    some = max(1, min(rows, -(-PASSAGE // width)))
    first = max(0, (rows - some) // 2)
    bits = bits_NT[first : first + some].reshape(-1)[:PASSAGE]
    ids = target_NT[first : first + some].reshape(-1)[:PASSAGE]
    ids, bits = ids[ids != IGNORED_TOKEN], bits[ids != IGNORED_TOKEN]
    found: list[dict[str, Any]] = []
    done, held = "", 0.0
    for place in range(len(ids)):
        whole = tokenizer.decode(ids[: place + 1])
        held += float(bits[place])
        last = place + 1 == len(ids)
        if whole.endswith("\ufffd") and not last:  # bytes of a character that is not whole yet
            continue
        new = whole[len(done) :] if whole.startswith(done) else ""
        found.append({"text": new, "bits": round(held, 3)})
        done, held = whole, 0.0
    return found


def _evidence(case: Case) -> Known:
    known = judge(case.judged, case.schema, samples=case.samples)
    if case.samples and case.texts:
        known.facts["written"] = list(case.texts)
    return known


EVIDENCE = Evidence("running text", lambda case: case.task.name == "generate", _evidence)
