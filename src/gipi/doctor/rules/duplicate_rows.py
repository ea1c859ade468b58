"""Training rows come again and again, though rows that say so much are not equal by chance."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from gipi.doctor.edits import at_hand, kept, stored
from gipi.doctor.experiment import tensors
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.nearly import share_of_near, unnumbered, without_numbers
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import classes_of, cpu, origin
from gipi.doctor.twins import Copies, first_of, keys_of, training_copies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

SHARE, HINT = 0.2, 0.05
LEAST = 20
BALANCED, ONCE = 1.5, 1.3


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where rows that say much repeat earlier ones."""
    facts = origin(facts)
    if facts.train is None or facts.exp.declared.get("duplicates"):
        return
    found = training_copies(facts)
    replayed = _of_old_task(facts.exp, found.keys)
    if bool(replayed.any()):
        found = replace(found, first=found.first | replayed)
    if int((~found.first).sum()) < LEAST:
        other = without_numbers(facts)
        if other is None or int((~other.first).sum()) < LEAST:
            yield from _nearly(facts)
            return
        found = other
    said = float(found.telling.double().mean()) if len(found.telling) else 0.0
    again = found.telling & ~found.first
    if said < 0.5 or int(again.sum()) < LEAST or found.share < HINT or _drawn(facts, found):
        return
    windows = found.windows
    if windows and found.share < SHARE:
        return
    _, counts = torch.unique(found.keys[found.telling & ~replayed], return_counts=True)
    yield Finding(
        "duplicate_rows",
        f"{int(again.sum())} of {len(found.keys)} training rows ({found.share:.0%}) repeat an "
        f"earlier one, the most frequent comes {int(counts.max())} times; rows that say as much "
        "are not equal by chance",
        "keep one of each: repeated rows weigh more than others, and land in both splits when rows "
        "are divided at random",
        severity="problem" if found.share >= SHARE and not windows else "hint",
        rows=tuple(again.nonzero().flatten()[:50].tolist()),
        evidence={"share": found.share, "rows": int(again.sum()), "most": int(counts.max())},
        confirmed=True,
        strength=found.share / SHARE,
        repairs=(
            Repair("keep one of each", dedupe, mode="ask", proof="not worse",
                   edit="table = table.drop_duplicates()"),
        ),
    )  # fmt: skip


def _nearly(facts: Facts) -> Iterator[Finding]:
    """Yield the hint at rows that repeat another but for a little."""
    share = share_of_near(facts)
    if not share:
        return
    yield Finding(
        "duplicate_rows",
        f"{share:.0%} of the training rows lie far nearer to another one than any of the rest "
        "does: they may be copies with some noise, pictures that were saved again, or one thing "
        "measured several times",
        "keep one of each, or divide such rows into splits together: copies weigh more than other "
        "rows, and are no test",
        severity="hint",
        evidence={"share": share},
        strength=share / SHARE,
        repairs=(Repair("keep one of each", None, mode="advise",
                        edit="declared={'groups': ...}"),),
    )  # fmt: skip


def dedupe(exp: Experiment) -> str:
    """Keep the first of equal training rows: equal in inputs and target."""
    pair = stored(exp.train)
    if pair is None:
        message = "rows of a stream cannot be chosen by their number"
        raise CannotRepair(message)
    first = first_of(keys_of([unnumbered(pair[0]), pair[1].reshape(len(pair[1]), -1)]))
    first |= _of_old_task(exp, keys_of(pair[0]))
    exp.train = kept(exp.train, first)
    # As many steps as before: what is compared is the rows, not how long they were trained on.
    exp.epochs = exp.epochs * len(first) / int(first.sum())
    return (
        f"took {int((~first).sum())} of {len(first)} training rows out that repeat another; "
        f"{exp.epochs:.3g} epochs make as many steps"
    )


def _of_old_task(exp: Experiment, keys: Tensor) -> Tensor:
    """Whether rows are of the task that the model must not forget: they are told again on purpose.

    keys  of the training inputs
    """
    old = tensors(exp.declared.get("old_task"))
    if old is None:
        return torch.zeros(len(keys), dtype=torch.bool)
    return torch.isin(keys, keys_of(old[0]))


def _drawn(facts: Facts, found: Copies) -> bool:
    """Whether rare classes were repeated on purpose, until classes are about equal."""
    pair = at_hand(facts.exp.train)
    y = pair[1] if pair is not None and len(pair[1]) == len(found.first) else facts.y
    label = None if y is None else classes_of(facts, cpu(y))
    if label is None or len(label) != len(found.first):
        return False
    _, inverse = torch.unique(label, return_inverse=True)
    now = torch.bincount(inverse).double()
    once = torch.bincount(inverse[found.first], minlength=len(now)).double().clamp_min(1)
    times = now / once
    even = float(now.max() / now.min()) < BALANCED < float(once.max() / once.min())
    return even and float(times.min()) < ONCE and float(times.max()) > BALANCED


RULE = Rule(
    code="duplicate_rows",
    title="training rows repeat each other",
    looks="fewer different rows than rows; a validation score that is too good where rows were "
    "divided at random",
    why="a repeated row weighs as often as it comes, and its copies in another split are no test",
    do="keep one of each, or give it a weight; divide rows after that",
    source="Barz and Denzler 2020, Do we train on test data?, arXiv:1902.00423",
    before=before,
)
