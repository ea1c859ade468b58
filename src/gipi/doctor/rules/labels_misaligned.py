"""Targets do not belong to the inputs beside them: a join went wrong, or one side was shuffled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.dense import at_places, told_nothing
from gipi.doctor.edits import replaced, splits_of, stored
from gipi.doctor.experiment import outputs
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.patches import patches, standard
from gipi.doctor.renumbered import Renumbered, renumbered
from gipi.doctor.rule import Rule
from gipi.doctor.shallow import Answer, ask_ridge, ridge
from gipi.doctor.sheet import Sheet, answers, in_file_order, linear_answer, origin, sheet, silent
from gipi.doctor.told import told_of_val

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

LEAST = 200
LEAST_VAL = 50
ENOUGH = 1000
"""Training rows of which shallow learners, labels among them (see `codes`), find nearly every
target that the inputs tell a twentieth of, if not by several at once: of fewer rows such a target
passes for noise, and noise for such a target."""
REACH = 8
"""Rows by which targets may have slipped, either way."""
BEYOND = 6.0
CLEAR = 0.15
ORDERS = 40
LATE = 0.5
TOGETHER = 1.5
CLEARLY, UNCLEAR = 2.0, 3.0
"""Signs of classes together, up to which there are none; up to which few are left by chance."""
NET = 3.0
"""Standard deviations above chance from which on the net has found something."""


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where the fault can be shown before the first step.

    Targets that fit after a shift; or inputs that tell nothing of the targets in one split and a
    great deal in the other.
    """
    train = sheet(facts)
    if train is None or len(train.F) < LEAST:
        return
    val = sheet(facts, "val")
    if silent(facts):
        slip, z = _slip(facts)
        if slip:
            yield _slipped(slip, z)
            return
        if val is not None and len(val.F) >= LEAST:
            there = answers(facts, "val")
            if max(a.z for a in there) > BEYOND and max(a.score for a in there) > CLEAR:
                yield _one_split("training", answers(facts), there)
        return
    if val is None or len(val.F) < LEAST_VAL:
        return
    told, here = told_of_val(facts), linear_answer(facts).score
    other = renumbered(told, val.Y) if val.label is not None else None
    if other is not None and here > CLEAR and not _shifted(train, val):
        yield _otherwise(other, train)
        return
    doubtful = here > CLEAR and _shared(told, val.Y) < 0.25 * here and _agreement(told, val.Y) < 2
    if doubtful and silent(facts, "val") and not _shifted(train, val):
        yield _one_split("validation", answers(facts), answers(facts, "val"))


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where neither shallow learners nor the net find more than in noise."""
    if trace.done < LATE:
        return
    start = origin(facts)
    if trace.done >= 1 and at_places(start):
        on_val = net_above_chance(facts, start.val) if start.val is not None else None
        if on_val is not None and on_val > NET:
            return
        if told_nothing(start, NET):
            yield from _at_places(facts, on_val)
            return
    train = sheet(facts)
    if train is None or len(train.F) < LEAST or not silent(facts):
        return
    if start.val is None or not isinstance(start.val[1], Tensor) or len(start.val[1]) < LEAST_VAL:
        return
    on_val, on_train = net_above_chance(facts, start.val), net_above_chance(facts, start.train)
    if on_val is None or on_train is None or on_val > NET:
        return
    if on_train < (2 * NET if facts.kind == "numbers" else NET):
        return
    # Of images, sequences and texts shallow learners see little: the net must have had its chance.
    if facts.inputs != "table" and trace.done < 1:
        return
    here, val = answers(facts), sheet(facts, "val")
    seen = [*(a.z for a in here), on_val]
    shapes = _of_patches(start)
    if shapes is not None:
        if shapes > NET:
            return
        seen.append(shapes)
    elif facts.inputs != "table" and on_val > 2:
        return
    if val is not None:
        seen.append(_agreement(told_of_val(facts), val.Y))
    # Weak signs of one direction add up: what is drowned in noise is not misaligned.
    together = sum(seen) / len(seen) ** 0.5
    if together > (TOGETHER if facts.kind == "numbers" else UNCLEAR):
        return
    z = max(a.z for a in here)
    told = (
        "a linear learner and the nearest neighbours tell the training targets no better than the "
        f"same targets in random order (z = {z:.1f}), and the net, which learned its training rows "
        f"by heart (z = {on_train:.0f}), tells validation rows no better than guessing "
        f"(z = {on_val:.1f})"
    )
    evidence = {"linear": here[0].score, "neighbours": here[1].score, "net_z": on_val, "z": z,
                "net_z_train": on_train}  # fmt: skip
    if len(train.F) < ENOUGH or together > CLEARLY:
        yield unlearnt(told, evidence)
        return
    yield Finding(
        "labels_misaligned",
        f"{told}: targets seem to stand beside the wrong inputs",
        "check how inputs and targets were joined: sorted on one side, shuffled on the other, or "
        "joined by position instead of by a key",
        evidence=evidence,
        confirmed=True,
        phase="epoch",
        strength=5.0,
        repairs=(Repair("join again", None, mode="advise", edit=JOIN),),
    )


def _otherwise(other: Renumbered, train: Sheet) -> Finding:
    """Return the finding of classes that bear other numbers in the other split."""
    assert train.label is not None
    named = {c: int(train.label[train.Y.argmax(1) == c][0]) for c in other.to}
    pairs = ", ".join(f"{named[t]} is {named[u]}" for t, u in sorted(other.to.items()))
    return Finding(
        "labels_misaligned",
        "classes are numbered otherwise in one split: a learner of the training rows agrees with "
        f"{other.before:.0%} of the validation labels, and with {other.share:.0%} where class "
        f"{pairs} (z = {other.z:.0f})",
        "make the numbers of classes once, from one list of their names, and use them for both "
        "splits",
        evidence={"z": other.z, "share": other.share, "before": other.before},
        confirmed=True,
        strength=other.z / BEYOND,
        repairs=(Repair("number classes alike", None, mode="advise",
                        edit="val.class_to_idx = train.class_to_idx"),),
    )  # fmt: skip


def _at_places(facts: Facts, on_val: float | None) -> Iterator[Finding]:
    """Yield the hint where no place tells its target, nor does the net."""
    start = origin(facts)
    if on_val is None or facts.rows < LEAST:
        return
    z = start.notes["targets at places"]
    yield unlearnt(
        "what stands at a place, and beside it, tells no more of the target there than of those of "
        f"other rows (z = {z:.1f}), and the net tells validation rows no better than those of "
        f"others (z = {on_val:.1f})",
        {"z": z, "net_z": on_val},
    )


def unlearnt(told: str, evidence: Mapping[str, Any]) -> Finding:
    """Return the hint of a net that knows nothing, though it had its chance: it has two causes.

    Targets beside the wrong inputs, or inputs that tell next to nothing of them.
    """
    return Finding(
        "labels_misaligned",
        told,
        "check that every target stands beside its own inputs: one of the two may have been "
        "sorted, shuffled, or joined by position; if they are right, these columns tell little of "
        "the target, and other columns or more rows are needed",
        severity="hint",
        evidence=evidence,
        phase="epoch",
        repairs=(Repair("join again", None, mode="advise", edit=JOIN),),
    )


def _of_patches(start: Facts) -> float | None:
    """Return by how many deviations images tell their targets by likeness to patches; or None."""
    train = sheet(start)
    if train is None or start.X is None or start.inputs != "image":
        return None
    X = start.X[train.rows.to(start.X.device)].cpu()
    likeness = patches(X)
    return None if likeness is None else ask_ridge(ridge(standard(likeness(X))), train.Y)[0].z


JOIN = "table = inputs.merge(targets, on='id', validate='one_to_one')"


def net_above_chance(facts: Facts, data: tuple[Any, Any] | None) -> float | None:
    """Return by how many deviations the net's loss is below that of targets in random order."""
    if data is None or not isinstance(data[1], Tensor):
        return None
    exp = facts.exp
    loss = exp.judge or exp.loss
    y = data[1]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        said = outputs(exp, data[0])
        own = float(loss(said, y))
        mixed = _in_any_order(lambda other: float(loss(said, other)), y, seed=3)
    return float((mixed.mean() - own) / mixed.std().clamp_min(1e-9 * (1 + mixed.mean().abs())))


def _in_any_order(score: Callable[[Tensor], float], y: Tensor, *, seed: int) -> Tensor:
    """Return what targets score in random orders: what is chance."""
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(y), generator=generator).to(y.device) for _ in range(ORDERS))
    return torch.tensor([score(y[order]) for order in orders], dtype=torch.float64)


def _agreement(told: Tensor, Y: Tensor) -> float:
    """Return by how many deviations predictions agree with targets better than by chance."""
    told, Y = _centred(told), _centred(Y)
    own = float((told * Y).sum())
    mixed = _in_any_order(lambda other: float((told * other).sum()), Y, seed=4)
    return (own - float(mixed.mean())) / max(float(mixed.std()), 1e-12)


def _shared(told: Tensor, Y: Tensor) -> float:
    """Return the share of the targets' variance that predictions explain, scaled as suits them."""
    told, Y = _centred(told), _centred(Y)
    own, norm = float((told * Y).sum()), float(told.norm() * Y.norm())
    return (own / norm) ** 2 if norm > 0 and own > 0 else 0.0


def _centred(values: Tensor) -> Tensor:
    values = values.double()
    return values - values.mean(0)


def _shifted(train: Sheet, val: Sheet) -> bool:
    """Whether validation inputs lie elsewhere: then it is their shift that is at fault."""
    off = (val.straight.mean(0) - train.straight.mean(0)).abs()
    spread = train.straight.std(0).clamp_min(0.1)
    return bool(((off / spread) > 0.5).double().mean() > 0.1)


def _slip(facts: Facts) -> tuple[int, float]:
    """Return by how many rows targets have slipped, and how surely; 0 where they have not."""
    pair = stored(facts.exp.train)
    if pair is None or len(pair[0]) < LEAST:
        return 0, 0.0
    # Neighbours in the file must be neighbours on the sheet.
    found = in_file_order(facts, *pair)
    if found is None:
        return 0, 0.0
    shifts = [s for k in range(1, REACH + 1) for s in (k, -k)]
    more = tuple(found.Y.roll(s, 0) for s in shifts)
    answer, scores = ask_ridge(found.ridge, found.Y, more=more)
    best = int(scores.argmax())
    spread = max(float(answer.chance.std()), 1e-3)
    z = (float(scores[best]) - float(answer.chance.mean())) / spread
    return (shifts[best], z) if z > BEYOND and float(scores[best]) > CLEAR / 2 else (0, 0.0)


def _slipped(slip: int, z: float) -> Finding:
    return Finding(
        "labels_misaligned",
        f"targets fit the inputs {abs(slip)} row{'s' * (abs(slip) > 1)} "
        f"{'before' if slip < 0 else 'after'} them, far beyond chance (z = {z:.0f}), and not those "
        "beside them",
        f"move the targets by {slip} rows: a header, a dropped row or a lag was counted on one "
        "side only",
        evidence={"shift": slip, "z": z},
        confirmed=True,
        strength=z / BEYOND,
        repairs=(
            Repair(f"move targets by {slip} rows", _moved(slip), mode="ask", proof="exact",
                   edit=f"y = y.roll({slip}, 0)"),
        ),
    )  # fmt: skip


def _moved(slip: int) -> Any:
    def change(exp: Experiment) -> str:
        for name, data, X, y in splits_of(exp):
            setattr(exp, name, replaced(data, X, y.roll(slip, 0)))
        return f"moved the targets by {slip} rows"

    return change


def _one_split(which: str, here: tuple[Answer, ...], there: tuple[Answer, ...]) -> Finding:
    bad, good = (here, there) if which == "training" else (there, here)
    other = "validation" if which == "training" else "training"
    z, z_other = max(a.z for a in bad), max(a.z for a in good)
    return Finding(
        "labels_misaligned",
        f"inputs of the {which} rows tell no more of their targets than of targets in random "
        f"order (z = {z:.1f}), those of the {other} rows a great deal more (z = {z_other:.0f}): "
        f"{which} targets seem to stand beside the wrong inputs",
        f"check how inputs and targets of the {which} rows were joined",
        where=(which,),
        evidence={"z": z, "z_other": z_other},
        confirmed=True,
        strength=5.0,
        repairs=(Repair("join again", None, mode="advise", edit=JOIN),),
    )


RULE = Rule(
    code="labels_misaligned",
    title="targets do not belong to their inputs",
    looks="training loss falls by rote or not at all; validation stays at the level of guessing",
    why="where inputs and targets are paired at random there is nothing to learn but noise",
    do="join inputs and targets by a key instead of by position, and shuffle both alike",
    source="Ojala and Garriga 2010, Permutation tests for studying classifier performance",
    before=before,
    during=during,
    causes=("overfit", "plateau", "underfit", "class_imbalance", "label_noise", "oscillating_loss",
            "lr_too_low"),
)  # fmt: skip
