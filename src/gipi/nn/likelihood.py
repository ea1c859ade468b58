"""How likely a model finds a text: token by token, over windows, and as one of several endings.

B rows, T tokens, V of the vocabulary, N tokens of an ending.

    log p(x) = Σ_t log p(x_t | x_<t)

A text longer than the model's context is read in windows that overlap: each token is scored once,
in the first window that holds it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ConfigError, NonFiniteError
from gipi.nn.stepper import padded, refuse_empty

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from gipi.nn.stepper import Stepper

LOGITS = 1 << 25  # numbers of the (B, T, V) logits held at once: 128 MiB in fp32
PIECE = 1024  # tokens read at once of a text that is longer, where a model knows no context
ROWS = 32  # stems read at once


@dataclass(frozen=True)
class Window:
    """A stretch of a text that is read at once: tokens begin to end, scored from `first` on."""

    begin: int
    first: int
    end: int


def windows(length: int, *, context: int, stride: int) -> list[Window]:
    """Return the windows over a text of `length` tokens; token 0 has nothing before it.

    Windows begin every `stride` tokens. The first scores all its tokens, each further one those
    that are new, after at least `context` − `stride` that were scored before.

    >>> [(w.begin, w.first, w.end) for w in windows(10, context=6, stride=3)]
    [(0, 1, 6), (3, 6, 9), (6, 9, 10)]

    Raises `ConfigError` where the stride leaves a token without one before it.
    """
    if context < 2:
        raise ConfigError(f"a context of {context}", "at least 2: a token and one before it",
                          "give the length of text that the model was trained on")  # fmt: skip
    if not 1 <= stride < context:
        raise ConfigError(f"stride={stride} with a context of {context}",
                          f"a stride from 1 to {context - 1}",
                          f"give stride={context // 2}")  # fmt: skip
    found = [Window(0, 1, min(context, length))] if length > 1 else []
    while found and found[-1].end < length:
        begin = found[-1].begin + stride
        found.append(Window(begin, found[-1].end, min(begin + context, length)))
    return found


@torch.inference_mode()
def log_likelihoods(
    model: Stepper,
    texts: Sequence[Sequence[int]],
    *,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
) -> list[Tensor]:
    """Return log p(x_t | before), one (T − 1,) float32 tensor a text, on the processor.

    model       one that goes on from a text
    texts       ids; a text of one token has no score
    context     the most tokens of a window; None: what the model knows, or all of each text, which
                is then read on piece by piece
    stride      new tokens of each window after the first; None: half a context
    batch_size  windows at once; None: by the size of the logits

    Raises `DataError` for a text without a token, `NonFiniteError` for scores that are no numbers.
    """
    refuse_empty(texts, "text")
    out = [torch.empty(len(text) - 1) for text in texts]
    bound = context or model.context
    rows_left = [row for row, text in enumerate(texts) if bound or len(text) <= PIECE]
    for row in set(range(len(texts))) - set(rows_left):
        out[row] = _in_pieces(model, texts[row])
    if context is None:
        context = model.context or max([2, *(len(texts[row]) for row in rows_left)])
    stride = max(context // 2, 1) if stride is None else stride
    todo = [
        (row, window)
        for row in rows_left
        for window in windows(len(texts[row]), context=context, stride=stride)
    ]
    todo.sort(key=lambda item: item[1].begin - item[1].end)  # equal lengths need no padding
    at, vocabulary = 0, 0
    while at < len(todo):
        _, longest = todo[at]
        # The first window is read alone: it tells how wide the logits are.
        rows = batch_size or (
            max(1, LOGITS // (vocabulary * (longest.end - longest.begin))) if vocabulary else 1
        )
        batch, at = todo[at : at + rows], at + rows
        cuts = [texts[row][w.begin : w.end] for row, w in batch]
        logits_BTV = model.read(cuts)
        ids_BT, _ = padded(cuts, left=False, device=logits_BTV.device)
        vocabulary = logits_BTV.shape[2]
        log_p_BT = chosen_log_p(logits_BTV[:, :-1], ids_BT[:, 1:]).cpu()  # sync
        for (row, w), log_p_T in zip(batch, log_p_BT, strict=True):
            here = slice(w.first - w.begin - 1, w.end - w.begin - 1)
            out[row][w.first - 1 : w.end - 1] = log_p_T[here]
    _refuse_spoilt(out, "text")
    return out


def _in_pieces(model: Stepper, text: Sequence[int]) -> Tensor:
    """Return log p(x_t | before), (T − 1,), of a text that is read on from a carried state."""
    logits_1V, state = model.start([text[:1]], len(text) - 1)
    before_11V, found = logits_1V[:, None], []
    for start in range(1, len(text), PIECE):
        ids_1N, _ = padded([text[start : start + PIECE]], left=False, device=logits_1V.device)
        later_1NV, state = model.step(ids_1N, state)
        log_p_11 = chosen_log_p(before_11V, ids_1N[:, :1])
        log_p_1N = chosen_log_p(later_1NV[:, :-1], ids_1N[:, 1:])
        found += [log_p_11[0].cpu(), log_p_1N[0].cpu()]  # sync
        before_11V = later_1NV[:, -1:]
    return torch.cat(found)


def chosen_log_p(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Return l_x − log Σ_v exp l_v, the log-probability (B, T) float32 of the tokens `ids_BT`."""
    wide_BTV = logits_BTV.float()
    return wide_BTV.gather(2, ids_BT[:, :, None])[:, :, 0] - wide_BTV.logsumexp(2)


# ------------------------------------------------------------------------ endings


@torch.inference_mode()
def ending_log_likelihoods(
    model: Stepper,
    stems: Sequence[Sequence[int]],
    endings: Sequence[Sequence[Sequence[int]]],
    *,
    shared: Sequence[int] = (),
    batch_size: int = ROWS,
) -> list[list[Tensor]]:
    """Return log p(ending token | shared, stem, tokens before), (N,) float32, [stem][ending].

    stems    what differs before the endings; for an encoder-decoder the sources
    endings  of each stem, one or more
    shared   what all stems begin with, such as a few solved examples; read once for all of them

    A stem is read once for all its endings. With something shared, stems of one length are read
    together; then a stem may be empty.

    Raises `ConfigError` for unequal numbers, `DataError` for an empty stem or ending,
    `NonFiniteError` for scores that are no numbers.
    """
    if len(stems) != len(endings):
        raise ConfigError(f"{len(stems)} stems and {len(endings)} lists of endings",
                          "one list of endings a stem", "give as many of each")  # fmt: skip
    for row, several in enumerate(endings):
        refuse_empty(several, f"of the endings of stem {row}, number")
    out: list[list[Tensor]] = [[] for _ in stems]
    if shared:
        room = max(map(len, stems), default=0) + _longest(endings)
        first_1V, kept = model.start([shared], room)
    order = sorted(range(len(stems)), key=lambda row: len(stems[row]))
    for batch in _batches(order, [len(stem) for stem in stems], batch_size, equal=bool(shared)):
        mine = [stems[row] for row in batch]
        if shared:
            logits_BV, state = _go_on(model, first_1V, kept, mine)
        else:
            logits_BV, state = model.start(mine, _longest([endings[row] for row in batch]))
        found = _endings(model, logits_BV, state, [endings[row] for row in batch])
        for row, scores in zip(batch, found, strict=True):
            out[row] = scores
    _refuse_spoilt([torch.cat(scores) for scores in out if scores], "stem")
    return out


def _go_on(
    model: Stepper, first_1V: Tensor, kept: Any, stems: list[Sequence[int]]
) -> tuple[Tensor, Any]:
    """Return the logits after the stems and their state, from the state of what they share."""
    everywhere = torch.zeros(len(stems), dtype=torch.int64, device=first_1V.device)
    # A state may change in place, and the next stems begin at this one too.
    state = model.reorder(copy.deepcopy(kept), everywhere)
    if not len(stems[0]):
        return first_1V[everywhere], state
    tokens_BN, _ = padded(stems, left=False, device=first_1V.device)
    logits_BNV, state = model.step(tokens_BN, state)
    return logits_BNV[:, -1], state


def _endings(
    model: Stepper, logits_BV: Tensor, state: Any, endings: list[Sequence[Sequence[int]]]
) -> list[list[Tensor]]:
    """Return the scores of each row's endings, which are read side by side, many at a time."""
    flat = [(row, ending) for row, several in enumerate(endings) for ending in several]
    most = max(1, LOGITS // (logits_BV.shape[1] * max(_longest(endings), 1)))
    out: list[list[Tensor]] = [[] for _ in endings]
    for start in range(0, len(flat), most):
        part = flat[start : start + most]
        index = torch.tensor([row for row, _ in part], device=logits_BV.device)
        ids_MN, _ = padded([ending for _, ending in part], left=False, device=logits_BV.device)
        log_p_MN = chosen_log_p(logits_BV[index][:, None], ids_MN[:, :1])
        if ids_MN.shape[1] > 1:
            # A state may change in place, and what comes after this part begins at this one too.
            own = state if start + most >= len(flat) else copy.deepcopy(state)
            # What stands behind a short ending is read as if it were real; nothing real sees it.
            later_MNV, _ = model.step(ids_MN[:, :-1], model.reorder(own, index))
            log_p_MN = torch.cat([log_p_MN, chosen_log_p(later_MNV, ids_MN[:, 1:])], 1)
        for (row, ending), log_p_N in zip(part, log_p_MN.cpu(), strict=True):  # sync
            out[row].append(log_p_N[: len(ending)])
    return out


def _longest(endings: Sequence[Sequence[Sequence[int]]]) -> int:
    return max((len(ending) for several in endings for ending in several), default=0)


def _batches(
    order: list[int], lengths: list[int], most: int, *, equal: bool
) -> Iterator[list[int]]:
    """Yield rows in this order, at most so many at once, of one length where asked."""
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) == most or (equal and lengths[row] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


# ------------------------------------------------------------------------ errors


def _refuse_spoilt(scores: Sequence[Tensor], what: str) -> None:
    """Refuse NaN; −∞ stays, it is the score of what a model holds to be impossible."""
    for row, log_p_T in enumerate(scores):
        if log_p_T.isnan().any():
            raise NonFiniteError(
                f"the score of {what} {row} is not a number", "finite logits",
                "the weights are damaged, or overflow in this precision: score in fp32",
            )  # fmt: skip
