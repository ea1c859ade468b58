"""A column tells the target by itself, far better than all others together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.codes import table_of
from gipi.doctor.edits import put_in_front
from gipi.doctor.experiment import outputs
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.leaks import SOMETHING, Leak, bent, leak_of_several, leak_of_words
from gipi.doctor.named import called
from gipi.doctor.rule import Rule
from gipi.doctor.shallow import ask_ridge, ridge
from gipi.doctor.sheet import cpu, sheet
from gipi.doctor.telling import (
    FLAG,
    WRONG,
    error,
    filled,
    marks,
    most_wrong,
    numbered,
    parts,
    told_by_labels,
    told_by_one,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment

LEAST = 60
SURE = 0.99
"""Explained share from which on one column is the target under another name."""
TIMES, TIMES_FLAG = 5.0, 10.0
"""Times as much as by the column that must be left unexplained by all others together."""
NEXT = 0.85
REST, COPY = 0.9, 0.999
"""What all others may explain together, unless the column is a copy of the class."""
EASY = 0.75
"""The same where each class has a stretch of the column to itself: of an easy task one column may
part the classes, and others nearly so."""
MOST = 5000
SHOWN = 8
MOST_LEAKS = 4
"""Times as many columns as kinds of them that may tell the target."""
SAME = 1e-6


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where a column is the target, or tells it as no other can."""
    y, table = facts.y, _table(facts)
    if facts.inputs == "tokens" and facts.kind in ("classes", "binary"):
        yield from _in_words(facts)
    if table is None or y is None or facts.kind not in ("classes", "binary", "numbers"):
        return
    X, coded = table
    if len(X) < LEAST:
        return
    names = called(facts.exp, X.shape[1 if X.ndim == 2 else -1])
    held = X is facts.X and X.ndim == 2
    same = _same(cpu(X), cpu(y)) if facts.kind == "numbers" else []
    found = _told(facts, X, coded, same)
    leaks = same + (found.leaks if found is not None else [])
    if not leaks:
        if X is facts.X:
            yield from _of_several(facts, X, names)
        return
    share = (1.0, 0.0, 0.0) if same or found is None else (found.best, found.following, found.rest)
    where = [_name(names, X, j) for j in (leaks if X.ndim == 2 else leaks[:8])]
    told = _finding(where, leaks if held else [], *share, table=X.ndim == 2, itself=bool(same))
    if found is not None and found.numbers:
        told = told.but(message=(
            f"{', '.join(where)} seems to number the rows of a file that was sorted by class: it "
            f"alone tells {found.best:.1%} of the classes, all others together explain "
            f"{found.rest:.1%}"))  # fmt: skip
    if same or found is None or found.wrong is None:
        yield told
        return
    sure = found.wrong <= WRONG and not found.spread
    yield told.but(severity="problem" if sure else "hint", confirmed=sure,
                   evidence={**told.evidence, "most_wrong": found.wrong})  # fmt: skip


def _of_several(facts: Facts, X: Tensor, names: list[str]) -> Iterator[Finding]:
    """Yield what no column gives away by itself."""
    found = leak_of_several(facts, X)
    late = found is not None and (X.ndim != 3 or all(_is_late(X, j) for j in found.columns))
    if found is None or not late or not _is_read(facts, list(found.columns)):
        return
    yield _leaking(found, [_name(names, X, j) for j in found.columns])


def _in_words(facts: Facts) -> Iterator[Finding]:
    found = leak_of_words(facts)
    if found is not None and len(facts.batch[0]):
        yield _leaking(found[0], [f"word {i}" for i in found[1]])


def _leaking(found: Leak, where: list[str]) -> Finding:
    shown = ", ".join([*where[:SHOWN], *["..."] * (len(where) > SHOWN)])
    return Finding(
        "target_leak",
        f"{shown}: {found.how}; it may be made of the target, or known only after it",
        "ask when and how it comes about; take it out if it is not known in time",
        severity="problem" if found.sure else "hint",
        where=tuple(where),
        evidence={"share": found.share, "rest": found.rest},
        confirmed=found.sure,
        strength=10.0,
        repairs=(Repair("take the target out of its inputs", None, mode="advise",
                        edit=f"drop {shown} from the inputs"),),
    )  # fmt: skip


@dataclass(frozen=True)
class _Told:
    """Columns that tell the target, and what the next one and all others explain of it.

    wrong   of columns that mark classes: the most rows that they mark wrongly, as a share; None of
            copies of the target
    spread  whether they do by stretches of values alone, as what is measured also does where a task
            is easy: a scale that tells coins apart is no leak
    numbers whether they are numbers of rows, in the order of the classes
    """

    leaks: list[int]
    best: float
    following: float
    rest: float
    wrong: float | None = None
    spread: bool = False
    numbers: bool = False


def _told(facts: Facts, X: Tensor, coded: tuple[int, ...], same: list[int]) -> _Told | None:
    """Return the columns that tell the target as no other can, those that are it left out."""
    train = sheet(facts)
    if (
        train is None
        or not 3 <= X[0].numel() <= MOST
        or (train.label is not None and train.Y.shape[1] < 2)
    ):
        return None
    x = torch.nan_to_num(cpu(X)[train.rows].double()).flatten(1)
    single = told_by_one(x, train.Y.double(), train.label)
    marked = marks(x, train.Y.shape[1]) if train.label is not None else torch.zeros_like(single) > 0
    read, counted, far = x, torch.zeros_like(single), torch.zeros_like(single)
    if train.label is not None and X.ndim == 2:
        read, single = filled(x, train.Y.double(), single, train.label)
        far = parts(read, train.Y.double(), train.label, single)
        if not facts.exp.declared.get("time_ordered"):
            counted = numbered(x, train.Y.double(), train.label)
            single = torch.maximum(single, counted)
    for j in coded:
        single[j] = told_by_labels(x[:, j], train.Y.double())
    single[same] = 0.0
    exact, single = single, torch.maximum(single, far)
    low = marked | (far > 0) | (X.ndim == 2 and train.label is None)
    telling = (single >= torch.where(low, FLAG, SURE)).nonzero().flatten().tolist()
    leaks = [j for j in telling if X.ndim != 3 or _is_late(X, j)]
    most = max(1, x.shape[1] // 8)
    if not leaks or len(leaks) > MOST_LEAKS * most or _tales(x, leaks) > most:
        return None
    if not _is_read(facts, leaks):
        return None
    others = torch.ones(x.shape[1], dtype=torch.bool)
    others[telling + same] = False  # what stands at early places as well is no other
    if not others.any():
        return None
    left = x[:, others]
    left = (left - left.mean(0)) / left.std(0).clamp_min(1e-12)
    best, following = float(single[leaks].max()), float(single[others].max())
    copy = float(exact[leaks].max())
    rest = max(0.0, ask_ridge(ridge(bent(left)), train.Y)[0].score)
    copied = train.label is not None and copy >= COPY
    times = TIMES if copy >= SURE else TIMES_FLAG
    if copy < SURE and train.label is None:
        return _Told(leaks, best, following, rest, wrong=0.0, spread=True) if (
            following <= NEXT and SOMETHING < rest <= REST and 1 - rest >= times * (1 - best)
        ) else None  # fmt: skip
    most_rest = EASY if copy < SURE and bool((far[leaks] > 0).all()) else REST
    if following > NEXT or (rest > most_rest and not copied) or (1 - rest) < times * (1 - best):
        return None
    told = _Told(leaks, best, following, rest, numbers=bool((counted[leaks] >= SURE).all()))
    if copy >= SURE or train.label is None:
        return told
    wrong = (
        error(read[:, j], train.label) if far[j] > 0 else most_wrong(x[:, j], train.label)
        for j in leaks
    )
    spread = not bool(marks(read[:, leaks], train.Y.shape[1]).any())
    return replace(told, wrong=min(wrong), spread=spread)


def _tales(x_nd: Tensor, leaks: list[int]) -> int:
    """Return of how many kinds columns are: a code and its name, a total and it rounded, are one.

    Easy data have many good columns, each with an error of its own.
    """
    firsts: list[Tensor] = []
    for j in leaks:
        column = x_nd[:, j]
        if not any(_tell_each_other(first, column) for first in firsts):
            firsts.append(column)
    return len(firsts)


def _tell_each_other(a: Tensor, b: Tensor) -> bool:
    """Whether two columns explain each other, as quantities or as labels: R² > `SURE`."""
    both = torch.stack([a, b], 1)
    both = (both - both.mean(0)) / both.std(0, correction=0).clamp_min(1e-12)
    if float((both[:, 0] * both[:, 1]).mean()) ** 2 > SURE:
        return True
    return min(told_by_labels(a, both[:, 1:]), told_by_labels(b, both[:, :1])) > SURE


def _table(facts: Facts) -> tuple[Tensor, tuple[int, ...]] | None:
    """Return inputs as one tensor and the columns of it that are labels; None for other inputs."""
    if facts.X is not None:
        return (facts.X, ()) if facts.inputs in ("table", "sequence", "image") else None
    return table_of(facts)


def _is_late(X: Tensor, number: int) -> bool:
    """Whether a number stands in the last quarter of a sequence: earlier ones may be remembered."""
    return number // X.shape[2] >= 3 * X.shape[1] // 4


def _is_read(facts: Facts, numbers: list[int]) -> bool:
    """Whether the outputs depend on some numbers of a row: a model may leave them out."""
    assert facts.train is not None
    X = facts.train[0]
    parts = [X] if isinstance(X, Tensor) else list(X)
    some = [part[:256] for part in parts]
    other, begin = [], 0
    for part in some:
        flat = part.clone().flatten(1)
        here = [j - begin for j in numbers if begin <= j < begin + flat.shape[1]]
        begin += flat.shape[1]
        mixed = flat[:, here].roll(1, 0)
        flat[:, here] = mixed + flat[:, here].std() if flat.is_floating_point() and here else mixed
        other.append(flat.view_as(part))
    facts.passes += 2
    with torch.random.fork_rng(devices=[]):
        one, two = (
            outputs(facts.exp, given[0] if isinstance(X, Tensor) else tuple(given))
            for given in (some, other)
        )
    return not (isinstance(one, Tensor) and isinstance(two, Tensor) and torch.equal(one, two))


def _finding(
    where: list[str],
    leaks: list[int],
    best: float,
    following: float,
    rest: float,
    *,
    table: bool,
    itself: bool,
) -> Finding:
    names = ", ".join(where)
    shown = ", ".join([*where[:SHOWN], *["..."] * (len(where) > SHOWN)])
    alone = "alone explains" if len(where) == 1 else "each alone explain up to"
    if not itself:
        what = f"{shown} {alone} {best:.1%} of the target, all others together {rest:.1%}"
    else:
        what = f"the target itself stands in {shown}"
    edit = f"drop {names} from the inputs" if table else f"let the inputs end before {names}"
    repair = Repair("take the target out of its inputs", None, mode="advise", edit=edit)
    if leaks:
        repair = Repair("take the column out", _without(leaks, names), mode="ask", proof="exact",
                        edit=edit)  # fmt: skip
    return Finding(
        "target_leak",
        f"{what}: it may be made of the target, or known only after it",
        "ask when and how the column comes about; take it out if it is not known in time",
        severity="problem",
        where=tuple(where),
        evidence={"share": best, "next": following, "rest": rest},
        confirmed=True,
        strength=10.0,
        repairs=(repair,),
    )


def _name(names: list[str], X: Tensor, number: int) -> str:
    if X.ndim == 2:
        return names[number]
    if X.ndim == 4:
        return f"pixel {number % X[0, 0].numel()} of channel {number // X[0, 0].numel()}"
    step, column = divmod(number, X.shape[2])
    return f"{names[column]} at place {step}"


def _same(X: Tensor, y: Tensor) -> list[int]:
    """Return the numbers of columns that are the target, but for scale in tables."""
    if X.ndim == 4:
        return []
    flat = X.reshape(len(X), -1).double()
    target = y.reshape(len(y), -1).double()
    if flat.shape[1] > 20_000 or target.shape[1] > 4:
        return []
    good = flat.isfinite().all(1) & target.isfinite().all(1)
    flat, target = flat[good], target[good]
    found = []
    for column in target.T:
        if len(torch.unique(column)) < 20:
            continue
        near = (flat - column[:, None]).abs() <= SAME * column.std()
        found += (near.double().mean(0) > 0.99).nonzero().flatten().tolist()
    return sorted({j for j in found if X.ndim == 2 or _is_late(X, j)})


class Without(nn.Module):
    """Some columns of a table held at their mean."""

    columns: Tensor
    mean: Tensor

    def __init__(self, columns: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)
        self.register_buffer("mean", mean)

    def forward(self, x: Tensor) -> Tensor:
        """Return the table with these columns constant."""
        held = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
        held[self.columns] = True
        return torch.where(held, self.mean.to(x.dtype), x)


def _without(leaks: list[int], names: str) -> Change:
    def change(exp: Experiment) -> str:
        X = Facts(exp).X
        if X is None or X.ndim != 2:
            message = "the input is not a table"
            raise CannotRepair(message)
        mean = torch.nan_to_num(X).mean(0)
        put_in_front(exp, Without(torch.tensor(leaks), mean))
        return f"{names} {'is' if len(leaks) == 1 else 'are'} held at the mean within the model"

    return change


RULE = Rule(
    code="target_leak",
    title="a column gives the target away",
    looks="scores near perfection from the first epoch on, and a failure in use",
    why="a column that is made of the target, or filled in after it, is not there when the net is "
    "asked",
    do="find out when the column comes about, and take it out if that is after the question",
    source="Kaufman, Rosset and Perlich 2012, Leakage in data mining",
    before=before,
)
