"""What is known of rows that are sequences: padding, what is asked at a place, who sees whom.

N rows, T places, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.rewire import Around

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op

ROWS_PADDED = 0.2
"""Share of rows that end in (or begin with) the same token, from which it may be padding."""
ELSEWHERE = 0.02
LENGTHS = 3
NEXT = 0.97
ASKED = 0.3
"""Share of places that are asked; of masked language models it is less."""


@dataclass(frozen=True)
class Padding:
    """Places that hold nothing.

    where  (N, T) True at padding, of the first batch; front: it comes before the row
    pad    its token, None for vectors of zeros; known: the user or the embedding says so
    """

    where: Tensor
    pad: int | None
    front: bool
    known: bool

    @property
    def lengths(self) -> Tensor:
        """Real places of every row."""
        return (~self.where).sum(1)


def sequence_of(xb: Any) -> Tensor | None:
    """Return the tensor of tokens (N, T), or of vectors (N, T, D), among the inputs."""
    found = [xb] if isinstance(xb, Tensor) else []
    if isinstance(xb, (tuple, list)):
        found = [v for v in xb if isinstance(v, Tensor)]
    elif isinstance(xb, dict):
        found = [v for v in xb.values() if isinstance(v, Tensor)]
    for value in found:
        if value.ndim == 2 and value.dtype in (torch.int64, torch.int32) and value.shape[1] > 2:
            return value
        if value.ndim == 3 and value.is_floating_point() and value.shape[1] > 2:
            return value
    return None


def padding_of(facts: Facts) -> Padding | None:
    """Return the padding of the first batch; None where there is none that is told apart."""
    if "padding" not in facts.notes:
        facts.notes["padding"] = _padding(facts)
    found: Padding | None = facts.notes["padding"]
    return found


def _padding(facts: Facts) -> Padding | None:
    x = sequence_of(facts.batch[0])
    if x is None:
        return None
    if x.is_floating_point():
        return _told(x.abs().sum(-1) == 0, None, known=False)
    for pad in known_pads(facts):
        found = _told(x == pad, pad, known=True)
        if found is not None:
            return found
    for column in (-1, 0):
        pad = int(x[:, column].mode().values)
        found = _told(x == pad, pad, known=False)
        if found is not None:
            return found
    return None


def known_pads(facts: Facts) -> list[int]:
    """Return the tokens that the user or an embedding calls padding."""
    declared = facts.exp.declared.get("tokens") or {}
    names = ("pad", "padding")
    told = [int(v) for k, v in declared.items() if str(k).strip("<>[]").lower() in names]
    told += [
        int(m.padding_idx) for m in facts.exp.model.modules()
        if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.padding_idx is not None
    ]  # fmt: skip
    return list(dict.fromkeys(told))


def _told(same: Tensor, pad: int | None, *, known: bool) -> Padding | None:
    """Return the padding where `same` stands in runs at one end of rows, and nowhere else."""
    for front in (False, True):
        run = _runs(same, front=front)
        padded = run.any(1)
        if not bool(padded.any()) or bool(run.all(1).all()):
            continue
        if known:
            return Padding(run, pad, front, known)
        inside = float((same & ~run).sum()) / max(1, int((~run).sum()))
        lengths = len(torch.unique(run.sum(1)))
        often = float(padded.float().mean()) >= ROWS_PADDED
        if often and inside < ELSEWHERE and lengths >= LENGTHS and int(run.sum(1).max()) > 1:
            return Padding(run, pad, front, known)
    return None


def _runs(same: Tensor, *, front: bool) -> Tensor:
    """Return where `same` holds up to the end of a row (or from its beginning)."""
    line = same if front else same.flip(1)
    run = line.long().cumprod(1).bool()
    return run if front else run.flip(1)


def by_place(said: Any, rows: int, *, places: int) -> Tensor | None:
    """Return outputs as (N, T, ...) from (N, T, ...), (N, C, T) or (N T, C); None for others."""
    if not isinstance(said, Tensor) or said.ndim < 2:
        return None
    if tuple(said.shape[:2]) == (rows, places):
        return said
    if said.ndim == 3 and said.shape[0] == rows and said.shape[2] == places:
        return said.transpose(1, 2)
    if said.ndim == 2 and said.shape[0] == rows * places:
        return said.reshape(rows, places, -1)
    return None


def at_every_place(facts: Facts) -> bool:
    """Whether there is an output and a target for every place of a sequence."""
    x, y = sequence_of(facts.batch[0]), facts.batch[1]
    if x is None or not isinstance(y, Tensor) or y.ndim < 2 or y.shape[:2] != x.shape[:2]:
        return False
    return by_place(facts.outputs, len(x), places=x.shape[1]) is not None


def asks_for_next(facts: Facts) -> bool:
    """Whether the target of a place is the input of the next one, or the user calls it causal."""
    declared = facts.exp.declared.get("causal")
    return bool(declared) if declared is not None else is_asked_for_next(facts)


def is_asked_for_next(facts: Facts) -> bool:
    """Whether the target of a place is the input of the next one, whatever the user calls it."""
    x, y = sequence_of(facts.batch[0]), facts.batch[1]
    if x is None or not at_every_place(facts) or y.shape != x.shape or x.shape[1] < 3:
        return False
    one, other = y[:, :-1], x[:, 1:]
    same = float((x[:, 1:] == x[:, :-1]).double().mean())
    if same > NEXT:
        return False
    if torch.equal(x, y):
        return _last_is_not_asked(facts, x)
    if x.is_floating_point():
        return float((one == other).double().mean()) >= NEXT
    real = one >= 0
    if float(real.double().mean()) < ASKED:
        return False
    return float((one == other)[real].double().mean()) >= NEXT


def _last_is_not_asked(facts: Facts, x: Tensor) -> bool:
    """Whether the loss has no use for the outputs of the last place: it shifts by itself."""
    leaf = facts.outputs.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            slope = torch.autograd.grad(facts.exp.loss(leaf, facts.batch[1]), leaf)[0]
    except (RuntimeError, ValueError, IndexError):
        return False
    parts = by_place(slope, len(x), places=x.shape[1])
    return parts is not None and not bool(parts[:, -1].any()) and bool(parts[:, 0].any())


@dataclass(frozen=True)
class Seen:
    """Who sees whom in one attention: (N or 1, T queries, T keys), a share or True and False."""

    op: Op
    weight: Tensor
    exact: bool


def attentions(facts: Facts) -> list[Seen]:
    """Return what the masks (or weights) of self-attention on the tape let through."""
    x = sequence_of(facts.batch[0])
    if x is None:
        return []
    places, found = x.shape[1], list[Seen]()
    for op in facts.tape.of({"attention", "softmax"}):
        seen = _seen(op, places)
        if seen is not None:
            found.append(seen)
    return found


def has_attention(facts: Facts) -> bool:
    """Whether places of the input look at each other by attention."""
    x = sequence_of(facts.batch[0])
    if x is None:
        return False
    return any(
        op.kind == "attention"
        or (op.output.ndim >= 3 and op.output.shape[-1] == op.output.shape[-2] >= x.shape[1])
        for op in facts.tape.of({"attention", "softmax"})
    )


def _seen(op: Op, places: int) -> Seen | None:
    with torch.no_grad():
        if op.kind == "softmax":
            w = op.output.detach()
            if w.ndim < 3 or w.shape[-1] != places or w.shape[-2] != places:
                return None
            return Seen(op, w.flatten(1, -3).mean(1) if w.ndim > 3 else w, exact=False)
        padding, mask = op.given("key_padding_mask"), op.given("attn_mask", at=3)
        if "embed_dim_to_check" in op.named or len(op.args) > 5:
            mask = op.given("attn_mask")
        allowed: Tensor | None = None
        if isinstance(padding, Tensor) and padding.shape[-1] == places:
            allowed = (~padding if padding.dtype == torch.bool else padding > -1e4)[:, None, :]
            allowed = allowed.expand(-1, places, -1)
        if isinstance(mask, Tensor) and mask.shape[-2:] == (places, places):
            flag = mask > -1e4 if mask.is_floating_point() else mask
            if isinstance(padding, Tensor) or "key_padding_mask" in op.named:
                flag = flag if mask.is_floating_point() else ~mask  # True hides, in that function
            flag = flag.flatten(1, -3).any(1) if flag.ndim > 3 else flag
            flag = flag if flag.ndim == 3 else flag[None]
            if allowed is None or flag.shape[0] in (1, allowed.shape[0]):
                allowed = flag if allowed is None else allowed & flag
        if isinstance(mask, Tensor) and mask.ndim == 4 and mask.shape[-2] == 1:
            flag = mask > -1e4 if mask.is_floating_point() else mask
            allowed = flag[:, 0].expand(-1, places, -1) if flag.shape[-1] == places else allowed
        return None if allowed is None else Seen(op, allowed.float(), exact=True)


class Trimmed(Around):
    """A model that sees each row without its padding: rows of one length go together."""

    def __init__(self, model: nn.Module, pad: int | None, *, front: bool) -> None:
        super().__init__()
        self.model, self.pad, self.front = model, pad, front

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of rows cut to their lengths, zeros at padding where one is asked."""
        same = x == self.pad if self.pad is not None else x.abs().sum(-1) == 0
        lengths = (~_runs(same, front=self.front)).sum(1).clamp(min=1)
        places = x.shape[1]
        said, rows = [], []
        for length in lengths.unique().tolist():
            chosen = (lengths == length).nonzero()[:, 0]
            part = x[chosen]
            part = part[:, places - length :] if self.front else part[:, :length]
            out = self.model(part)
            if out.ndim > 2 and out.shape[1] == length < places:
                hole = out.new_zeros((out.shape[0], places - length, *out.shape[2:]))
                out = torch.cat([hole, out] if self.front else [out, hole], 1)
            said.append(out)
            rows.append(chosen)
        return torch.cat(said)[torch.cat(rows).argsort()]


class PadsFirst(Around):
    """A model whose rows have their padding in front, so that the last place is a real one."""

    def __init__(self, model: nn.Module, pad: int | None) -> None:
        super().__init__()
        self.model, self.pad = model, pad

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of rows that are turned until their last real place is last."""
        same = x == self.pad if self.pad is not None else x.abs().sum(-1) == 0
        run = _runs(same, front=False).sum(1)
        place = torch.arange(x.shape[1], device=x.device)[None, :] - run[:, None]
        place = place % x.shape[1]
        index = place if x.ndim == 2 else place[..., None].expand_as(x)
        said: Tensor = self.model(x.gather(1, index))
        return said
