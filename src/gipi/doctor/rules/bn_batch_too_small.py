"""Batch norm takes its statistics from too few rows."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.data import DataLoader

from gipi.doctor.contest import contest
from gipi.doctor.copies import renewed_optimizer
from gipi.doctor.experiment import tensors
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rewire import replace_module
from gipi.doctor.rule import DYNAMICS, EXACT, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op

FEW = 8
HINT = 4
WINS = 0.9
ROWS = 16
"""Rows of a batch that is large enough."""


def before(facts: Facts) -> Iterator[Finding]:
    """Look at the rows that batch norms see, in most batches and in the last one."""
    rows, last = batch_rows(facts.exp)
    flat = [n for n, m in facts.exp.model.named_modules() if isinstance(m, nn.BatchNorm1d)]
    norms = [op for op in facts.tape.of({"batch_norm"}) if _takes_batch(op)]
    if rows == 1 and flat and not norms:  # the pass in training mode failed
        yield _finding(flat[0], f"batches have a single row: '{flat[0]}' cannot take the spread of "
                       "one value, and the run ends with an error",
                       rows=1).but(confirmed=True)  # fmt: skip
    if not norms:
        return
    if rows is None:
        rows = last = len(facts.batch[1])
    first = norms[0]
    values = first.inputs[0].numel() // (first.inputs[0].shape[1] * max(1, len(facts.batch[1])))
    if last is not None and last * max(1, values) == 1 and rows > 1:
        yield _finding(
            first.place, f"the last batch of an epoch has a single row: '{first.place}' cannot "
            "take the spread of one value, and the run ends with an error",
            rows=last,
        ).but(
            confirmed=True,
            repairs=(Repair("no last batch of one row", no_rest, proof="exact",
                            edit="drop_last=True, or a batch size that leaves more rows"),
                     Repair("norms that do not need a batch", group_norms, proof="not worse",
                            edit="nn.GroupNorm or nn.LayerNorm in place of nn.BatchNorm")),
        )  # fmt: skip
    elif rows < FEW:
        yield _finding(
            first.place, f"batch norm ('{first.place}' and {len(norms) - 1} more) takes mean and "
            f"spread from {rows} rows: every row is shifted by who happens to be beside it",
            rows=rows,
        )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with norms that do not look at other rows; the finding stands if they win.

    Of two or three rows it is worth a hint in any case.
    """
    for adam in (False, True):
        seen = contest(facts, group_norms, adam=adam)
        if seen is not None and seen.wins(WINS):
            return finding.but(confirmed=True, evidence={**finding.evidence, **seen.figures})
    return finding.but(severity="hint") if finding.evidence["rows"] < HINT else None


def _finding(place: str, message: str, *, rows: int) -> Finding:
    return Finding(
        "bn_batch_too_small", message,
        "use batches of 16 rows and more, leave the last small one out, or normalise by groups",
        where=(place,), evidence={"rows": rows}, strength=EXACT / 2,
        repairs=(
            Repair("norms that do not need a batch", group_norms,
                   edit="nn.GroupNorm or nn.LayerNorm in place of nn.BatchNorm"),
            Repair(f"batches of {ROWS} rows", larger, edit=f"batch_size={ROWS}"),
        ),
    )  # fmt: skip


def _takes_batch(op: Op) -> bool:
    training = op.given("training", at=5)
    return bool(training) and bool(op.inputs) and op.inputs[0].ndim > 1


def batch_rows(exp: Experiment) -> tuple[int | None, int | None]:
    """Return rows of a batch and of the last batch of an epoch, where they are known."""
    pair = tensors(exp.train)
    if pair is not None:
        rest = len(pair[0]) % exp.batch_size
        rows = min(exp.batch_size, len(pair[0]))
        return rows, rest or rows
    loader = exp.train
    if isinstance(loader, DataLoader) and isinstance(loader.batch_size, int):
        try:
            count = len(loader.sampler)  # type: ignore[arg-type]
        except TypeError:
            return loader.batch_size, None
        rest = 0 if loader.drop_last else count % loader.batch_size
        return min(loader.batch_size, count), rest or min(loader.batch_size, count)
    return None, None


def no_rest(exp: Experiment) -> str:
    """Leave the last, smaller batch out, or choose the nearest batch size that leaves enough."""
    pair = tensors(exp.train)
    if pair is not None:
        count = len(pair[0])
        sizes = [s for s in range(2, 2 * exp.batch_size + 2)
                 if count % s == 0 or count % s >= min(s, FEW)]  # fmt: skip
        old, exp.batch_size = exp.batch_size, min(sizes, key=lambda s: abs(s - exp.batch_size))
        return f"batch size {old} -> {exp.batch_size}: the last batch has enough rows"
    if not isinstance(exp.train, DataLoader):
        message = "the batches of a stream are not the doctor's to choose"
        raise CannotRepair(message)
    exp.train = _loader(exp.train, exp.train.batch_size, drop_last=True)
    return "drop_last=True"


def larger(exp: Experiment) -> str:
    """Take batches of more rows, and as many epochs more that as many steps are taken.

    Where a schedule counts epochs their number stays.
    """
    if exp.declared.get("small_batches"):
        message = "small batches are meant"
        raise CannotRepair(message)
    rows, _ = batch_rows(exp)
    if rows is None or rows >= ROWS:
        message = "the batches of a stream are not the doctor's to choose"
        raise CannotRepair(message)
    if tensors(exp.train) is not None:
        exp.batch_size = ROWS
    else:
        exp.train = _loader(exp.train, ROWS, drop_last=exp.train.drop_last)
    if exp.scheduler is None or exp.scheduler_every == "step":
        exp.epochs *= ROWS / rows
    return f"batch size {rows} -> {ROWS}, epochs {exp.epochs:g}"


def _loader(old: Any, size: Any, *, drop_last: bool) -> DataLoader[Any]:
    return DataLoader(
        old.dataset, batch_size=size, sampler=old.sampler, num_workers=old.num_workers,
        collate_fn=old.collate_fn, pin_memory=old.pin_memory, drop_last=drop_last,
    )  # fmt: skip


def group_norms(exp: Experiment) -> str:
    """Replace batch norms by norms over the channels of a row, scale and shift kept."""
    done = 0
    for name, module in list(exp.model.named_modules()):
        if not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) or not name:
            continue
        channels = module.num_features
        groups = 1 if isinstance(module, nn.BatchNorm1d) else gcd(channels, 8)
        new = nn.GroupNorm(groups, channels, eps=module.eps, affine=module.affine)
        if module.affine:
            new.weight, new.bias = module.weight, module.bias
        replace_module(exp.model, name, by=new.to(next(exp.model.parameters()).device))
        done += 1
    if not done:
        message = "no batch norm stands in the model as a module"
        raise CannotRepair(message)
    renewed_optimizer(exp)
    return f"{done} batch norms became group norms"


RULE = Rule(
    code="bn_batch_too_small",
    title="batch norm over too few rows",
    looks="training is noisy, and validation much worse than training; or an error at the last "
    "batch of an epoch",
    why="the mean and spread of two or three rows say little of the others: every row is shifted "
    "by its neighbours, and the running statistics fit neither",
    do="larger batches, drop_last=True, or GroupNorm / LayerNorm, which look at one row at a time",
    source="Ioffe and Szegedy 2015, arXiv:1502.03167; Wu and He 2018, arXiv:1803.08494",
    before=before,
    confirm=confirm,
    passes=160,
    causes=(*DYNAMICS, "bn_stats_mismatch"),
)
