"""Beam search: the K likeliest beginnings go on side by side, and the best ended answer wins.

B prompts, K beams each, V tokens of the vocabulary, C candidates a step, L new tokens.

    score(y) = Σ_t log p(y_t | y_<t, x) / |y|^α        α the length penalty, |y| with its stop id

Steps, choices and stopping are those of the transformers package (tested token for token), which
differ from Wu et al. 2016, "Google's neural machine translation system", arXiv:1609.08144, in the
form of the penalty. A prompt that is decided leaves the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from gipi.core.errors import ConfigError
from gipi.nn.sampling import NOTHING, OUT, Limits
from gipi.nn.stepper import nothing_left, padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.nn.stepper import Stepper

Early = bool | Literal["never"]


@dataclass(frozen=True)
class Hypothesis:
    """One answer of a beam search.

    tokens   its new tokens, without the stop id
    stopped  the stop id that ended it, or None where it reached the greatest length
    score    Σ log p / |y|^α, with which the answers of a prompt were compared
    """

    tokens: tuple[int, ...]
    stopped: int | None
    score: float


@dataclass(frozen=True)
class _Search:
    """What is known of the prompts that are not decided: running and ended beams, best first.

    said, ended   (B, K, L) int64, -1 where a beam has no token
    score, final  (B, K), Σ log p and that with its penalty; −∞ for a beam that is not there
    """

    said: Tensor
    score: Tensor
    ended: Tensor
    final: Tensor

    def picked(self, index: Tensor) -> _Search:
        return _Search(self.said[index], self.score[index], self.ended[index], self.final[index])


def beam_search(
    model: Stepper,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    max_new_tokens: int,
    stop: Sequence[int] = (),
    length_penalty: float = 1.0,
    early_stopping: Early = False,
    limits: Limits | None = None,
    best: int = 1,
    numbers: Sequence[int] | None = None,
) -> list[tuple[Hypothesis, ...]]:
    """Return the `best` answers to each prompt, the highest score first.

    beams           K, how many beginnings are followed
    max_new_tokens  the most tokens of an answer
    stop            ids that end an answer
    length_penalty  α; 0 compares sums, 1 means, more favours longer answers
    early_stopping  True: when K answers have ended. False: when, besides, the best beginning is
                    now worse than all of them. "never": when it could not become better by growing
    limits          what may not be said, applied to the log-probabilities of each step
    best            how many answers are returned, at most K
    numbers         by which errors call the rows; None: by their places

    Raises `ConfigError` for numbers that do not fit together, or limits that leave no token;
    `NonFiniteError` where a logit is NaN or infinite.
    """
    _check(beams, max_new_tokens, best)
    limits, ends = limits or Limits(), sorted(set(stop))
    found: dict[int, tuple[Hypothesis, ...]] = {}
    if not prompts:
        return []
    with torch.inference_mode():
        logits_BV, state = model.start(prompts, max_new_tokens)
        search = _begin(len(prompts), beams, max_new_tokens, logits_BV.device)
        history_BT, _ = padded(model.history(prompts), left=True, fill=NOTHING,
                               device=logits_BV.device)  # fmt: skip
        spread = _spread(torch.arange(len(prompts), device=logits_BV.device), beams)
        state, logits_NV = model.reorder(state, spread), logits_BV[spread]
        rows = list(range(len(prompts)))
        for step in range(max_new_tokens):
            log_p_NV = logits_NV.float().log_softmax(1)
            if limits != Limits():
                told_NT = torch.cat([history_BT[_spread_rows(rows, beams, history_BT)],
                                     search.said[:, :, :step].flatten(0, 1)], 1)  # fmt: skip
                log_p_NV = limits.apply(
                    log_p_NV, told_NT, step=step, most=max_new_tokens, stop=ends
                )
            last = step + 1 == max_new_tokens
            search, from_BK = _advanced(search, log_p_NV, step, ends, length_penalty, last=last)
            reach = max_new_tokens if early_stopping == "never" and length_penalty > 0 else step + 1
            open_B = _is_open(search, reach, length_penalty, full_ends=early_stopping is True)
            going, spoilt = torch.stack([open_B, _is_stuck(search)]).tolist()  # sync
            if any(spoilt):
                at = spoilt.index(True)
                number = rows[at] if numbers is None else numbers[rows[at]]
                spoilt_KV = logits_NV[at * beams : (at + 1) * beams]
                raise nothing_left(spoilt_KV, prompt=number, step=step)
            closed = [i for i, goes_on in enumerate(going) if last or not goes_on]
            found |= {rows[i]: _answers(search, i, ends, best) for i in closed}
            if len(closed) == len(rows):
                break
            keep = torch.tensor([i for i in range(len(rows)) if i not in set(closed)],
                                device=logits_BV.device)  # fmt: skip
            flat_N = (from_BK + beams * torch.arange(len(rows), device=keep.device)[:, None])[keep]
            rows, search = [rows[i] for i in keep.tolist()], search.picked(keep)
            state = model.reorder(state, flat_N.flatten())
            logits_NNV, state = model.step(search.said[:, :, step].reshape(-1, 1), state)
            logits_NV = logits_NNV[:, -1]
    return [found[row] for row in range(len(prompts))]


# ------------------------------------------------------------------------ one step


def _begin(prompts: int, beams: int, most: int, device: torch.device) -> _Search:
    nobody = torch.full((prompts, beams, most), NOTHING, device=device)
    none = torch.full((prompts, beams), OUT, device=device)
    first = none.clone()
    first[:, 0] = 0.0  # one beam at first: K equal ones would find the same token K times
    return _Search(nobody, first, nobody, none)


def _advanced(
    search: _Search, log_p_NV: Tensor, step: int, ends: list[int], alpha: float, *, last: bool
) -> tuple[_Search, Tensor]:
    """Return the search one token later, and from which beam each running one (B, K) came."""
    prompts, beams = search.score.shape
    vocabulary = log_p_NV.shape[1]
    # With E stop ids at most E·K candidates end, so K of (1 + E)·K can go on.
    count = min(max(2, 1 + len(ends)) * beams, beams * vocabulary)
    sums_BKV = search.score[:, :, None] + log_p_NV.view(prompts, beams, vocabulary)
    sum_BC, place_BC = sums_BKV.flatten(1).topk(count, dim=1)
    from_BC, token_BC = place_BC // vocabulary, place_BC % vocabulary
    said_BCL = _gathered(search.said, from_BC)
    said_BCL[:, :, step] = token_BC
    ended_BC = torch.isin(token_BC, torch.tensor(ends, device=token_BC.device, dtype=torch.int64))
    ended_BC = torch.ones_like(ended_BC) if last else ended_BC

    on_BK = sum_BC.masked_fill(ended_BC, OUT).topk(beams, dim=1)
    # A candidate behind the first K is there to take the place of one that ended, not to end.
    leads_C = torch.arange(count, device=token_BC.device) < beams
    new_BC = (sum_BC / (step + 1) ** alpha).masked_fill(~(ended_BC & leads_C), OUT)
    final_BK = torch.cat([search.final, new_BC], 1).topk(beams, dim=1)
    all_ended = torch.cat([search.ended, said_BCL], 1)
    after = _Search(
        _gathered(said_BCL, on_BK.indices), on_BK.values,
        _gathered(all_ended, final_BK.indices), final_BK.values,
    )  # fmt: skip
    return after, from_BC.gather(1, on_BK.indices)


def _gathered(x_BKL: Tensor, index_BC: Tensor) -> Tensor:
    return x_BKL.gather(1, index_BC[:, :, None].expand(-1, -1, x_BKL.shape[2]))


def _is_open(search: _Search, reach: int, alpha: float, *, full_ends: bool) -> Tensor:
    """Return (B,): whether a running beam may still enter the K that ended."""
    worst_B = search.final[:, -1]
    open_B: Tensor = search.score[:, 0] / reach**alpha > worst_B
    return open_B & (worst_B == OUT) if full_ends else open_B


def _is_stuck(search: _Search) -> Tensor:
    """Return (B,): whether nothing has ended and nothing goes on, or a score is not a number."""
    nothing_B = (search.score[:, 0] == OUT) & (search.final[:, 0] == OUT)
    return nothing_B | search.score.isnan().any(1) | search.final.isnan().any(1)


def _answers(search: _Search, row: int, ends: list[int], best: int) -> tuple[Hypothesis, ...]:
    out = []
    pairs = zip(search.ended[row, :best].tolist(), search.final[row].tolist(), strict=False)
    for said, score in pairs:
        if score == OUT:  # fewer than K ended within the greatest length
            continue
        tokens = [token for token in said if token != NOTHING]
        stopped = tokens.pop() if tokens[-1] in ends else None
        out.append(Hypothesis(tuple(tokens), stopped, score))
    return tuple(out)


def _spread(index: Tensor, beams: int) -> Tensor:
    return index.repeat_interleave(beams)


def _spread_rows(rows: list[int], beams: int, like: Tensor) -> Tensor:
    return _spread(torch.tensor(rows, device=like.device), beams)


# ------------------------------------------------------------------------ errors


def _check(beams: int, most: int, best: int) -> None:
    if beams < 1:
        raise ConfigError(f"beams={beams}", "at least 1", "give beams=4")
    if most < 1:
        raise ConfigError(f"max_new_tokens={most}", "at least 1", "give max_new_tokens=50")
    if not 1 <= best <= beams:
        raise ConfigError(f"the best {best} of {beams} beams", f"a number from 1 to {beams}",
                          "follow more beams or ask for fewer answers")  # fmt: skip
