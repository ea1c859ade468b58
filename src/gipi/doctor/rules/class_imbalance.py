"""A class is rare, and the net has given it up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from gipi.doctor.experiment import outputs
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Measure, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import classes_of, origin
from gipi.doctor.trials import trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.trace import Trace

RATIO = 10.0
RECALL = 0.8
"""Recall of the rare classes, as a share of that of the frequent ones, that is good enough: four
fifths is where selection rates count as alike (EEOC 1978, Uniform guidelines, 29 CFR 1607.4)."""
BY_CHANCE = 0.025
"""Probability of so few hits in any rare class, were they recognised as the others are."""
SEEN = 1.0
"""Only at its end has the net found what it can find."""
LEAST_ROWS = 3
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
    rare = number * RATIO <= number.max()
    said = recalls(facts, rare)
    if said is None:
        return
    if said.others < 0.3:
        return
    # The class that proves it comes first: it is the one that the message is about.
    names = [str(int(ids[said.kind])),
             *(str(int(i)) for c, i in enumerate(ids) if rare[c] and c != said.kind)]  # fmt: skip
    yield Finding(
        "class_imbalance",
        f"the largest class has {ratio:.3g} times the rows of the smallest; after {trace.step} "
        f"steps {said.recall:.0%} of the rare class {names[0]} are recognised in {said.split} and "
        f"{said.others:.0%} of the frequent ones",
        "weight classes by the inverse of their frequency, or draw rare rows more often; judge by "
        "balanced accuracy or F1, not by accuracy",
        where=tuple(f"class {n}" for n in names[:6]),
        evidence={"counts": dict(zip(map(str, ids.tolist()), number.long().tolist(), strict=True)),
                  "rare": names, "recall_rare": said.recall, "recall_others": said.others},
        phase="epoch",
        strength=ratio / RATIO,
        repairs=(
            Repair("class weights", weigh, proof="not worse", measure=_measure(facts),
                   edit="loss = nn.CrossEntropyLoss(weight=n / (classes * counts))"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Show that the net could do better: mean recall must rise clearly.

    By its own outputs with the frequency of the classes taken out (Menon et al. 2021), which costs
    nothing; else by going on from here with class weights and without.
    """
    facts.passes += 2
    own = _hits(facts, facts.exp)
    seen = _raised(own, _hits(facts, facts.exp, adjusted=True), facts)
    if seen is not None:
        return finding.but(confirmed=True, evidence={**finding.evidence, **seen})
    steps = max(20, min(STEPS, facts.exp.total_steps // 5))
    try:
        better = trial(facts, steps, change=weigh)
    except CannotRepair:
        return finding.but(severity="hint", repairs=())
    plain = trial(facts, steps)
    seen = _raised(_hits(facts, plain.exp), _hits(facts, better.exp), facts)
    if seen is None:  # too few rare rows to show what weights are worth
        return finding.but(severity="hint", repairs=())
    return finding.but(confirmed=True, evidence={**finding.evidence, **seen})


@dataclass(frozen=True)
class Told:
    """The split and the rare class (its place among the classes) that tell, and the recalls."""

    split: str
    kind: int
    recall: float
    others: float


@dataclass(frozen=True)
class Hits:
    """Rows of a split: the class of each, and whether it was recognised."""

    split: str
    label: Tensor
    hit: Tensor


def _hits(facts: Facts, exp: Experiment, *, adjusted: bool = False) -> list[Hits]:
    """Return which rows of validation, then of training, are recognised.

    adjusted  the frequency of the classes in training is taken out of the answers
    """
    counts, found = _counts(facts), list[Hits]()
    for split in ("val", "train"):
        data = getattr(origin(facts), split)
        if data is None or counts is None or not isinstance(data[1], Tensor):
            continue
        X, y = data
        label = classes_of(facts, y)
        if label is None:
            return []
        with torch.random.fork_rng(devices=[]):
            told = _answers(outputs(exp, X), y, facts, counts if adjusted else None)
        if told is None or told.shape != label.shape:
            return []
        found.append(Hits(split, label.cpu(), (told == label).cpu().double()))
    return found


def recalls(facts: Facts, rare: Tensor) -> Told | None:
    """Return the rare class that is clearly given up, in the first split that tells.

    That is where it is recognised less often than the others, beyond chance: the probability of so
    few hits counts times the number of classes and splits that are asked (Bonferroni).

    rare  which of the training classes are
    """
    counts, asked = _counts(facts), list[tuple[str, Tensor, Tensor, Tensor]]()
    for seen in _hits(facts, facts.exp):
        assert counts is not None
        there = (seen.label[:, None] == counts[0][None]).double()
        rows, hits = there.sum(0), (there * seen.hit[:, None]).sum(0)
        if bool((rare & (rows >= LEAST_ROWS)).any()) and bool((~rare & (rows >= LEAST_ROWS)).any()):
            asked.append((seen.split, rows, hits, rows >= LEAST_ROWS))
    tests = sum(int((rare & enough).sum()) for *_, enough in asked)
    for split, rows, hits, enough in asked:
        known = ~rare & enough
        others = float((hits / rows)[known].mean())
        # One more hit and one more miss: a share of 1 is never certain.
        usual = (others * float(rows[known].sum()) + 1) / (float(rows[known].sum()) + 2)
        chances = [
            (at_most(int(hits[c]), int(rows[c]), usual), c)
            for c in (rare & enough).nonzero().flatten().tolist()
            if float(hits[c] / rows[c]) < RECALL * others
        ]
        if chances and min(chances)[0] * tests < BY_CHANCE:
            worst = min(chances)[1]
            return Told(split, worst, float(hits[worst] / rows[worst]), others)
    return None


def at_most(hits: int, rows: int, share: float) -> float:
    """Return the probability of at most so many hits: Σ_{i ≤ hits} C(n, i) pⁱ (1 − p)ⁿ⁻ⁱ."""
    whole = math.lgamma(rows + 1)
    return sum(
        math.exp(whole - math.lgamma(i + 1) - math.lgamma(rows - i + 1)
                 + i * math.log(share) + (rows - i) * math.log1p(-share))
        for i in range(hits + 1)
    )  # fmt: skip


def _raised(old: list[Hits], new: list[Hits], facts: Facts) -> dict[str, float] | None:
    """Return the mean recalls and their error where the new one is clearly better, else None.

    The same rows are answered both times: the error is that of the differences. Where validation
    holds too few rare rows to tell, those of training are asked as well.
    """
    counts = _counts(facts)
    if counts is None or len(old) != len(new):
        return None
    for number in range(1, len(old) + 1):
        label = torch.cat([h.label for h in old[:number]])
        hits = [torch.cat([h.hit for h in some[:number]]) for some in (old, new)]
        means, gain, var = [0.0, 0.0], 0.0, 0.0
        classes = [c for c in counts[0].tolist() if bool((label == c).any())]
        for kind in classes:
            rows = label == kind
            change = (hits[1] - hits[0])[rows]
            gain += float(change.mean())
            # Half a row more of spread: that all of few rows changed alike is no certainty.
            var += (float((change - change.mean()).square().sum()) + 0.5) / len(change) ** 2
            means = [m + float(h[rows].mean()) for m, h in zip(means, hits, strict=True)]
        n = max(1, len(classes))
        se = math.sqrt(var) / n
        if gain / n > max(GAIN, 2 * se):
            return {"mean_recall_as_is": means[0] / n, "mean_recall_weighted": means[1] / n,
                    "se": se}  # fmt: skip
    return None


def _measure(facts: Facts) -> Measure | None:
    """Return the measure that weights are judged by: the loss as asked may rise, and rightly so.

    Every class weighs alike, by its frequency in training; None where the user has a metric.
    """
    counts = _counts(facts)
    if facts.exp.metric is not None or counts is None:
        return None
    ids, number = counts
    weight = number.sum() / (len(number) * number)

    def of(said: Any, y: Any) -> float:
        label = classes_of(facts, y)
        told = _answers(said, y, facts, None)
        if label is None or told is None or told.shape != label.shape:
            return math.nan
        there = (label.cpu()[:, None] == ids[None]).double()
        return float(((there * weight).sum(1) * (told == label).cpu().double()).mean())

    return Measure("rows recognised, every class weighing alike,", of)


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
