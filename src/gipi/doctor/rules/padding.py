"""Padding counts: in what a row says, or in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.contest import contest
from gipi.doctor.experiment import tensors
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.late import Question, leave_open
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.sequences import (
    Padding,
    PadsFirst,
    Trimmed,
    asks_for_next,
    at_every_place,
    by_place,
    padding_of,
    sequence_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment, LossFunction
    from gipi.doctor.facts import Facts

MOVES = 0.05
"""Median standard deviations by which an output must move when padding is taken away."""
WINS, KNOWN = 0.85, 0.93
"""Share of the loss below which rows without padding must come; the second where it is known."""
FORGOTTEN = 0.05
"""Behind so little is left of a row, whatever a short training shows."""
SHARE = 0.2
"""Share of the targets that must be padding."""


def before(facts: Facts) -> Iterator[Finding]:
    """Take padding away and see whether outputs move; see whether the loss counts it."""
    padding = padding_of(facts)
    x = facts.batch[0]
    if padding is None or sequence_of(x) is not x:
        return
    if at_every_place(facts):
        yield from _in_the_loss(facts, padding)
    yield from _in_the_outputs(facts, padding)


def _in_the_outputs(facts: Facts, padding: Padding) -> Iterator[Finding]:
    x, base = facts.few, facts.base
    if base is None or base.shape[0] != len(x) or facts.tape.of({"batch_norm"}):
        return
    lengths = padding.lengths[: len(x)]
    cut = int(lengths.sort().values[len(lengths) // 2].clamp(min=1))
    rows = lengths <= cut
    places = x.shape[1]
    if cut >= places or not bool(rows.any()):
        return
    less = x[rows][:, places - cut :] if padding.front else x[rows][:, :cut]
    try:
        said = facts.shown(less)
    except (RuntimeError, ValueError, IndexError):
        return  # it takes rows of one length
    full = base[rows]
    if at_every_place(facts):
        said = by_place(said, int(rows.sum()), places=cut)
        whole = by_place(full, int(rows.sum()), places=places)
        if said is None or whole is None:
            return
        full = whole[:, places - cut :] if padding.front else whole[:, :cut]
        real = ~(padding.where[: len(x)][rows])
        real = real[:, places - cut :] if padding.front else real[:, :cut]
        said, full = said[real], full[real]
    if said.shape != full.shape:
        return
    gap = (said - full).abs().flatten(1).amax(1) / (base.std() + 1e-12)
    if float(gap.median()) <= MOVES:
        return
    kept = 1.0 if at_every_place(facts) else _kept(facts, padding, rows, cut)
    change = trimmed(padding)
    first = (Repair("padding in front of rows", pads_first(padding),
                    edit="pack_padded_sequence, or take the state at the last real token"),
             ) if not padding.front and facts.tape.of({"lstm", "gru", "rnn"}) else ()  # fmt: skip
    yield Finding(
        "padding",
        f"outputs move by {float(gap.median()):.3g} standard deviations in the median when padding "
        f"({float(padding.where.double().mean()):.0%} of all places) is taken away: it is read as "
        "if it were content"
        + (f", and behind it real tokens matter {kept:.2g} times as much as without it"
           if kept < 1 else ""),
        "mask padding in attention (key_padding_mask), leave it out of means, and take the last "
        "real token of recurrent layers",
        evidence={"moves": float(gap.median()), "pad": padding.pad,
                  "share": float(padding.where.double().mean()), "known": padding.known,
                  "words_matter": kept},
        confirmed=kept < FORGOTTEN,
        strength=EXACT / 2,
        repairs=(
            *first,
            Repair("rows without their padding", change,
                   edit="key_padding_mask=(x == pad), and a mean over real places"),
        ),
    )  # fmt: skip


def _kept(facts: Facts, padding: Padding, rows: Tensor, cut: int) -> float:
    """Return how much real tokens move outputs with the padding, over how much they do without."""
    x, base = facts.few[rows], facts.base
    assert base is not None
    real = ~padding.where[: len(rows)][rows]
    part = slice(x.shape[1] - cut, None) if padding.front else slice(0, cut)
    generator = torch.Generator().manual_seed(0)
    held = x[real]
    changed = x.clone()
    changed[real] = held[torch.randperm(len(held), generator=generator)]
    with_it = (facts.shown(changed) - base[rows]).abs().flatten(1).amax(1)
    without = (facts.shown(changed[:, part]) - facts.shown(x[:, part])).abs().flatten(1).amax(1)
    least = float(without.median())
    return float(with_it.median()) / least if least > 0 else 1.0


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little on rows without their padding; the finding stands where that is better."""
    change = finding.repairs[-1].change
    assert change is not None
    begun = False
    for adam in (False, True):
        seen = contest(facts, change, adam=adam)
        if seen is not None and seen.wins(KNOWN if finding.evidence["known"] else WINS):
            return finding.but(confirmed=True, evidence={**finding.evidence, **seen.figures})
        begun = begun or seen is None or seen.begun
    told = bool(facts.exp.declared.get("tokens"))
    if told or not begun:
        leave_open(facts, Question(finding, change))
    return finding.but(severity="hint") if told else None


def trimmed(padding: Padding) -> Change:
    """Return the change that shows the model rows without their padding."""

    def change(exp: Experiment) -> str:
        exp.model = Trimmed(exp.model, padding.pad, front=padding.front)
        return "the model sees rows without their padding"

    return change


def pads_first(padding: Padding) -> Change:
    """Return the change that puts padding in front of rows."""

    def change(exp: Experiment) -> str:
        exp.model = PadsFirst(exp.model, padding.pad)
        return "padding stands in front of rows, so that the last place is a real one"

    return change


# ---------------------------------------------------------------------- loss


def _in_the_loss(facts: Facts, padding: Padding) -> Iterator[Finding]:
    """Yield the finding where outputs at padding get a gradient and are many."""
    if facts.loss.name != "cross_entropy" or padding.front or padding.pad is None:
        return
    y, said = facts.batch[1], facts.outputs
    nothing = nothing_asked(y, facts.batch[0], padding.pad, shifted=asks_for_next(facts))
    share = float(nothing.double().mean())
    if share < SHARE or share == 1:
        return
    leaf = said.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            slope = torch.autograd.grad(facts.exp.loss(leaf, y), leaf)[0]
    except (RuntimeError, ValueError, IndexError):
        return
    parts = by_place(slope, len(y), places=y.shape[1])
    if parts is None or not bool(parts[nothing].any()):
        return
    yield Finding(
        "padding",
        f"{share:.0%} of the targets are padding (token {padding.pad}), and the loss counts them: "
        "the net is taught to say nothing, and every score looks better than it is",
        "give targets at padding the number -100, which cross-entropy leaves out",
        evidence={"share": share, "pad": padding.pad},
        confirmed=True,
        strength=EXACT / 2,
        repairs=(
            Repair("leave padding out of the loss",
                   ignoring(padding.pad, shifted=asks_for_next(facts)), proof="exact",
                   edit=f"nn.CrossEntropyLoss(ignore_index={padding.pad})"),
        ),
    )  # fmt: skip


def nothing_asked(y: Tensor, x: Any, pad: int, *, shifted: bool) -> Tensor:
    """Return (N, T) where a target is padding behind the end of a row.

    shifted  targets are the next tokens: the first pad after the last token is its end, and asked
    """
    if shifted:
        run = (y == pad).flip(1).long().cumprod(1).bool().flip(1)
        first = run & ~torch.nn.functional.pad(run[:, :-1], (1, 0))
        return run & ~first
    behind: Tensor = (x == pad).flip(1).long().cumprod(1).bool().flip(1)
    return behind & (y >= 0)


@dataclass(frozen=True)
class Ignoring:
    """A loss whose targets at padding are -100."""

    loss: LossFunction
    pad: int
    shifted: bool

    def __call__(self, said: Any, y: Any) -> Tensor:
        """Return the loss of what is real."""
        hole = nothing_asked(y, y, self.pad, shifted=self.shifted)
        value: Tensor = self.loss(said, y.masked_fill(hole, -100))
        return value


def ignoring(pad: int, *, shifted: bool) -> Change:
    """Return the change that leaves padding out of the loss."""

    def change(exp: Experiment) -> str:
        if not shifted:
            for name in ("train", "val"):
                if getattr(exp, name) is not None:
                    setattr(exp, name, _without(tensors(getattr(exp, name)), pad))
            return f"targets at padding ({pad}) are -100, in train and val"
        exp.loss = Ignoring(exp.loss, pad, shifted)
        return f"targets at padding ({pad}) are left out of the loss"

    return change


def _without(pair: tuple[Tensor, Tensor] | None, pad: int) -> tuple[Tensor, Tensor]:
    if pair is None:
        message = "the targets of a stream do not tell where padding stands"
        raise CannotRepair(message)
    X, y = pair
    return X, y.masked_fill(nothing_asked(y, X, pad, shifted=False), -100)


RULE = Rule(
    code="padding",
    title="padding counts",
    looks="short rows get worse answers than long ones; scores at every place are too good",
    why="rows are filled up to one length with a token that means nothing. A mean over it thins "
    "the row out, a state after it has forgotten the row, a loss over it rewards silence",
    do="mask it in attention and in means, take the last real token, ignore it in the loss",
    source="PyTorch documentation, nn.utils.rnn.pack_padded_sequence, CrossEntropyLoss",
    before=before,
    confirm=confirm,
    passes=160,
    causes=DYNAMICS,
)
