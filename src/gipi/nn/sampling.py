"""The choice of the next token from its logits: what is ruled out, what is drawn.

B rows, V tokens of the vocabulary, C of them in order, T tokens so far. Histories (B, T) int64 hold
-1 where a row has no token: rows of several lengths stand in one tensor, and padding is never "a
repetition". All functions are pure and treat each row alone.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError
from gipi.core.seed import derive, uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NOTHING = -1  # in a history: no token; as a choice: none was possible
OUT = -math.inf  # the logit of what is ruled out


@dataclass(frozen=True)
class Limits:
    """What may not be said, or less readily; all off as they stand.

    repetition_penalty  divides positive logits of tokens already in prompt or answer, multiplies
                        negative ones; 1 is off
    no_repeat_ngram     no n-gram of this length twice in prompt and answer; 0 is off
    min_new_tokens      no stop id before so many new tokens
    forbidden           ids that are never said
    last                the id that is said where an answer reaches its greatest length, as models
                        of the Marian family were used to; None: whatever is likely

    Raises `ConfigError` for a value that means nothing.
    """

    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    min_new_tokens: int = 0
    forbidden: tuple[int, ...] = ()
    last: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(f"repetition_penalty={self.repetition_penalty}",
                              "a positive number; 1 changes nothing, 1.2 is usual",
                              "give repetition_penalty=1.2 or leave it out")  # fmt: skip
        for name in ("no_repeat_ngram", "min_new_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}", "0, which is off, or more",
                                  f"leave {name} out or give a whole number")  # fmt: skip

    @property
    def look_back(self) -> bool:
        """Whether the history has to be kept."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram > 0

    def apply(
        self, logits_BV: Tensor, history_BT: Tensor, *, step: int, most: int, stop: Sequence[int]
    ) -> Tensor:
        """Return the logits under these limits; `step` of `most` new tokens were said before."""
        if self.repetition_penalty != 1:
            logits_BV = penalise_repetition(logits_BV, history_BT, penalty=self.repetition_penalty)
        if self.no_repeat_ngram:
            logits_BV = forbid_ngrams(logits_BV, history_BT, size=self.no_repeat_ngram)
        never = [*self.forbidden, *(stop if step < self.min_new_tokens else ())]
        if never:
            logits_BV = forbid(logits_BV, never)
        if self.last is not None and step + 1 == most:
            _refuse_outside([self.last], logits_BV.shape[1])
            logits_BV = torch.full_like(logits_BV, OUT)
            logits_BV[:, self.last] = 0.0  # certain: a sum of log-probabilities stays as it is
        return logits_BV


@dataclass(frozen=True)
class Sampling:
    """How one of the tokens that are left is chosen.

    temperature  divides the logits; 0 takes the most likely token (greedy). None: 1 where top_k or
                 top_p asks for a draw, else 0
    top_k        only the k most likely tokens
    top_p        only the most likely tokens that together reach this probability

    Raises `ConfigError` for a value that means nothing, and for a draw at temperature 0.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}", "0, which is greedy, or more",
                              "give temperature=0.8, or 0 for the most likely token")  # fmt: skip
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}", "at least one token to choose from",
                              "give top_k=50, or leave it out")  # fmt: skip
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}", "a share above 0 and at most 1",
                              "give top_p=0.9, or leave it out")  # fmt: skip
        if self.temperature == 0 and not (self.top_k is None and self.top_p is None):
            raise ConfigError("top_k or top_p with temperature=0",
                              "a draw: temperature 0 always takes the most likely token",
                              "give a temperature above 0, or leave both out")  # fmt: skip

    @property
    def heat(self) -> float:
        """The temperature that is meant; 0 is greedy."""
        if self.temperature is None:
            return 0.0 if self.top_k is None and self.top_p is None else 1.0
        return self.temperature

    def choose(self, logits_BV: Tensor, keys: Sequence[int], *, step: int) -> Tensor:
        """Return one token a row, (B,) int64; -1 where no logit is finite or one is NaN or +∞.

        keys  one number a row; (key, step) is all that a row's draw depends on
        """
        possible_B = logits_BV.amax(1).isfinite()
        if self.heat == 0:
            chosen_B = logits_BV.argmax(1)
        else:
            logits_BV = logits_BV / self.heat
            if self.top_k is not None:
                logits_BV = keep_top_k(logits_BV, self.top_k)
            if self.top_p is not None:
                logits_BV = keep_top_p(logits_BV, self.top_p, most=self.top_k)
            chosen_B = draw(logits_BV, keys, step=step)
        return chosen_B.where(possible_B, NOTHING)


# ------------------------------------------------------------------------ ruled out


def forbid(logits_BV: Tensor, ids: Sequence[int]) -> Tensor:
    """Return the logits with those of `ids` at −∞.

    Raises `ConfigError` for an id outside the vocabulary.
    """
    _refuse_outside(ids, logits_BV.shape[1])
    out = logits_BV.clone()
    out[:, list(ids)] = OUT
    return out


def _refuse_outside(ids: Sequence[int], vocabulary: int) -> None:
    outside = [i for i in ids if not 0 <= i < vocabulary]
    if outside:
        raise ConfigError(f"id {outside[0]} is forbidden, or ends an answer",
                          f"ids from 0 to {vocabulary - 1}, the vocabulary of the model",
                          "use the tokenizer that belongs to this model")  # fmt: skip


def penalise_repetition(logits_BV: Tensor, history_BT: Tensor, *, penalty: float) -> Tensor:
    """Return l/θ for positive and l·θ for other logits of tokens in the history.

    history_BT int64, -1 for none. Keskar et al. 2019, "CTRL: a conditional transformer language
    model for controllable generation", arXiv:1909.05858, which divides negative logits too and so
    rewards what it means to punish; every implementation since multiplies these.
    """
    seen_BV = _present(history_BT, history_BT >= 0, logits_BV)
    less_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return less_BV.where(seen_BV, logits_BV)


def forbid_ngrams(logits_BV: Tensor, history_BT: Tensor, *, size: int) -> Tensor:
    """Return the logits with −∞ for every token that would say an n-gram for the second time.

    history_BT int64, -1 for none, `size` is n. Paulus, Xiong and Socher 2018, "A deep reinforced
    model for abstractive summarization", arXiv:1705.04304.
    """
    length = history_BT.shape[1]
    if length < size:
        return logits_BV
    grams_BWn = history_BT.unfold(1, size, 1)
    begun_Bn = history_BT[:, length - size + 1 :]
    again_BW = (grams_BWn[..., :-1] == begun_Bn[:, None]).all(2)
    ends_BW = grams_BWn[..., -1]
    return logits_BV.masked_fill(_present(ends_BW, again_BW & (ends_BW >= 0), logits_BV), OUT)


def _present(ids_BT: Tensor, counts_BT: Tensor, like_BV: Tensor) -> Tensor:
    """Return (B, V) bool: whether a row has the token where `counts_BT` is true."""
    vocabulary = like_BV.shape[1]
    valid_BT = counts_BT & (ids_BT < vocabulary)
    found_BV = torch.zeros_like(like_BV, dtype=torch.int32)
    found_BV.scatter_add_(1, ids_BT.clamp(0, vocabulary - 1), valid_BT.int())
    return found_BV > 0


# ------------------------------------------------------------------------ drawn


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Return the logits with −∞ below the k-th largest of each row; what equals it stays.

    Fan, Lewis and Dauphin 2018, "Hierarchical neural story generation", arXiv:1805.04833.
    """
    least_B1 = logits_BV.topk(min(k, logits_BV.shape[1]), dim=1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, OUT)


def keep_top_p(logits_BV: Tensor, p: float, *, most: int | None = None) -> Tensor:
    """Return the logits with −∞ outside the nucleus: the fewest likeliest tokens that reach p.

    A token stays when those likelier than it have less than p together; hence at least one does.
    `most` is how many can stay at most, after `keep_top_k`: then only these are put in order, which
    for large vocabularies is the cost of it all.

    Holtzman et al. 2020, "The curious case of neural text degeneration", arXiv:1904.09751.
    """
    if p >= 1:  # the sum may round to 1 early, and would cut the rarest tokens
        return logits_BV
    if most is None or most >= logits_BV.shape[1]:
        sorted_BC, order_BC = logits_BV.sort(dim=1, descending=True)
    else:
        sorted_BC, order_BC = logits_BV.topk(most, dim=1)
    share_BC = sorted_BC.softmax(1)
    above_BC = share_BC.cumsum(1) - share_BC
    out_BV = torch.ones_like(logits_BV, dtype=torch.bool).scatter(1, order_BC, above_BC >= p)
    return logits_BV.masked_fill(out_BV, OUT)


def draw(logits_BV: Tensor, keys: Sequence[int], *, step: int) -> Tensor:
    """Return one token a row, (B,) int64, with probability softmax(logits).

        min {v : Σ_{w ≤ v} p_w > u},    u uniform in [0, 1), a pure function of (key, step)

    No generator has a state: what a row gets depends neither on the rows beside it, nor on the
    device, nor on where a batch was cut.
    """
    device = logits_BV.device
    wide = torch.float32 if device.type == "mps" else torch.float64
    below_BV = logits_BV.softmax(1, dtype=wide).cumsum(1)
    total_B1 = below_BV[:, -1:]
    u_B1 = uniform(0, torch.tensor(list(keys)), step)[:, None].to(device, wide)
    # u·Σp may round to Σp itself, above which no token begins
    at_B1 = torch.minimum(u_B1 * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return (below_BV <= at_B1).sum(1)


def row_keys(prompts: Sequence[Sequence[int]], seed: int) -> list[int]:
    """Return the key of each row's draws: of the seed, its prompt, and which copy of it this is.

    A prompt thus gets the same answer alone and among others, and its copies get different ones.

    >>> a, b, again = row_keys([[1, 2], [3], [1, 2]], 0)
    >>> (row_keys([[3]], 0) == [b], a == again)
    (True, False)
    """
    seen: Counter[tuple[int, ...]] = Counter()
    keys = []
    for prompt in map(tuple, prompts):
        keys.append(derive(seed, "row", seen[prompt], *prompt))
        seen[prompt] += 1
    return keys
