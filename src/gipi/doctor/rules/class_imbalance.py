"""A class is rare, and the net has given it up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from gipi.doctor.edits import stored
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Measure, Repair
from gipi.doctor.hits import Hits, at_most, counts_of, hits_of, joined, raised
from gipi.doctor.labels import answers_of, labels_of, tags_of
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import classes_of
from gipi.doctor.spared import PARTS, may_spare, price, spared
from gipi.doctor.trials import trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.trace import Trace

RATIO = 10.0
RECALL = 0.8
"""Recall of the rare classes, as a share of that of the frequent ones, that is good enough: four
fifths is where selection rates count as alike (EEOC 1978, Uniform guidelines, 29 CFR 1607.4)."""
MISSED = 0.5
"""The same where a row has many answers: edges of things, and tags that may be doubted, are missed
by every net, but what is given up is missed more often than not."""
BY_CHANCE = 0.025
"""Probability of so few hits in any rare class, were they recognised as the others are."""
SEEN = 1.0
"""Only at its end has the net found what it can find."""
LEARNED = 0.3
"""Recall of the frequent classes below which the net has learned too little to be asked."""
STILL = 0.03
"""Fall of the loss between the last two quarters of the steps, as a share of the first one."""
LEAST_ROWS = 3
STEPS = 60


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where a class that is rare in training is hardly ever recognised."""
    if trace.done < SEEN or facts.exp.declared.get("imbalance"):
        return
    counts = counts_of(facts)
    if counts is None or _weighted(facts.exp):
        return
    ids, number = counts
    most, others = _beside(facts, ids, number)
    rare = number * RATIO <= most
    if not bool(rare.any()):
        return
    ratio = float((most / number)[rare].max())
    said = recalls(facts, rare, frequent=others & ~rare)
    if said is None:
        yield from _untold(facts, trace, rare, ratio)
        return
    if said.others < LEARNED:
        return
    if _many(facts) and trace.fall() > STILL * abs(trace.scale):
        return  # what is frequent at places is learned first: the rest may be under way
    # The class that proves it comes first: it is the one that the message is about.
    kinds = [int(ids[said.kind]),
             *(int(i) for c, i in enumerate(ids) if rare[c] and c != said.kind)]  # fmt: skip
    names = [str(i // 2 if tags_of(facts) > 1 else i) for i in kinds]
    yield Finding(
        "class_imbalance",
        f"the largest class has {ratio:.3g} times the rows of the smallest; after {trace.step} "
        f"steps {said.recall:.0%} of the rare class {names[0]} are recognised in {said.split} and "
        f"{said.others:.0%} of the frequent ones",
        "weight classes by the inverse of their frequency, or draw rare rows more often; judge by "
        "balanced accuracy or F1, not by accuracy",
        where=tuple(f"class {n}" for n in names[:6]),
        evidence={"counts": dict(zip(map(str, ids.tolist()), number.long().tolist(), strict=True)),
                  "rare": names, "recall_rare": said.recall, "recall_others": said.others,
                  "asked": _pair(facts, kinds[0])},
        phase="epoch",
        strength=ratio / RATIO,
        repairs=_repairs(facts),
    )  # fmt: skip


def _beside(facts: Facts, ids: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Return the answers that each class is held against, and which may be the frequent ones.

    A row has few of many tags: one is rare where others are not. A tag at places is rare where it
    is seldom had.
    """
    tags, start = tags_of(facts), facts.start or facts
    every, had = torch.ones_like(ids, dtype=torch.bool), ids % 2 == 1
    if tags < 2:
        return number.max().expand_as(number), every
    most = torch.zeros_like(number)
    if start.y is not None and start.y.ndim > 2:
        without = torch.zeros(2 * tags, dtype=number.dtype)
        without[ids] = number
        most[had] = without[ids[had] - 1]
        return most, every
    most[had] = number[had].max() if bool(had.any()) else 0.0
    return most, had


def _pair(facts: Facts, kind: int) -> list[int]:
    """Return the classes whose recalls must rise: a tag and its absence; none: all classes."""
    return [kind - 1, kind] if tags_of(facts) > 1 else []


def _repairs(facts: Facts) -> tuple[Repair, ...]:
    return (
        Repair("class weights", weigh, proof="not worse", measure=_measure(facts),
               edit="loss = nn.CrossEntropyLoss(weight=n / (classes * counts))"),
    )  # fmt: skip


def _untold(facts: Facts, trace: Trace, rare: Tensor, ratio: float) -> Iterator[Finding]:
    """Suspect where validation holds no rows of a rare class to speak of, and some row is missed.

    Training rows alone say little: what the net does not know of a class it may know by heart.
    """
    counts, seen = counts_of(facts), hits_of(facts, facts.exp)
    if trace.open or counts is None or not seen or not may_spare(facts, longer=True):
        return
    if _many(facts):
        return
    ids, number = counts
    of = {h.split: h for h in seen}
    few, worst = math.inf, None
    for i in rare.nonzero().flatten().tolist():
        val = int((of["val"].label == ids[i]).sum()) if "val" in of else 0
        missed = sum(int(((h.label == ids[i]) & (h.hit < 0.5)).sum()) for h in seen)
        if val < LEAST_ROWS and number[i] >= PARTS * LEAST_ROWS and missed and number[i] < few:
            few, worst = int(number[i]), i
    if worst is None:
        return
    name = str(int(ids[worst]))
    yield Finding(
        "class_imbalance",
        f"the largest class has {ratio:.3g} times the rows of the smallest; validation holds "
        f"fewer than {LEAST_ROWS} rows of the rare class {name}",
        "weight classes by the inverse of their frequency, or draw rare rows more often; put "
        "enough rows of every class into validation, and judge by balanced accuracy or F1",
        where=(f"class {name}",),
        evidence={"counts": dict(zip(map(str, ids.tolist()), number.long().tolist(), strict=True)),
                  "rare": [name]},
        phase="epoch",
        strength=ratio / RATIO,
        repairs=_repairs(facts),
    )  # fmt: skip


def _of_spared(facts: Facts, finding: Finding) -> Finding | None:
    """Ask copies trained without a third of every class: whether they tell it of that third.

    As many steps as the run took, on fewer rows. A second third is asked where one is too little,
    and where another copy can be afforded.
    """
    assert facts.start is not None
    start, counts = facts.start, counts_of(facts)
    pair = stored(start.exp.train)
    kinds = classes_of(facts, pair[1]) if pair is not None else None
    if counts is None or kinds is None:
        return None
    rare = int(finding.evidence["rare"][0])
    frequent = counts[0][counts[1] * RATIO > counts[1].max()]
    own, fair = list[Hits](), list[Hits]()
    for part in range(2):
        if part and facts.passes + price(facts, longer=True) > facts.allowed:
            return None
        found = spared(facts, part=part, kinds=kinds, longer=True)
        if found is None or found[0].broken is not None:
            return None
        twin, rest = found[1], Facts(found[1]).val
        own += hits_of(facts, twin, only=rest)
        fair += hits_of(facts, twin, adjusted=True, only=rest)
        if len(own) <= part or len(fair) <= part:
            return None
        label, hit = joined(own).label, joined(own).hit
        others = float(torch.stack([hit[label == c].mean() for c in frequent]).mean())
        there = hit[label == rare]
        known = int(torch.isin(label, frequent).sum())
        usual = (others * known + 1) / (known + 2)
        if others < LEARNED or float(there.mean()) >= RECALL * others:
            return None
        # Twice asked: either time counts half (Bonferroni).
        chance = at_most(int(there.sum()), len(there), usual) * 2
        seen = raised([joined(own)], [joined(fair)], facts)
        if chance < BY_CHANCE and seen is not None:
            return finding.but(
                confirmed=True,
                message=f"{finding.message}; of {len(there)} of its rows that a copy never saw "
                f"{int(there.sum())} are recognised, and {others:.0%} of the frequent ones",
                evidence={**finding.evidence, "recall_rare": float(there.mean()),
                          "recall_others": others, **seen},
            )  # fmt: skip
    return None


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Show that the net could do better: mean recall must rise clearly.

    By its own outputs with the frequency of the classes taken out (Menon et al. 2021), which costs
    nothing; else by going on from here with class weights and without.
    """
    if not _told(finding):
        return _of_spared(facts, finding)
    facts.passes += 2
    own, kinds = hits_of(facts, facts.exp), tuple(finding.evidence.get("asked", ()))
    seen = raised(own, hits_of(facts, facts.exp, adjusted=True), facts, kinds=kinds)
    if seen is not None:
        return finding.but(confirmed=True, evidence={**finding.evidence, **seen})
    steps = max(20, min(STEPS, facts.exp.total_steps // 5))
    try:
        better = trial(facts, steps, change=weigh)
    except CannotRepair:
        return finding.but(severity="hint", repairs=())
    plain = trial(facts, steps)
    seen = raised(hits_of(facts, plain.exp), hits_of(facts, better.exp), facts, kinds=kinds)
    if seen is None:  # too few rare rows to show what weights are worth
        return finding.but(severity="hint", repairs=())
    return finding.but(confirmed=True, evidence={**finding.evidence, **seen})


def _told(finding: Finding) -> bool:
    """Whether rows that the run was judged on tell it: else a copy has to be asked."""
    return "recall_rare" in finding.evidence


@dataclass(frozen=True)
class Told:
    """The split and the rare class (its place among the classes) that tell, and the recalls."""

    split: str
    kind: int
    recall: float
    others: float


def _many(facts: Facts) -> bool:
    """Whether a row has more than one answer."""
    y = (facts.start or facts).y
    label = None if y is None else labels_of(facts, y[:1])
    return label is not None and label.ndim > 1


def recalls(facts: Facts, rare: Tensor, *, frequent: Tensor | None = None) -> Told | None:
    """Return the rare class that is clearly given up, in the first split that tells.

    That is where it is recognised less often than the others, beyond chance: the probability of so
    few hits counts times the number of classes and splits that are asked (Bonferroni).

    rare, frequent  which of the training classes are; None: all that are not rare
    """
    frequent = ~rare if frequent is None else frequent
    enough_hits = MISSED if _many(facts) else RECALL
    counts, asked = counts_of(facts), list[tuple[str, Tensor, Tensor, Tensor]]()
    for seen in hits_of(facts, facts.exp):
        assert counts is not None
        there = (seen.label[:, None] == counts[0][None]).double()
        rows, hits = there.sum(0), (there * seen.hit[:, None]).sum(0)
        if bool((rare & (rows >= LEAST_ROWS)).any()) and bool(
            (frequent & (rows >= LEAST_ROWS)).any()
        ):
            asked.append((seen.split, rows, hits, rows >= LEAST_ROWS))
    tests = sum(int((rare & enough).sum()) for *_, enough in asked)
    for split, rows, hits, enough in asked:
        known = frequent & enough
        others = float((hits / rows)[known].mean())
        # One more hit and one more miss: a share of 1 is never certain.
        usual = (others * float(rows[known].sum()) + 1) / (float(rows[known].sum()) + 2)
        chances = [
            (at_most(math.ceil(hits[c]), int(rows[c]), usual), c)
            for c in (rare & enough).nonzero().flatten().tolist()
            if float(hits[c] / rows[c]) < enough_hits * others
        ]
        if chances and min(chances)[0] * tests < BY_CHANCE:
            worst = min(chances)[1]
            return Told(split, worst, float(hits[worst] / rows[worst]), others)
    return None


def _measure(facts: Facts) -> Measure | None:
    """Return the measure that weights are judged by: the loss as asked may rise, and rightly so.

    Every class weighs alike, by its frequency in training; None where the user has a metric.
    """
    counts = counts_of(facts)
    if facts.exp.metric is not None or counts is None:
        return None
    ids, number = counts
    weight = number.sum() / (len(number) * number)

    def of(said: Any, y: Any) -> float:
        label = labels_of(facts, y)
        told = answers_of(said, y, facts, None)
        if label is None or told is None or told.shape != label.shape:
            return math.nan
        there = (label.cpu()[..., None] == ids).double()
        return float(((there * weight).sum(-1) * (told == label).cpu().double()).mean())

    return Measure("rows recognised, every class weighing alike,", of)


def weigh(exp: Experiment) -> str:
    """Weight every class by the inverse of its frequency, with a mean weight of 1 over the rows."""
    if exp.step is not None:
        message = "the step is the user's own and may use another loss"
        raise CannotRepair(message)
    facts = Facts(exp)
    counts = counts_of(facts)
    if counts is None:
        message = "the targets are not one class a row"
        raise CannotRepair(message)
    ids, number = counts
    weight = number.sum() / (len(number) * number)
    old = exp.judge or exp.loss
    y = facts.batch[1]
    two = facts.kind == "binary" or tags_of(facts) == 1
    if not y.is_floating_point() and y.ndim > 1 and facts.outputs.shape[2:] != y.shape[1:]:
        message = "the loss is told the classes in an order of its own"
        raise CannotRepair(message)
    if two and facts.loss.name in ("bce_logits", "bce"):
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
    passes=400,
    cost=lambda facts, finding: 2 * STEPS + 6 if _told(finding) else price(facts, longer=True),
    weak=lambda finding: not _told(finding),
)
