"""Some labels are wrong: rows that every learner places firmly in another class than they carry."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.agreed import KNOWS, agreed
from gipi.doctor.edits import kept, stored
from gipi.doctor.experiment import outputs
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.mistaken import FLOOR, Wrong, wrong_of_two
from gipi.doctor.one_sided import LIKE, OneSided, one_sided, probabilities
from gipi.doctor.passed_off import passed_off
from gipi.doctor.patches import patches, standard
from gipi.doctor.rule import Rule
from gipi.doctor.shallow import ask_ridge, ridge
from gipi.doctor.sheet import MOST_ROWS, classes_of, linear_answer, origin, sheet
from gipi.doctor.sides import margin, speaks_against
from gipi.doctor.told import told_of_train, told_of_val
from gipi.doctor.wrong_numbers import TURNED, wrong_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.sheet import Sheet
    from gipi.doctor.trace import Trace

LEAST, LEAST_VAL = 250, 100
MANY = 400
"""Rows below which long tails are too seldom told from wrong labels for more than a hint."""
FIRM = 0.25
"""Share of the rows that are placed most firmly."""
FLAT, FLATTER = 0.6, 0.75
"""Errors among firm rows, as a share of all errors: natural errors dwell near the border.
The second where over two fifths of what guessing costs is wrong."""
HARD = 0.3
"""Errors of learners of pixels from which on learners of patches are asked."""
EXCESS = 0.06
"""Training rows must be told worse than validation rows by this where only they are noisy."""
SEEN = 0.2
"""Share of the run from which on the net is asked."""
SURE = 9.0
"""Twice the gain in log-likelihood that a learner and the net must show together: the sum is above
9 by chance in one of a thousand."""
EVEN = 0.35
"""Share of the rarer of two classes from which on the border lies where both are as likely."""
GROWS = 2.5
"""Standard errors from which on errors grow with the size of rows: even ones do by chance in one of
160; those of t distributions with two degrees of freedom by 5 to 7."""
MUCH = 0.15
"""Share of wrong labels that two classes with long tails are seldom taken for."""


@dataclass(frozen=True)
class Errors:
    """How often rows are placed in another class than they carry: all rows, and firm ones.

    two  what wrong labels explain of it, where there are two classes
    """

    every: float
    firm: float
    rows: int
    two: Wrong | None = None

    @property
    def flat(self) -> bool:
        """Whether errors are as frequent where the learner is sure."""
        m = FIRM * self.rows
        se = math.sqrt(max(self.firm * (1 - self.firm), 1e-4) / m)
        return self.firm - 2 * se > FLOOR / 2 and self.firm >= FLAT * self.every > 0


def _even(told_nk: Tensor, train: Sheet) -> bool:
    """Whether errors among firm rows are no more frequent far out than near by.

    Wrong labels fall on any row. Of two clouds with heavy tails the far rows are as likely of the
    one as of the other, while answers there are firmest: errors grow with the size of a row.
    """
    wrong = (told_nk.argmax(1) != train.Y.argmax(1)).double()
    sure = margin(told_nk)
    firm = sure >= sure.quantile(1 - 2 * FIRM)
    return _rank_z(wrong[firm], train.straight.norm(dim=1)[firm]) < GROWS


def _rank_z(hit_n: Tensor, value_n: Tensor) -> float:
    """Return the standard score of the ranks that hits have: z = r √n, r their correlation."""
    rank = value_n.argsort().argsort().double()
    both = torch.stack([hit_n.double(), rank])
    r = float(torch.corrcoef(both)[0, 1]) if float(hit_n.std()) > 0 else 0.0
    return r * math.sqrt(len(hit_n))


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where labels contradict firm answers, of shallow learners and of the net.

    Natural errors dwell where classes meet: among the rows that a learner places most firmly they
    vanish. Wrong labels do not. Where validation labels are clean, training rows that the net has
    not yet learned by heart are told worse than rows it has never seen.

    Where one kind of rows was given another label no answer about them is firm: that is hinted at.
    """
    if facts.kind == "numbers":
        yield from _of_numbers(facts, trace)
        return
    found = list(_anywhere(facts, trace))
    yield from found or _of_one_kind(facts, trace)


def _of_one_kind(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the hint at classes that pass for others: nobody can say whether by their labels."""
    found = _one_kind(facts) if trace.done >= 1 else None
    if found is None:
        return
    pairs, rows = found
    first = pairs[0]
    more = "".join(f", and {p.share:.0%} of class {p.like} class {p.given}" for p in pairs[1:])
    yield Finding(
        "label_noise",
        f"{first.share:.0%} of the rows that look like class {first.like} carry class "
        f"{first.given}{more}, whatever they look like, while {first.apart} validation rows of "
        f"class {first.given} look otherwise and other classes are told well: some of one class "
        "may have been given the label of the other",
        "look at the rows listed: they carry "
        + " or ".join(f"class {p.given} and look like class {p.like}" for p in pairs)
        + "; if their labels are right, these inputs do not tell the two apart",
        severity="hint",
        where=tuple(f"class {c}" for p in pairs for c in (p.like, p.given)),
        rows=tuple(rows[:50].tolist()),
        evidence={"share": first.share, "told_apart": first.told, "apart": first.apart},
        phase="epoch",
        strength=first.share / FLOOR,
    )


def _one_kind(facts: Facts) -> tuple[list[OneSided], Tensor] | None:
    """Return the pairs of classes as the net says by itself, or learners with it; and rows."""
    start = origin(facts)
    val = probabilities(facts, start.val)
    found = one_sided(*val) if val is not None else None
    train = probabilities(facts, start.train) if found is not None else None
    if found is None or train is None:
        return passed_off(facts, val) if val is not None else None
    p, label = train
    like = p[:, found.like]
    rows = ((label == found.given) & (like > LIKE)).nonzero().flatten()
    return [found], rows[like[rows].argsort(descending=True)]


def _of_numbers(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where some numbers follow another line than the others."""
    found = wrong_numbers(facts, trace) if trace.done >= 1 else None
    if found is None:
        return
    line = found.line
    if line.one:
        how, do = "are one number and do not heed", "it may stand for a number that is missing"
    elif line.slope > 1:
        how = f"rise {line.slope:.2g} times as steeply as the others with"
        do = "they may be in other units, or have a digit too many"
    elif line.slope <= TURNED:
        how, do = "fall with", "their sign may be turned"
    else:
        how, do = "do not follow", "they may belong to other rows"
    yield Finding(
        "label_noise",
        f"about {line.share:.0%} of the {'targets' if found.both else 'training targets'} {how} "
        "what a regression on other rows says, which tells the rest well: wide scatter follows it",
        f"look at the rows listed: {do}; correct them or leave them out, or take a loss that heeds "
        "far ones less (nn.HuberLoss)",
        severity="hint",
        rows=found.rows,
        evidence={"share": line.share, "slope": line.slope, "gain": line.gain},
        phase="epoch",
        strength=line.share / FLOOR,
        repairs=(Repair("a loss that heeds far targets less", None, mode="advise",
                        edit="loss=nn.HuberLoss()"),),
    )  # fmt: skip


def _anywhere(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where labels of any rows contradict firm answers."""
    train, start = sheet(facts), origin(facts)
    if trace.done < SEEN or train is None or train.label is None or len(train.F) < LEAST:
        return
    number = train.Y.shape[1]
    heard = _of_learners(facts)
    learners = [told for _, told in heard]
    if trace.done >= 1:
        heard = [*heard, *_of_patches(facts, min(h[0].every for h in heard))]
    # One learner's sure answers are enough; of two such the better one.
    best, told = min(heard, key=lambda h: (not h[0].flat, h[0].every))
    val = sheet(facts, "val")
    if val is None or val.label is None or len(val.F) < LEAST_VAL:
        return
    chance = 1 - float(train.Y.mean(0).max())
    better = min(h[0].every for h in heard)
    firm = best.every <= min(0.65 * chance, 1.5 * better) and best.flat and best.firm >= FLOOR
    firm = firm and (best.every <= 0.4 * chance or best.firm >= FLATTER * best.every)
    likely = not firm and trace.done >= 1 and best.flat and best.firm >= FLOOR
    if likely and best.every <= min(KNOWS * chance, 1.5 * better):
        both_say = agreed(facts)  # much is wrong: one learner by itself cannot say what
        firm = likely = both_say is not None and both_say.flat(chance)
    finer = min(heard, key=lambda h: h[0].every)
    two = finer[0].two if chance >= EVEN else None
    if not firm and not (two is not None and two.heard):
        return
    net_val, net_train = _net(facts, start.val), _net(facts, start.train)
    if net_val is None or net_train is None:
        return
    seen = facts.notes.setdefault("errors of the net", [])
    seen.append(net_val)
    there, linear = errors(told_of_val(facts), val.Y), heard[0][0]
    # A net that is worse than a shallow learner has not learned enough to be asked, unless it takes
    # the learner's side. At the end it is asked at its best: later it may have learned wrong labels
    # by heart.
    fair = min(seen, key=lambda e: e.every)
    both = fair.firm >= 0.5 * best.firm and fair.every >= 0.5 * best.every
    both = both and trace.done >= 1
    worse = fair.every > 1.3 * best.every + 0.03
    both = both and (not worse or speaks_against(facts, told, learners))
    excess = min(net_train.every - net_val.every, linear.every - there.every)
    se = math.sqrt(max(there.every * (1 - there.every), 1e-3) / there.rows)
    alone = excess > max(EXCESS, 3 * se)
    share, least = best.firm, 1.0 if likely else FLOOR + 0.02
    if not firm or net_val.every > 0.75 * chance or not (both or alone):
        if two is None or trace.done < 1 or not _explained(two, seen, alone=alone):
            return
        (best, told), share = finer, two.share
        if not _even(told, train):
            return
        if not alone:  # the shape of a curve is all that says so
            least = MUCH
    elif number == 2 and not alone and not _even(told, train):
        least = 1.0  # long tails look so too
    if len(train.F) < MANY:
        if not _even(told, train):
            return
        least = 1.0
    given = train.Y.argmax(1)
    sure = margin(told)
    wrong = (told.argmax(1) != given) & (sure >= sure.quantile(1 - 2 * FIRM))
    rows = train.rows[wrong][sure[wrong].argsort(descending=True)]
    pairs = torch.zeros(number, number, dtype=torch.int64)
    pairs.index_put_((given[wrong], told.argmax(1)[wrong]), torch.ones(int(wrong.sum()),
                     dtype=torch.int64), accumulate=True)  # fmt: skip
    where = "training labels" if alone else "labels of both splits"
    yield Finding(
        "label_noise",
        f"about {share:.0%} of the {where} contradict what their neighbours and the net say, "
        "also where both are sure; natural errors would vanish there",
        "look at the rows listed and correct them; until then smooth the labels, and stop early",
        severity="problem" if share > least - 1e-9 else "hint",
        rows=tuple(rows[:50].tolist()),
        evidence={"share": share, "errors": best.every, "errors_net_val": net_val.every,
                  "errors_net_train": net_train.every, "given_by_told": pairs.tolist()},
        confirmed=True,
        phase="epoch",
        strength=share / FLOOR,
        repairs=(
            Repair("smooth the labels", smooth, mode="ask",
                   edit="nn.CrossEntropyLoss(label_smoothing=0.1)"),
            Repair("leave out doubtful rows", leave_out, mode="ask",
                   edit="keep the rows that are not listed"),
        ),
    )  # fmt: skip


def _explained(two: Wrong, net: list[Errors], *, alone: bool) -> bool:
    """Whether wrong labels explain the answers of a learner and of the net far better than none.

    net    its errors in validation at the checks of a run: the clearest counts
    alone  validation labels are clean: the learner, which has training rows, says it by itself
    """
    there = max((e.two for e in net if e.two is not None), key=lambda w: w.gain, default=None)
    if not two.heard:
        return False
    if alone:
        return two.gain >= SURE
    return there is not None and there.heard and two.gain + there.gain >= SURE


def _of_learners(facts: Facts) -> list[tuple[Errors, Tensor]]:
    """Return errors and answers of both shallow learners, the linear one first; asked once."""
    train, start = sheet(facts), origin(facts)
    assert train is not None
    if "errors of learners" not in start.notes:
        told = told_of_train(facts)
        start.notes["errors of learners"] = [(errors(t, train.Y), t) for t in told]
    found: list[tuple[Errors, Tensor]] = start.notes["errors of learners"]
    return found


def _of_patches(facts: Facts, every: float) -> list[tuple[Errors, Tensor]]:
    """Return errors and answers of a regression on likeness to patches, of images.

    Asked where pixels tell so little that even right labels look wrong (`every`, their errors), and
    the net, which sees more, errs where it is sure.
    """
    train, start = sheet(facts), origin(facts)
    if train is None or start.X is None or start.inputs != "image" or every < HARD:
        return []
    net = _net(facts, start.val)
    if net is None or net.firm < FLOOR:
        return []
    X = start.X[train.rows.to(start.X.device)].cpu()
    likeness = patches(X)
    if likeness is None:
        return []
    answer = ask_ridge(ridge(standard(likeness(X))), train.Y)[0].told_nk
    return [(errors(answer, train.Y), answer)]


def errors(told_nk: Tensor, Y_nk: Tensor) -> Errors:
    """Return the errors of answers, over all rows and over the firmest."""
    wrong = (told_nk.argmax(1) != Y_nk.argmax(1)).double()
    firm = margin(told_nk).argsort(descending=True)[: max(1, round(FIRM * len(wrong)))]
    two = wrong_of_two(told_nk, Y_nk.argmax(1)) if told_nk.shape[1] == 2 else None
    return Errors(float(wrong.mean()), float(wrong[firm].mean()), len(wrong), two)


def smooth(exp: Experiment) -> str:
    """Smooth the labels by a tenth."""
    if type(exp.loss) is not nn.CrossEntropyLoss:
        message = "the loss is not nn.CrossEntropyLoss"
        raise CannotRepair(message)
    exp.judge = exp.judge or exp.loss
    old = exp.loss
    exp.loss = nn.CrossEntropyLoss(
        old.weight, ignore_index=old.ignore_index, label_smoothing=max(0.1, old.label_smoothing)
    )
    return "labels are smoothed by 0.1"


def leave_out(exp: Experiment) -> str:
    """Leave out rows whose label contradicts a firm answer of their neighbours."""
    pair = stored(exp.train)
    plain = copy.copy(exp)
    plain.train = pair if pair is not None else exp.train
    facts = Facts(plain)
    train = sheet(facts)
    if train is None or pair is None or len(train.F) < len(pair[0]):
        message = "the rows are too many, or come from a stream"
        raise CannotRepair(message)
    told = linear_answer(facts).told_nk
    sure = margin(told)
    wrong = (told.argmax(1) != train.Y.argmax(1)) & (sure >= sure.quantile(1 - 2 * FIRM))
    keep = torch.ones(len(pair[0]), dtype=torch.bool)
    keep[train.rows[wrong]] = False
    exp.train = kept(exp.train, keep)
    return f"left out {int(wrong.sum())} training rows whose label contradicts their neighbours"


def _net(facts: Facts, data: tuple[Any, Any] | None) -> Errors | None:
    """Return the errors of the net in evaluation mode."""
    if data is None or not isinstance(data[1], Tensor):
        return None
    label = classes_of(facts, data[1])
    if label is None:
        return None
    with torch.random.fork_rng(devices=[]):
        said = outputs(facts.exp, data[0])
    if not isinstance(said, Tensor) or not said.is_floating_point():
        return None
    if said.reshape(len(said), -1).shape[1] == 1:
        flat = said.reshape(-1)
        flat = flat.logit(1e-6) if facts.loss.of_probabilities else flat
        said = torch.stack([-flat, flat], 1)
    good = label >= 0
    if said.ndim != 2 or int(label.max()) >= said.shape[1] or not bool(good.any()):
        return None
    wrong = (said.argmax(1) != label)[good].cpu().double()
    firm = margin(said)[good].cpu().argsort(descending=True)
    firm = firm[: max(1, round(FIRM * len(wrong)))]
    two = None
    if said.shape[1] == 2:
        some = good.nonzero().flatten()
        some = some[
            torch.arange(min(len(some), MOST_ROWS)) * len(some) // min(len(some), MOST_ROWS)
        ]
        two = wrong_of_two(said[some].cpu(), label[some].cpu())
    return Errors(float(wrong.mean()), float(wrong[firm].mean()), len(wrong), two)


RULE = Rule(
    code="label_noise",
    title="some labels are wrong",
    looks="training loss goes on falling long after validation loss has turned; the last rows that "
    "are learned are those with wrong labels",
    why="a net with room enough learns wrong labels by heart, last of all, and answers wrongly "
    "around them",
    do="look at the rows listed, correct them, smooth the labels or leave the rows out, stop early",
    source="Northcutt, Jiang and Chuang 2021, Confident learning, arXiv:1911.00068; Zhang et al. "
    "2017, arXiv:1611.03530",
    during=during,
    causes=("overfit", "plateau"),
)
