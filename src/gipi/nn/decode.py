"""Decoding: one token after another, greedy or drawn, each row on its own.

B rows, V tokens of the vocabulary, T tokens so far.

A row that has ended leaves the batch, so the others do not pay for it. What a row says depends on
its prompt and its key alone: draws are pure functions of (key, step), see `sampling.draw`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError
from gipi.nn.sampling import NOTHING, Limits, Sampling, row_keys
from gipi.nn.stepper import nothing_left, padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gipi.nn.stepper import Stepper


@dataclass(frozen=True)
class Answer:
    """What one row said.

    tokens   its new tokens, without the stop id
    stopped  the stop id that ended it, or None where it reached the greatest length
    """

    tokens: tuple[int, ...]
    stopped: int | None


def decode(
    model: Stepper,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int] = (),
    sampling: Sampling | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    keys: Sequence[int] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Answer]:
    """Return the answer to each prompt; arguments and errors as of `decoding`."""
    said: list[list[int]] = [[] for _ in prompts]
    for tokens in decoding(
        model, prompts, max_new_tokens=max_new_tokens, stop=stop, sampling=sampling,
        limits=limits, seed=seed, keys=keys, numbers=numbers,
    ):  # fmt: skip
        for row, token in tokens.items():
            said[row].append(token)
    ends = set(stop)
    return [
        Answer(tuple(row[:-1]), row[-1]) if row[-1] in ends else Answer(tuple(row), None)
        for row in said
    ]


def decoding(
    model: Stepper,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int] = (),
    sampling: Sampling | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    keys: Sequence[int] | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[dict[int, int]]:
    """Yield {row: its new token}, a dictionary a step, of the rows that have not ended before.

    max_new_tokens  the most tokens of an answer, at least 1
    stop            ids that end an answer; yielded as its last token
    sampling        how a token is chosen; None: the most likely one
    limits          what may not be said; None: nothing
    seed, keys      of the draws; `keys` has one number a row, None: of seed and prompt
    numbers         by which errors call the rows; None: by their places

    Raises `ConfigError` before the first step where there is no step to make, later where the
    limits rule out every token; `NonFiniteError` where a logit is NaN or infinite.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={max_new_tokens}", "at least 1",
                          "give max_new_tokens=50, or score the text instead")  # fmt: skip
    keys = list(keys) if keys is not None else row_keys(prompts, seed)
    if len(keys) != len(prompts):
        raise ConfigError(f"{len(keys)} keys for {len(prompts)} prompts", "one key a prompt",
                          "leave the keys out to have them made of the seed")  # fmt: skip
    return _steps(model, prompts, max_new_tokens, frozenset(stop), sampling or Sampling(),
                  limits or Limits(), keys, numbers or range(len(prompts))
                  ) if prompts else iter(())  # fmt: skip


def _steps(
    model: Stepper, prompts: Sequence[Sequence[int]], most: int, stop: frozenset[int],
    sampling: Sampling, limits: Limits, keys: list[int], numbers: Sequence[int],
) -> Iterator[dict[int, int]]:  # fmt: skip
    rows = list(range(len(prompts)))  # of the batch as it stands
    with torch.inference_mode():
        logits_BV, state = model.start(prompts, most)
    history_BT, _ = padded(model.history(prompts), left=True, fill=NOTHING, device=logits_BV.device)
    for step in range(most):
        # Not around the yield: the mode would leak into whoever asks for the next token.
        with torch.inference_mode():
            wide_BV = logits_BV.float()
            left_BV = limits.apply(wide_BV, history_BT, step=step, most=most, stop=sorted(stop))
            tokens_B = sampling.choose(left_BV, [keys[row] for row in rows], step=step)
            tokens = tokens_B.tolist()  # sync
            if NOTHING in tokens:
                at = tokens.index(NOTHING)
                raise nothing_left(wide_BV[at], prompt=numbers[rows[at]], step=step)
        yield dict(zip(rows, tokens, strict=True))
        going = [i for i, token in enumerate(tokens) if token not in stop]
        if not going or step + 1 == most:
            return
        with torch.inference_mode():
            if len(going) < len(rows):
                index = torch.tensor(going, device=tokens_B.device)
                state, tokens_B = model.reorder(state, index), tokens_B[index]
                history_BT, rows = history_BT[index], [rows[i] for i in going]
            if limits.look_back:
                history_BT = torch.cat([history_BT, tokens_B[:, None]], 1)
            logits_BNV, state = model.step(tokens_B[:, None], state)
            logits_BV = logits_BNV[:, -1]
