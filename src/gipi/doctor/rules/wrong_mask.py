"""Masks of attention hide what is real and show what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import batches, call
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.keys import shows_only_pads
from gipi.doctor.rewire import Edited, OtherPads, OtherSense
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.sequences import Padding, Seen, asks_for_next, attentions, padding_of, sequence_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

SOME = 0.05
NOTHING = 1e-3
BESIDE, ROWS = 4, 4
"""Tokens beside padding that convolutions carry into it; padded rows that hold more than those."""
SENSE = (
    "check what True means: it hides in nn.MultiheadAttention and masked_fill, and shows in "
    "scaled_dot_product_attention"
)


def before(facts: Facts) -> Iterator[Finding]:
    """Look at who sees whom, then ask whether real tokens matter at all."""
    seen = attentions(facts)
    padding = padding_of(facts)
    if padding is not None:
        for one in seen:
            found = _keys(one, padding)
            if found is not None:
                yield found
                return
    if seen and asks_for_next(facts):
        for one in seen:
            if _upside_down(one.weight):
                yield _finding(
                    one.op.place,
                    f"the causal mask of '{one.op.place}' is upside down: a place sees later ones "
                    "and none before it",
                    "time",
                    advice="hide keys after the query: torch.ones(T, T).triu(1).bool() where True "
                    "hides, tril() where True shows",
                )
                return
    field = shows_only_pads(facts)
    if field is not None:
        yield _finding(
            field.op.place,
            f"the mask of '{field.op.place}' is upside down: it hides every real token of its keys "
            "and shows their padding",
            "padding",
            pad=field.pad,
            advice=SENSE,
        )
        return
    if padding is not None and facts.base is not None:
        for found in _no_token_matters(facts, padding):
            yield found
            return
        yield from _only_beside_padding(facts, padding)


def _keys(one: Seen, padding: Padding) -> Finding | None:
    """Return the finding where an attention sees padding alone, or does not see real tokens."""
    weight = torch.nan_to_num(one.weight)
    rows = padding.where.any(1) & ~padding.where.all(1)
    if weight.shape[0] not in (1, len(rows)) or not bool(rows.any()):
        return None
    weight = weight.expand(len(rows), -1, -1)[rows]
    pad = padding.where[rows][:, None, :].to(weight)
    shown_pads, shown_real = (weight * pad).sum(-1), (weight * (1 - pad)).sum(-1)
    real_queries = ~padding.where[rows]
    pads, real = shown_pads[real_queries].mean(), shown_real[real_queries].mean()
    if float(pads) > NOTHING and float(real) <= NOTHING:
        return _finding(
            one.op.place,
            f"the mask of '{one.op.place}' is upside down: real tokens see padding and nothing "
            "else",
            "padding",
            pad=padding.pad,
            advice=SENSE,
        )
    hidden = float(((weight == 0).all(1) & (pad[:, 0] == 0)).sum() / (pad[:, 0] == 0).sum())
    if one.exact and hidden > SOME and not _triangle(weight):
        return _finding(
            one.op.place,
            f"the mask of '{one.op.place}' hides {hidden:.0%} of the real tokens from everyone",
            advice="make the mask from the token that is really used for padding",
        )
    return None


def _triangle(weight: Tensor) -> bool:
    return bool((weight.triu(1) == 0).all())


def _upside_down(weight: Tensor) -> bool:
    """Whether no place sees an earlier one and most see a later one."""
    weight = torch.nan_to_num(weight)
    places = weight.shape[-1]
    earlier, later = weight.tril(-1).abs().sum(-1), weight.triu(1).sum(-1)
    return (
        places > 2 and float(earlier[:, 1:].max()) <= NOTHING
        and float((later[:, :-1] > NOTHING).double().mean()) > 0.9
    )  # fmt: skip


def _no_token_matters(facts: Facts, padding: Padding) -> Iterator[Finding]:
    """Change every real token: where outputs stand still, the mask keeps padding alone."""
    x, base = facts.few, facts.base
    if not isinstance(x, Tensor) or sequence_of(x) is not x or x.is_floating_point():
        return
    if facts.tape.of({"lstm", "gru", "rnn"}):
        return  # a state that has forgotten the row behind much padding: that is padding
    assert base is not None
    where = padding.where[: len(x)]
    real = x[~where]
    rows = where.any(1)
    if not len(real) or not bool(rows.any()) or base.shape[0] != len(x):
        return
    generator = torch.Generator().manual_seed(0)
    other = real[torch.randint(len(real), (int((~where).sum()),), generator=generator)]
    changed = x.clone()
    changed[~where] = other
    if torch.equal(changed, x):
        return
    try:
        said = facts.shown(changed)
    except Exception:  # noqa: BLE001  columns of ids of their own: one of another is none here
        return
    if not isinstance(said, Tensor) or said.shape != base.shape:
        return
    if facts.differ(said[rows], base[rows]) > NOTHING:
        return
    if facts.differ(base, base.flip(0)) == 0:  # a net that says the same of everything, or
        full = torch.where(where, real[torch.arange(x.numel()).reshape(x.shape) % len(real)], x)
        if facts.differ(facts.shown(full), base) <= NOTHING:  # rows that all have padding
            return
    yield _finding(
        "", "no real token of a padded row changes its output: what is pooled or kept is padding",
        pad=padding.pad,
        advice="weight places by 1 where they are real and by 0 where they are padding",
    )  # fmt: skip


def _only_beside_padding(facts: Facts, padding: Padding) -> Iterator[Finding]:
    """Change what is far from padding at the end: nothing moves, but does with more padding.

    Convolutions carry the last tokens into the padding behind them, so that some real tokens matter
    though padding alone is pooled. A net that keeps the last token rightly says the same however
    much padding follows.
    """
    x, base, pad = facts.few, facts.base, padding.pad
    if not isinstance(x, Tensor) or sequence_of(x) is not x or x.is_floating_point():
        return
    if pad is None or padding.front or not padding.known or facts.tape.of({"lstm", "gru", "rnn"}):
        return
    assert base is not None
    where = padding.where[: len(x)]
    far = torch.zeros_like(where)
    far[:, :-BESIDE] = ~where[:, BESIDE:]  # padding is a run at the end
    rows = where[:, -1] & far.any(1)
    if int(rows.sum()) < ROWS or base.shape[0] != len(x):
        return
    real = x[~where]
    changed = x.clone()
    generator = torch.Generator().manual_seed(0)
    changed[far] = real[torch.randint(len(real), (int(far.sum()),), generator=generator)]
    try:
        said = facts.shown(changed)
        if said.shape != base.shape or facts.differ(said[rows], base[rows]) > NOTHING:
            return
        more = torch.full_like(x[:, :BESIDE], pad)
        # the first padding takes the end of the row, which convolutions see, away from all tokens
        one, two = (facts.shown(torch.cat([x, *[more] * n], 1)) for n in (1, 2))
    except Exception:  # noqa: BLE001  ids of columns, or rows of one length
        return
    if not one.shape == two.shape == base.shape or facts.differ(one[rows], two[rows]) <= NOTHING:
        return
    yield _finding(
        "", "no real token of a padded row changes its output but those beside the padding, and "
        "more padding does: what is pooled or kept is padding",
        pad=pad,
        advice="weight places by 1 where they are real and by 0 where they are padding",
    )  # fmt: skip


def _finding(
    place: str, message: str, which: str = "", *, advice: str, pad: int | None = None
) -> Finding:
    """Return the finding with what may turn the mask: in attention, or where it is made."""
    repairs = []
    if which:
        repairs.append(
            Repair("the mask in its other sense", turned(which), edit=f"~mask at '{place}'")
        )
    if pad is not None:
        repairs.append(
            Repair("the mask in its other sense wherever it is used", made_right(pad),
                   edit=f"real = tokens != {pad}; pads = tokens == {pad}")
        )  # fmt: skip
    told = Repair("another mask", None, mode="advise", edit=advice)
    return Finding(
        "wrong_mask", message, advice,
        where=(place,) if place else (), confirmed=True, strength=2 * EXACT,
        repairs=tuple(repairs) or (told,),
    )  # fmt: skip


def turned(which: str) -> Change:
    """Return the change that takes masks of attention in the other sense."""

    def change(exp: Experiment) -> str:
        exp.model = Edited(exp.model, OtherSense(which))
        return "masks of attention are taken in the other sense"

    return change


def made_right(pad: int) -> Change:
    """Return the change that takes what tells padding from tokens in the other sense.

    One mask often serves attention and the mean behind it. Raises `CannotRepair` where the model
    compares nothing with padding.
    """

    def change(exp: Experiment) -> str:
        twin = Edited(exp.model, OtherPads(pad))
        with peeking(exp, seed=True), torch.no_grad():
            x = next(batches(exp, 0))[0]
            exp.model.eval()
            try:
                before, after = call(exp.model, x), call(twin, x)
            except (RuntimeError, ValueError, IndexError) as error:
                message = f"the model needs what tells padding elsewhere too ({error})"
                raise CannotRepair(message) from error
        if isinstance(before, Tensor) and torch.equal(before, after):
            message = f"the model makes no mask of tokens that are {pad}"
            raise CannotRepair(message)
        exp.model = twin
        return "what tells padding from tokens is taken in the other sense"

    return change


RULE = Rule(
    code="wrong_mask",
    title="a mask hides what is real",
    looks="the loss hardly falls: answers do not depend on the words",
    why="True means hidden in one function and shown in the next. A mask in the wrong sense leaves "
    "attention with padding, or with the future alone",
    do="change a real token and see that the output moves; add padding and see that it does not",
    source="PyTorch documentation, nn.MultiheadAttention (key_padding_mask, attn_mask)",
    before=before,
    causes=(*DYNAMICS, "causal_leak", "padding", "missing_position"),
)
