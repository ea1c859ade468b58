"""The loss does not belong to the targets, or to what the net says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gipi.doctor.asked import (
    blind_to_classes,
    ignored,
    labels_of,
    never_up,
    parts_of,
    pulls_of,
    unasked,
)
from gipi.doctor.ends import class_width, ended
from gipi.doctor.experiment import outputs
from gipi.doctor.facts import first_rows
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.levels import as_classes, in_order, levels_of, score_of
from gipi.doctor.losses import shared_out
from gipi.doctor.probes import after_steps
from gipi.doctor.rewire import Log
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.rules.double_softmax import are_probabilities
from gipi.doctor.tape import same_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

STEPS = 80
POINTS = 0.1
"""Share of held rows that must be right in addition, for numbers to be called classes: of all, and
of those without the commonest number, which classes win of any skewed count."""
MOSTLY = 0.5
"""Share of held rows that must be right as classes: of a net that tells little nothing is said."""
ORDERED, MISTAKEN = 0.05, 20
"""Share of ways to number classes that have those taken for each other as near: so few of names;
and rows that are taken for others of which that may be asked."""
ASKS_ALL = frozenset(("cross_entropy", "bce", "bce_logits", "mse", "mae", "huber"))
"""Losses that ask all answers of all rows, where none is weighed or left out."""
SURE = 3.0
"""Standard errors of that share, row by row: of few held rows as many are right by chance."""


def before(facts: Facts) -> Iterator[Finding]:
    """Hold loss, targets and outputs against what belongs together, and ask what the loss asks."""
    found = list(_table(facts)) or list(_given_within(facts))
    yield from found or _not_asked(facts)


def _table(facts: Facts) -> Iterator[Finding]:
    """Hold loss, targets and outputs against the table of what belongs together."""
    y, said = facts.batch[1], facts.outputs
    if not isinstance(y, Tensor) or not isinstance(said, Tensor) or not y.numel():
        return
    whole = facts.y if facts.y is not None else y
    name = facts.loss.name
    if name in ("bce", "bce_logits"):
        found = list(_yes_or_no(whole))
        yield from found or _classes_as_numbers(facts, whole)
    elif name == "nll":
        yield from _log_probabilities(facts, class_width(facts))
    elif name == "kl" and not _is_chance_of_truth(facts):
        yield from _log_probabilities(facts, shared_out(whole), loss="kl_div")
    elif name == "cross_entropy":
        yield from _one_class(facts, whole)
        if y.is_floating_point() and y.shape == said.shape:
            yield from _no_distribution(facts, whole)
    elif name in ("mse", "mae", "huber"):
        yield from _classes_as_numbers(facts, whole)


def _yes_or_no(y: Tensor) -> Iterator[Finding]:
    low, high = float(y.min()), float(y.max())
    if low < 0 or high > 1:
        whole = bool((y == y.round()).all()) and low >= 0
        use = ("cross_entropy", "class numbers") if whole else ("mse", "numbers")
        yield _finding(
            f"binary cross-entropy wants targets between 0 and 1; these reach from {low:.3g} to "
            f"{high:.3g}: they are {use[1]}",
            f"use {'CrossEntropyLoss with one output a class' if whole else 'MSELoss'}",
            evidence={"low": low, "high": high},
            change=other_loss("cross_entropy") if whole else other_loss("mse"),
            edit="loss = nn.CrossEntropyLoss(), y.long()" if whole else "loss = nn.MSELoss()",
        )
        return
    flat = y.reshape(len(y), -1)
    if flat.shape[1] > 2 and bool(((flat == 0) | (flat == 1)).all() and (flat.sum(1) == 1).all()):
        yield _finding(
            f"every row has exactly one of {flat.shape[1]} classes, and each is asked for by "
            "itself",
            "use CrossEntropyLoss: its softmax knows that classes exclude each other",
            edit="loss = nn.CrossEntropyLoss(), y.argmax(-1)",
        ).but(severity="hint", confirmed=False)


def _is_chance_of_truth(facts: Facts) -> bool:
    """Whether a loss is minus the probability of the true class, which has a bottom and is learned.

    A divergence of probabilities from zeros and ones has the same values; it is told by its call.
    """
    y, tape = facts.batch[1], facts.loss_tape
    called = tape is None or bool(tape.of({"kl"}))
    sure = bool(((y == 0) | (y == 1)).all())
    return sure and not called and are_probabilities(facts, shared_out(y))


def _log_probabilities(
    facts: Facts, wide: tuple[int, int] | None, *, loss: str = "nll_loss"
) -> Iterator[Finding]:
    said = facts.outputs
    if wide is None or float(said.logsumexp(wide[0]).max()) < 1e-3:  # means of them are less
        return
    if are_probabilities(facts, wide):
        end: nn.Module = Log()
        what, edit = "probabilities", "log_softmax in place of softmax"
    else:
        end = nn.LogSoftmax(wide[0])
        what, edit = "raw scores", "loss = nn.CrossEntropyLoss()"
    said_first = [round(v, 3) for v in said.movedim(wide[0], -1).reshape(-1, wide[1])[0].tolist()]
    yield _finding(
        f"{loss} wants log-probabilities and gets {what} (first row: {said_first[:6]}): it "
        "falls without end as outputs grow",
        "use cross-entropy with scores, or log_softmax at the end of the net",
        change=ended(end, said="the outputs become log-probabilities before the loss"),
        mode="auto",
        edit=edit,
    )


def _given_within(facts: Facts) -> Iterator[Finding]:
    """Find a loss of log-probabilities that a loss function hands something else of its making."""
    tape = facts.loss_tape
    for op in tape.of({"nll", "kl"}) if tape is not None else ():
        said, y = op.inputs[0], op.inputs[1] if len(op.inputs) > 1 else None
        if y is None or said.ndim < 2 or same_numbers(said, facts.outputs):
            continue
        over = (1, said.shape[1]) if op.kind == "nll" else shared_out(y)
        if over is None or over[1] < 2 or float(said.logsumexp(over[0]).max()) < 1e-3:
            continue
        made = tape.source_of(said) if tape is not None else None
        what = f"what comes out of {made.kind}" if made is not None else "something else"
        if made is not None and made.kind == "log_softmax":
            what = "log_softmax over another dimension than that of the classes"
        yield _finding(
            f"{op.kind}_{'loss' if op.kind == 'nll' else 'div'} wants log-probabilities that share "
            f"out 1 among {over[1]} classes, and the loss function gives it {what}",
            "give it log_softmax of the scores, over the classes",
            mode="advise",
            edit=f"F.log_softmax(outputs, {over[0]}) within the loss",
        )
        return


def _share_out(facts: Facts, y: Tensor) -> bool:
    """Whether outputs are shares of one, or their logarithms."""
    wide, said = shared_out(y), facts.outputs
    if wide is not None and isinstance(said, Tensor) and said.ndim > wide[0]:
        logs = float(said.logsumexp(wide[0]).abs().max()) < 1e-3
        if logs:
            return True
    return are_probabilities(facts, wide)


def _not_asked(facts: Facts) -> Iterator[Finding]:
    """Find classes, or answers, that a loss does not ask for, whatever it is called."""
    y = facts.batch[1]
    if not isinstance(y, Tensor) or not y.ndim or parts_of(facts.outputs) is None:
        return
    own = facts.exp.loss
    whole = getattr(own, "weight", None) is None and getattr(own, "ignore_index", -1) < 0
    torchs = (getattr(own, "__module__", None) or "").startswith("torch.nn.")
    if facts.loss.name in ASKS_ALL and torchs and whole:
        return
    if blind_to_classes(facts):
        yield _finding(
            "the loss does not see what is added to the score of a class in all rows: it is shared "
            "out among rows, not among classes",
            "take softmax and log_softmax over the dimension of the classes, dim=1",
            mode="advise",
            edit="log_softmax(outputs, 1)",
        )
        return
    if labels_of(facts, y) is None and not bool(((y == 0) | (y == 1)).all()):
        return
    pulls = pulls_of(facts)
    if pulls is None:
        return
    none = unasked(facts, pulls)
    if none is not None:
        found = _finding(
            f"the loss asks nothing at the rows of class {none[0]:g}, {none[1]:.0%} of all, "
            "whatever the net says of them: they are never learned",
            "targets -1 and 1 for losses of margins, 0 and 1 for cross-entropy; outputs before "
            "targets; no weight of 0, and no ignore_index that is a class",
            evidence={"class": none[0], "share": none[1]},
            mode="advise",
            edit="loss = nn.CrossEntropyLoss(), or 2 * y - 1 for a loss of margins",
        )
        weight = getattr(own, "weight", None)
        meant = getattr(own, "ignore_index", None) == none[0] or (
            isinstance(weight, Tensor) and weight.ndim == 1 and float(weight[int(none[0])]) == 0
        )
        yield found.but(severity="hint") if meant else found  # whoever writes that may mean pads
        return
    value = ignored(pulls)
    if value is not None and not _share_out(facts, y):  # one more is others less
        yield _finding(
            f"the loss asks nothing of the answers whose target is {value:g}, whatever the net "
            "says: it learns to say the other of everything",
            "targets -1 and 1 for losses of margins, 0 and 1 for cross-entropy; outputs before "
            "targets",
            evidence={"value": value},
            mode="advise",
            edit="loss = nn.BCEWithLogitsLoss(), or 2 * y - 1 for a loss of margins",
        )
        return
    columns = never_up(pulls)
    if columns:
        yield _finding(
            f"of the answers that may be yes the loss never asks for {len(columns)} "
            f"(columns {str(columns[:8])[1:-1]}), though the targets do",
            "use BCEWithLogitsLoss; MultiLabelMarginLoss wants the numbers of the classes that are "
            "true, then -1",
            evidence={"columns": columns[:8]},
            mode="advise",
            edit="loss = nn.BCEWithLogitsLoss(), y.float()",
        )


def _one_class(facts: Facts, y: Tensor) -> Iterator[Finding]:
    wide = class_width(facts)
    if wide is None or wide[1] != 1:
        return
    binary = bool(((y == 0) | (y == 1)).all())
    name = "bce_logits" if binary else "mse"
    yield _finding(
        "cross-entropy over a single output is always zero: the net learns nothing",
        "use BCEWithLogitsLoss for yes or no, MSELoss for numbers, one output a class for classes",
        change=other_loss(name),
        edit="loss = nn.BCEWithLogitsLoss()" if binary else "loss = nn.MSELoss()",
    )


def _no_distribution(facts: Facts, y: Tensor) -> Iterator[Finding]:
    wide = class_width(facts)
    if wide is None or wide[1] < 2:
        return
    sums = y.sum(wide[0])
    off = float(((sums - 1).abs() > 1e-3).double().mean())
    if off < 0.01 and float(y.min()) >= 0:
        return
    several = bool(((y == 0) | (y == 1)).all())
    yield _finding(
        f"cross-entropy wants a distribution over classes; {off:.0%} of the rows of targets do "
        f"not sum to 1 (they reach from {float(y.min()):.3g} to {float(y.max()):.3g})",
        "use BCEWithLogitsLoss for several yes-or-no answers, MSELoss for numbers",
        change=other_loss("bce_logits" if several else "mse"),
        edit="loss = nn.BCEWithLogitsLoss()" if several else "loss = nn.MSELoss()",
    )


def _classes_as_numbers(facts: Facts, y: Tensor) -> Iterator[Finding]:
    """Suspect C numbers at even distances that one output is fitted to, where there is one a row.

    Of maps nothing is said: counts of things, rain and levels are whole numbers of places as well,
    and what a net makes of them (many places of 0, two peaks, edges between far levels) cannot be
    told from what it makes of names: whoever numbers names anew has other data, equally likely.
    """
    if facts.exp.task is not None and facts.exp.task != "classes":
        return
    if y.numel() != len(y) or facts.outputs.numel() != len(facts.batch[1]):
        return
    levels, op = levels_of(y), score_of(facts)
    if levels is None or op is None:
        return
    yield _finding(
        f"targets are the numbers of {levels.count} classes, fitted as if class 2 lay between 1 "
        "and 3",
        f"give the net {levels.count} outputs and use cross-entropy",
        evidence={"classes": levels.count},
        change=as_classes(facts, op, levels),
        edit=f"nn.Linear(..., {levels.count}) at the end, loss = nn.CrossEntropyLoss(), y.long()",
    ).but(confirmed=False)


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train both ways: as classes more held rows come out right, and nearer on average."""
    repair = finding.repair
    rows = facts.val or facts.train
    if repair is None or repair.change is None or rows is None:
        return None
    X, y = first_rows(rows[0], 1024), first_rows(rows[1], 1024).flatten()
    levels = levels_of(facts.y if facts.y is not None else facts.batch[1])
    assert levels is not None
    name = facts.loss.name
    middle, wide = float(y.double().mean()), float(y.double().std()) or 1.0
    if name in ("bce", "bce_logits"):
        middle, wide = 0.0, 1.0

    def faster(twin: Experiment) -> None:
        twin.optimizer = torch.optim.Adam(
            [p for p in twin.model.parameters() if p.requires_grad], 3e-3
        )
        twin.scheduler = None

    def numbered(twin: Experiment) -> None:
        # So few steps would be spent on the way to numbers that are large or far from 0.
        loss = twin.loss
        twin.loss = lambda said, y: loss(said * wide + middle, y)
        faster(twin)

    def changed(twin: Experiment) -> None:
        assert repair.change is not None
        repair.change(twin)
        faster(twin)

    try:
        _, plain = after_steps(facts.exp, STEPS, change=numbered, own_step=False)
        _, classes = after_steps(facts.exp, STEPS, change=changed, own_step=False)
        said = outputs(plain, X).flatten()
        number = levels.at(said.sigmoid() if name == "bce_logits" else said * wide + middle)
        told = outputs(classes, X).reshape(len(y), -1)
        named = told.argmax(1)
    except (RuntimeError, ValueError, IndexError, CannotRepair):
        return None  # whole numbers alone are no evidence: counts and levels are as well
    facts.passes += 2 * STEPS
    y = levels.at(y).round()
    before, after = (number.round() == y).double(), (named == y).double()
    gained = after - before
    rest = gained[y != y.mode().values]
    if not all(_is_sure(gain) for gain in (gained, rest)):
        return None
    if not float(after.mean()) > MOSTLY:
        return None
    # Between two peaks of a count nothing is hit, yet a bet on one of them is no nearer.
    closer = ((number - y).abs() - (named - y).abs()).double()
    if not float(closer.mean()) > 2 * float(closer.std()) / len(closer) ** 0.5:
        return None
    if float((1 - after).sum()) >= MISTAKEN and in_order(told.softmax(1), y) <= ORDERED:
        return None
    seen = {"right_as_numbers": float(before.mean()), "right_as_classes": float(after.mean())}
    return finding.but(confirmed=True, evidence={**finding.evidence, **seen})


def _is_sure(gained: Tensor) -> bool:
    """Whether more rows come out right, in earnest and beyond chance."""
    if len(gained) < 2:
        return False
    mean, error = float(gained.mean()), float(gained.std()) / len(gained) ** 0.5
    return mean >= POINTS and mean > SURE * error


def _finding(
    message: str,
    advice: str,
    *,
    evidence: dict[str, Any] | None = None,
    change: Change | None = None,
    mode: Any = "ask",
    edit: str = "",
) -> Finding:
    return Finding(
        "wrong_loss", message, advice,
        evidence=evidence or {}, confirmed=True, strength=EXACT,
        repairs=(Repair("another loss", change, mode=mode, proof="exact", edit=edit),),
    )  # fmt: skip


def other_loss(name: str) -> Change:
    """Return the change to another loss of the same outputs."""
    losses = {"cross_entropy": _cross_entropy, "bce_logits": _bce_logits, "mse": _mse}

    def change(exp: Experiment) -> str:
        exp.loss = losses[name]
        return f"the loss is {name}"

    return change


def _cross_entropy(said: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(said.reshape(y.numel(), -1), y.long().reshape(-1))


def _bce_logits(said: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(said.reshape(y.shape), y.to(said.dtype))


def _mse(said: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(said.reshape(y.shape), y.to(said.dtype))


RULE = Rule(
    code="wrong_loss",
    title="the loss does not fit the targets",
    looks="the loss is zero, negative, or falls while answers stay wrong",
    why="a loss is a statement about the targets: class numbers have no distance, probabilities "
    "lie between 0 and 1, log-probabilities below 0",
    do="numbers: squared error; one class of several: cross-entropy of logits; yes or no: binary "
    "cross-entropy of log-odds",
    source="Bishop 2006, Pattern Recognition and Machine Learning, section 5.2; Goodfellow, Bengio "
    "and Courville 2016, section 6.2.2",
    before=before,
    confirm=confirm,
    passes=2 * STEPS,
    causes=(*DYNAMICS, "target_unscaled", "bad_init_scale", "loss_broadcast"),
)
