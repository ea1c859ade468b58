"""A class is rare, and the net has given it up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from gipi.doctor.experiment import outputs
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import classes_of, origin
from gipi.doctor.trials import trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.trace import Trace

RATIO = 10.0
RECALL = 0.5
"""Recall of the rare classes, as a share of that of the frequent ones, that is good enough."""
SEEN = 1.0
"""Only at its end has the net found what it can find."""
LEAST_ROWS = 5
Recalls = tuple[str, Tensor, Tensor]
STEPS = 60
GAIN = 0.04


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where a class that is rare in training is hardly ever recognised."""
    if trace.done < SEEN or facts.exp.declared.get("imbalance"):
        return
    counts = _counts(facts)
    if counts is None or _weighted(facts.exp):
        return
    ids, number = counts
    ratio = float(number.max() / number.min())
    if ratio < RATIO:
        return
    said = recalls(facts, facts.exp)
    if said is None:
        return
    split, recall, seen = said
    rare = number * RATIO <= number.max()
    known = (seen >= LEAST_ROWS) & recall.isfinite()
    if not bool((rare & known).any()) or not bool((~rare & known).any()):
        return
    worst = recall[rare & known].mean()
    others = recall[~rare & known].mean()
    if float(worst) >= RECALL * float(others) or float(others) < 0.3:
        return
    names = [str(int(i)) for i in ids[rare]]
    yield Finding(
        "class_imbalance",
        f"the largest class has {ratio:.3g} times the rows of the smallest; after {trace.step} "
        f"steps {float(worst):.0%} of the rare classes ({', '.join(names[:6])}) are recognised in "
        f"{split} and {float(others):.0%} of the others",
        "weight classes by the inverse of their frequency, or draw rare rows more often; judge by "
        "balanced accuracy or F1, not by accuracy",
        where=tuple(f"class {n}" for n in names[:6]),
        evidence={"counts": dict(zip(map(str, ids.tolist()), number.long().tolist(), strict=True)),
                  "recall_rare": float(worst), "recall_others": float(others)},
        phase="epoch",
        strength=ratio / RATIO,
        repairs=(
            Repair("class weights", weigh,
                   proof="not worse" if facts.exp.metric is not None else "exact",
                   edit="loss = nn.CrossEntropyLoss(weight=n / (classes * counts))"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Show that the net could do better: mean recall must rise clearly.

    By its own outputs with the frequency of the classes taken out (Menon et al. 2021), which costs
    nothing; else by going on from here with class weights and without.
    """
    told = recalls(facts, facts.exp), recalls(facts, facts.exp, adjusted=True)
    raised = _raised(*told)
    if raised is not None:
        return finding.but(confirmed=True, evidence={**finding.evidence, **raised})
    steps = max(20, min(STEPS, facts.exp.total_steps // 5))
    try:
        better = trial(facts, steps, change=weigh)
    except CannotRepair:
        return finding.but(severity="hint", repairs=())
    plain = trial(facts, steps)
    raised = _raised(recalls(facts, plain.exp), recalls(facts, better.exp))
    if raised is None:
        return None
    return finding.but(confirmed=True, evidence={**finding.evidence, **raised})


def _raised(old: Recalls | None, new: Recalls | None) -> dict[str, float] | None:
    """Return the mean recalls and their error where the new one is clearly better, else None."""
    if old is None or new is None:
        return None
    seen = old[2]
    good = (seen > 0) & old[1].isfinite()
    means = [float(t[1][good].mean()) for t in (old, new)]
    var = sum(float((t[1][good] * (1 - t[1][good]) / seen[good]).sum()) for t in (old, new))
    se = math.sqrt(max(var, 0.0)) / max(int(good.sum()), 1)
    if means[1] - means[0] <= max(GAIN, 2 * se):
        return None
    return {"mean_recall_as_is": means[0], "mean_recall_weighted": means[1], "se": se}


def recalls(facts: Facts, exp: Experiment, *, adjusted: bool = False) -> Recalls | None:
    """Return the split that was judged, recall and rows of every training class.

    adjusted  the frequency of the classes in training is taken out of the answers
    """
    counts = _counts(facts)
    for split in ("val", "train"):
        data = getattr(origin(facts), split)
        if data is None or counts is None or not isinstance(data[1], Tensor):
            continue
        X, y = data
        label = classes_of(facts, y)
        if label is None:
            return None
        with torch.random.fork_rng(devices=[]):
            told = _answers(outputs(exp, X), y, facts, counts if adjusted else None)
        if told is None or told.shape != label.shape:
            return None
        hit, ids = (told == label).float(), counts[0].to(label.device)
        there = label[:, None] == ids[None]
        rows = there.float().sum(0)
        recall = (there * hit[:, None]).sum(0) / rows
        return split, recall.cpu().double(), rows.cpu().double()
    return None


def _answers(
    said: Any, y: Tensor, facts: Facts, counts: tuple[Tensor, Tensor] | None
) -> Tensor | None:
    """Return the class that outputs stand for: the largest, or above even odds.

    counts  classes and their rows, whose frequency is taken out; None: the answers as they are
    """
    if not isinstance(said, Tensor) or not said.is_floating_point():
        return None
    if y.is_floating_point() or (said.ndim == y.ndim and said.shape == y.shape):
        flat = said.reshape(len(said), -1)
        if flat.shape[1] != 1:
            return None
        middle = 0.5 if facts.loss.of_probabilities else 0.0
        if counts is not None:
            share = float(counts[1][-1] / counts[1].sum())
            middle = share if facts.loss.of_probabilities else math.log(share / (1 - share))
        return (flat[:, 0] > middle).long()
    if said.ndim != 2:
        return None
    if counts is not None and int(counts[0].max()) < said.shape[1]:
        shift = torch.full_like(said[0], torch.inf)
        shift[counts[0].to(said.device)] = counts[1].log().to(said)
        said = said - shift
    largest: Tensor = said.argmax(1)
    return largest


def weigh(exp: Experiment) -> str:
    """Weight every class by the inverse of its frequency, with a mean weight of 1 over the rows."""
    if exp.step is not None:
        message = "the step is the user's own and may use another loss"
        raise CannotRepair(message)
    facts = Facts(exp)
    counts = _counts(facts)
    if counts is None:
        message = "the targets are not one class a row"
        raise CannotRepair(message)
    ids, number = counts
    weight = number.sum() / (len(number) * number)
    old = exp.judge or exp.loss
    if facts.kind == "binary" and facts.loss.name in ("bce_logits", "bce"):
        exp.loss = WeightedBinary(facts.loss.name == "bce_logits", weight[0], weight[1])
    elif facts.loss.name in ("cross_entropy", "nll") and facts.loss.sign == 1:
        width = int(facts.outputs.shape[1])
        if int(ids.max()) >= width:
            message = "the classes are more than the outputs"
            raise CannotRepair(message)
        full = torch.ones(width, dtype=facts.outputs.dtype)
        full[ids] = weight.to(full.dtype)
        smooth = float(getattr(exp.loss, "label_smoothing", 0.0))
        ignore = int(getattr(exp.loss, "ignore_index", -100))
        exp.loss = (
            nn.CrossEntropyLoss(full, label_smoothing=smooth, ignore_index=ignore)
            if facts.loss.name == "cross_entropy"
            else nn.NLLLoss(full, ignore_index=ignore)
        )
    else:
        message = "the loss takes no class weights"
        raise CannotRepair(message)
    exp.loss.to(exp.device)
    exp.judge = old
    return f"classes weigh {float(weight.min()):.3g} to {float(weight.max()):.3g} in the loss"


class WeightedBinary(nn.Module):
    """Binary cross-entropy with a weight for each of the two classes."""

    negative: Tensor
    positive: Tensor

    def __init__(self, logits: bool, negative: Tensor, positive: Tensor) -> None:  # noqa: FBT001
        super().__init__()
        self.logits = logits
        self.register_buffer("negative", negative)
        self.register_buffer("positive", positive)

    def forward(self, said: Tensor, y: Tensor) -> Tensor:
        """Return the mean weighted loss."""
        y = y.to(said.dtype)
        weight = torch.where(y > 0.5, self.positive, self.negative).to(said.dtype)
        if self.logits:
            return F.binary_cross_entropy_with_logits(said, y, weight)
        return F.binary_cross_entropy(said, y, weight)


def _counts(facts: Facts) -> tuple[Tensor, Tensor] | None:
    """Return the classes of the training rows and how many rows each has."""
    y = origin(facts).y
    if y is None:
        return None
    label = classes_of(facts, y.detach().cpu())
    if label is None:
        return None
    ids, number = torch.unique(label[label >= 0], return_counts=True)
    return (ids, number.double()) if 2 <= len(ids) <= 1000 else None


def _weighted(exp: Experiment) -> bool:
    """Whether someone has weighted the classes already."""
    weights = (getattr(exp.loss, "weight", None), getattr(exp.loss, "pos_weight", None))
    if any(isinstance(w, Tensor) for w in weights) or isinstance(exp.loss, WeightedBinary):
        return True
    sampler = exp.train.sampler if isinstance(exp.train, DataLoader) else None
    return isinstance(sampler, WeightedRandomSampler)


RULE = Rule(
    code="class_imbalance",
    title="a rare class is given up",
    looks="accuracy is high, and the confusion matrix has an empty column",
    why="where one class fills nearly all rows, answering with it costs little: its gradient "
    "drowns that of the rare ones",
    do="weight classes by the inverse of their frequency or draw rare rows more often, and judge "
    "by balanced accuracy or F1; say imbalance=True where life is like that and you accept it",
    source="Japkowicz and Stephen 2002, The class imbalance problem; King and Zeng 2001",
    during=during,
    confirm=confirm,
    passes=2 * STEPS + 6,
)
