"""The loss does not belong to the targets, or to what the net says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gipi.doctor.copies import renewed_optimizer
from gipi.doctor.ends import class_width, ended, last_call
from gipi.doctor.experiment import outputs
from gipi.doctor.facts import first_rows
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.losses import shared_out
from gipi.doctor.probes import after_steps
from gipi.doctor.rewire import Log, replace_module
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.rules.double_softmax import are_probabilities
from gipi.doctor.spoken import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

MOST_CLASSES = 50
STEPS = 80
POINTS = 0.1
"""Share of held rows that must be right in addition, for numbers to be called classes: of all, and
of those without the commonest number, which classes win of any skewed count."""
SURE = 3.0
"""Standard errors of that share, row by row: of few held rows as many are right by chance."""


def before(facts: Facts) -> Iterator[Finding]:
    """Hold loss, targets and outputs against the table of what belongs together."""
    y, said = facts.batch[1], facts.outputs
    if not isinstance(y, Tensor) or not isinstance(said, Tensor) or not y.numel():
        return
    whole = facts.y if facts.y is not None else y
    name = facts.loss.name
    if name in ("bce", "bce_logits"):
        yield from _yes_or_no(whole)
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
    called = tape is None or any(call.function == "kl_div" for call in tape.unnamed)
    sure = bool(((y == 0) | (y == 1)).all())
    return sure and not called and are_probabilities(facts, shared_out(y))


def _log_probabilities(
    facts: Facts, wide: tuple[int, int] | None, *, loss: str = "nll_loss"
) -> Iterator[Finding]:
    said = facts.outputs
    if wide is None or float(said.logsumexp(wide[0]).abs().max()) < 1e-3:
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
    """Suspect whole numbers 0..C-1 that one output is fitted to, where there is one a row.

    Of maps nothing is said: counts of things, rain and levels are whole numbers of places as well,
    and what a net makes of them (many places of 0, two peaks, edges between far levels) cannot be
    told from what it makes of names: whoever numbers names anew has other data, equally likely.
    """
    if facts.exp.task is not None and facts.exp.task != "classes":
        return
    op = last_call(facts)
    if y.numel() != len(y) or facts.outputs.numel() != len(facts.batch[1]) or op is None:
        return
    if op.kind != "linear" or not bool((y == y.round()).all()):
        return
    values = torch.unique(y)
    count = len(values)
    if not 3 <= count <= MOST_CLASSES or not torch.equal(
        values.double().cpu(), torch.arange(count).double()
    ):
        return
    yield _finding(
        f"targets are the numbers of {count} classes, fitted as if class 2 lay between 1 and 3",
        f"give the net {count} outputs and use cross-entropy",
        evidence={"classes": count},
        change=as_classes(op.module, count),
        edit=f"nn.Linear(..., {count}) at the end, loss = nn.CrossEntropyLoss(), y.long()",
    ).but(confirmed=False)


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train both ways: as classes more held rows come out right, and nearer on average."""
    repair = finding.repair
    rows = facts.val or facts.train
    if repair is None or repair.change is None or rows is None:
        return None
    X, y = first_rows(rows[0], 1024), first_rows(rows[1], 1024).flatten()
    middle, wide = float(y.double().mean()), float(y.double().std()) or 1.0

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
        number = outputs(plain, X).flatten() * wide + middle
        named = outputs(classes, X).reshape(len(y), -1).argmax(1)
    except (RuntimeError, ValueError, IndexError, CannotRepair):
        return None  # whole numbers alone are no evidence: counts and levels are as well
    facts.passes += 2 * STEPS
    before, after = (number.round() == y).double(), (named == y).double()
    gained = after - before
    rest = gained[y != y.mode().values]
    if not all(_is_sure(gain) for gain in (gained, rest)):
        return None
    # Between two peaks of a count nothing is hit, yet a bet on one of them is no nearer.
    if not float((named - y).abs().double().mean()) < float((number - y).abs().double().mean()):
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


def as_classes(module: str, count: int) -> Change:
    """Return the change to an output for each class and cross-entropy."""

    def change(exp: Experiment) -> str:
        old = exp.model.get_submodule(module) if module else None
        if not isinstance(old, nn.Linear) or old.out_features != 1:
            message = "the net does not end in a linear layer with one output"
            raise CannotRepair(message)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(exp.seed)
            new = nn.Linear(old.in_features, count, bias=old.bias is not None)
        replace_module(exp.model, module, by=new.to(old.weight))
        renewed_optimizer(exp)
        exp.loss = _cross_entropy
        return f"{place_of(module)} has {count} outputs, and the loss is cross-entropy"

    return change


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
