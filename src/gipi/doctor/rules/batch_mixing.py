"""An output depends on other rows of its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import batches, call, rows_of, tensors
from gipi.doctor.facts import FEW, first_rows
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rewire import Edited
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.seeded import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.rewire import Call

ADVICE = (
    "let every operation run over the dimensions of a row: look at reshape, permute, softmax(dim), "
    "mean(0) and batch_first"
)
OVER_TIME = ("lstm", "gru", "rnn", "attention")
MOVES = 1e-4
"""Standard deviations by which an output must move when another row is changed."""


def before(facts: Facts) -> Iterator[Finding]:
    """Change one row of a batch and see whether the outputs of the others move.

    The first, then the last: where a reshape has mixed rows and places, what was said early on may
    be forgotten at the end.
    """
    base, few = facts.base, facts.few
    count = rows_of(few)
    if base is None or count < 3 or base.shape[0] != count or not rows_come_first(facts):
        return
    if any(op.kind == "batch_norm" and _own_statistics(facts, op.module) for op in facts.tape.ops):
        return  # statistics of the batch, in use as well: that is what was asked for
    others, row = 0.0, 0
    for row in (0, count - 1):
        changed = with_other_row(few, row)
        if changed is None:
            return
        said = facts.shown(changed)
        if not isinstance(said, Tensor) or said.shape != base.shape:
            return
        keep = torch.arange(count, device=base.device) != row
        others = facts.differ(said[keep], base[keep])
        if others > MOVES:
            break
    if others <= MOVES:
        return
    if _time_first(facts, base):
        return
    where, edit = suspects(facts)
    yield Finding(
        "batch_mixing",
        f"when row {row} of a batch is changed, outputs of other rows move by {others:.3g} "
        "standard deviations: a row is judged by its neighbours"
        + (f"; {', '.join(where[:3])} runs over the batch" if where else ""),
        ADVICE,
        where=where,
        evidence={"moves": others},
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair("batch first", batch_first, proof="not worse", edit=edit or "batch_first=True"),
            Repair("softmax over the last dimension", softmax_last, proof="not worse",
                   edit=edit or "softmax(dim=-1)"),
        ) if where else (Repair("rows apart", None, mode="advise", edit=ADVICE),),
    )  # fmt: skip


def rows_come_first(facts: Facts) -> bool:
    """Whether the data say that the first dimension is that of rows."""
    train, y = facts.exp.train, facts.batch[1]
    if tensors(train) is not None:
        return True
    if isinstance(train, DataLoader) and isinstance(train.batch_size, int):
        return rows_of(facts.batch[0]) in (train.batch_size, 512)
    return isinstance(y, Tensor) and y.ndim == 1 and len(y) == rows_of(facts.batch[0])


def with_other_row(xb: Any, row: int = 0) -> Any:
    """Return the inputs with one row replaced by one that differs; None where none does."""
    if isinstance(xb, Tensor):
        apart = (xb != xb[row : row + 1]).reshape(len(xb), -1).any(1).nonzero()
        if not len(apart):
            return None
        changed = xb.clone()
        changed[row] = xb[int(apart[0])]
        if xb.is_floating_point():  # but codes: none is four times as much
            changed[row] *= torch.where((xb == xb.round()).all(0), 1, 4)
        return changed
    keys = list(xb) if isinstance(xb, dict) else range(len(xb))
    parts = {k: with_other_row(xb[k], row) if isinstance(xb[k], Tensor) else None for k in keys}
    if all(v is None for v in parts.values()):
        return None
    full = {k: xb[k] if v is None else v for k, v in parts.items()}
    return full if isinstance(xb, dict) else type(xb)(full.values())


def _time_first(facts: Facts, base: Tensor) -> bool:
    """Whether the second dimension is that of rows: nothing mixes there, in a stream of batches."""
    if tensors(facts.exp.train) is not None or isinstance(facts.exp.train, DataLoader):
        return False
    x = facts.few
    if not isinstance(x, Tensor) or x.ndim < 2 or base.ndim < 2 or x.shape[1] < 2:
        return False
    changed = x.clone()
    changed[:, 0] = x[:, 1]
    said = facts.shown(changed)
    return said.shape == base.shape and facts.differ(said[:, 1:], base[:, 1:]) <= MOVES


def _own_statistics(facts: Facts, module: str) -> bool:
    owner = facts.exp.model.get_submodule(module)
    return getattr(owner, "track_running_stats", True) is False


def suspects(facts: Facts) -> tuple[tuple[str, ...], str]:
    """Return names of what is known to run over the batch, and the edit that belongs to it."""
    count = len(facts.batch[1])
    turned = {op.module for op in facts.tape.ops if op.kind in OVER_TIME
              and op.inputs[0].ndim == 3 and op.inputs[0].shape[1] == count
              and op.inputs[0].shape[0] != count}  # fmt: skip
    names = [n for n, m in facts.exp.model.named_modules() if _sideways(m) and n not in turned]
    if names:
        return tuple(names), f"batch_first=True in '{names[0]}'"
    for op in facts.tape.of({"softmax"}):
        dim = op.given("dim", at=1)
        if isinstance(dim, int) and dim % op.output.ndim == 0 and op.output.shape[0] == count > 1:
            return (op.place,), f"softmax(dim=-1) in '{op.module or 'forward'}', not dim={dim}"
    return (), ""


def _sideways(module: nn.Module) -> bool:
    kinds = (nn.RNNBase, nn.MultiheadAttention)
    return isinstance(module, kinds) and not module.batch_first


def batch_first(exp: Experiment) -> str:
    """Let recurrent and attention layers take rows first, where that keeps rows apart."""
    names = [n for n, m in exp.model.named_modules() if _sideways(m)]
    if not names:
        return softmax_last(exp)
    old = _apart(exp, exp.model)
    for name in names:
        module: Any = exp.model.get_submodule(name)
        module.batch_first = True
    if not _apart(exp, exp.model, like=old):
        message = "with batch_first=True rows still mix, or outputs have another shape"
        raise CannotRepair(message)
    return f"batch_first=True in {', '.join(names)}"


class LastSoftmax:
    """A softmax over rows runs over the last dimension instead."""

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows

    def __call__(self, call: Call) -> Any:
        """Return the result of the call, edited or not."""
        func, args, named = call.func, call.args, call.named
        if call.kind == "softmax" and args[0].ndim > 1 and args[0].shape[-1] > 1:
            dim = named.get("dim", args[1] if len(args) > 1 else None)
            if dim in (0, -args[0].ndim):
                more = {k: v for k, v in named.items() if k != "dim"}
                return func(args[0], *(() if "dim" in named else (-1,)), *args[2:],
                            **({"dim": -1} if "dim" in named else {}), **more)  # fmt: skip
        return call.result()


def softmax_last(exp: Experiment) -> str:
    """Let a softmax over rows run over the last dimension, where that keeps rows apart."""
    old = _apart(exp, exp.model)
    modules = [(n, m) for n, m in exp.model.named_modules()
               if isinstance(m, nn.Softmax) and m.dim == 0]  # fmt: skip
    for _, module in modules:
        module.dim = -1
    if modules and _apart(exp, exp.model, like=old):
        return f"softmax over the last dimension in {modules[0][0]}"
    edited = Edited(exp.model, LastSoftmax())
    if not _apart(exp, edited, like=old):
        message = "with softmax over the last dimension rows still mix"
        raise CannotRepair(message)
    exp.model = edited
    return "softmax over rows became softmax over the last dimension"


def _apart(exp: Experiment, model: nn.Module, *, like: Any = None) -> Any:
    """Return the outputs of a few rows where rows do not see each other (or as they are).

    The first row is changed, then the last: what mixes may hide either.
    """
    with seeded(exp):
        xb = first_rows(next(iter(batches(exp, 0)))[0], FEW)
    last = rows_of(xb) - 1
    with peeking(exp), torch.no_grad():
        model.eval()
        try:
            one = call(model, xb)
            if like is None:
                return one
            others = {row: call(model, with_other_row(xb, row)) for row in (0, last)}
        except (RuntimeError, ValueError, IndexError):
            return None if like is None else False
        finally:
            model.train()
    if one.shape != like.shape:
        return False
    most = MOVES * (float(one.std()) + 1e-12)
    return all(float((one - other)[torch.arange(len(one)) != row].abs().max()) <= most
               for row, other in others.items())  # fmt: skip


RULE = Rule(
    code="batch_mixing",
    title="rows of a batch see each other",
    looks="training works, but a row's answer changes with its neighbours, and single rows fail",
    why="a batch is a convenience: which rows come together is chance. A reshape that mixes "
    "dimensions, a softmax over rows or a layer that takes batch for time makes answers depend on "
    "it",
    do="find the operation that runs over the first dimension; give recurrent and attention layers "
    "batch_first=True",
    source="Karpathy 2019, A Recipe for Training Neural Networks (use backprop to chart "
    "dependencies)",
    before=before,
    causes=(*DYNAMICS, "causal_leak", "missing_position", "padding", "wrong_mask",
            "double_softmax", "bn_stats_mismatch", "eval_in_train_mode"),
)  # fmt: skip
