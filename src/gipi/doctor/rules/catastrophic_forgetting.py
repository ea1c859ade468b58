"""What the model could do before is lost while it learns the new."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, TensorDataset

from gipi.doctor.edits import reloaded
from gipi.doctor.experiment import outputs, tensors, whole
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.probes import after_steps, loss_on
from gipi.doctor.rates import times_lr
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import take
from gipi.doctor.trials import some
from gipi.doctor.twins import inputs_of, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Restored
    from gipi.doctor.trace import Trace

POINTS = 0.05
RISE = 0.25
REPLAYED, TIMES = 0.02, 3.0
"""Share of old rows among the new ones from which a run replays; it is judged at its end alone, and
by so many times the loss."""
GONE = 0.5
"""Share of what was known whose loss is forgetting, however many old rows come again."""
WON, FEW = 0.5, 8
"""Share of the lost that half of the old rows must win back for the others, and rows in a half."""
PRICE = 0.5
"""Share of what is won back that the new task may lose for it: where rows contradict, it is all."""
LEAST, MOST = 40, 100
"""Steps by which that is asked; between them a quarter of the run."""
MOST_ROWS = 2048
REPLAY, ALIKE = 0.25, 1.0
"""Rows of the old task beside the new ones, as a share of these; where that does not suffice."""


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield the finding where the declared old task is done worse than before the first step."""
    old = facts.exp.declared.get("old_task")
    if old is None or facts.start is None:
        return
    rows = whole(old, MOST_ROWS, facts.exp.device)
    if rows is None:
        return
    then, now = score(facts.start.exp, rows), score(facts.exp, rows)
    if then is None or now is None:
        return
    lost = then[0] - now[0]
    noise = 2 * math.hypot(then[1], now[1])
    again = replayed(facts)
    mixed = again > REPLAYED
    gone = then[2] and lost > GONE * then[0]
    if trace.done < 1 and (mixed or not gone):
        return  # what is disturbed at first comes back
    times = TIMES if mixed else 1.0
    if then[2]:
        bad = lost > max(times * POINTS, noise)
        what = f"{then[0]:.1%} of the old task's rows were answered rightly, {now[0]:.1%} now"
    else:
        bad = lost > times * RISE * abs(then[0]) and lost > noise
        what = f"the old task's loss was {-then[0]:.4g} and is {-now[0]:.4g}"
    if not bad:
        return
    yield Finding(
        "catastrophic_forgetting",
        f"{what}, after {trace.step} steps on the new one"
        + (f" with {again:.1%} of old rows among them" if again else ""),
        "mix rows of the old task into every epoch, or train with a tenth of the rate and keep the "
        "weights near the old ones",
        severity="hint" if mixed and not gone else "problem",
        evidence={"before": then[0], "now": now[0], "step": trace.step, "replayed": again},
        confirmed=bool(mixed or gone),
        phase="epoch",
        strength=max(1.0, lost / POINTS) if then[2] else 2.0,
        repairs=(
            Repair("replay old rows", replay, proof="exact",
                   edit="train on new rows and a quarter as many old ones"),
            Repair("replay old rows at lr / 10", slow_replay, proof="not worse",
                   edit="train on new rows and as many old ones, lr = lr / 10"),
            Repair("lr / 10", times_lr(0.1), proof="not worse", edit="lr = lr / 10",
                   setting="lr"),
        ),
        restored=_restored(rows, then),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Go on from the end with half of the old rows mixed in, and ask the other half.

    New rows may hold the old task without holding the declared rows. What is lost beside them is
    the price of doing both: more old rows win next to nothing back, or as much is lost of the new.
    """
    assert facts.start is not None
    first, exp = facts.start.exp, facts.exp
    old = whole(first.declared["old_task"], MOST_ROWS, first.device)
    if old is None or not all(isinstance(part, Tensor) for part in old) or len(old[1]) < 2 * FEW:
        return finding
    (X, y), new = old, some(facts.start.val or facts.start.train, MOST_ROWS)
    kept, asked = ((X[i::2], y[i::2]) for i in (0, 1))
    steps = _asked_steps(facts, finding)

    def mixed(twin: Experiment) -> None:
        twin.declared, twin.scheduler = {**twin.declared, "old_task": kept}, None
        for group, begun in zip(
            twin.optimizer.param_groups, first.optimizer.param_groups, strict=True
        ):
            group["lr"] = begun["lr"]  # a schedule may have come to its end
        replay(twin, share=ALIKE)

    try:
        twin = after_steps(exp, steps, change=mixed)[1]
        facts.passes += steps
        begun, plain, helped = (loss_on(e, *asked) for e in (first, exp, twin))
        price = max(0.0, loss_on(twin, *new) - loss_on(exp, *new)) if new is not None else 0.0
    except (CannotRepair, RuntimeError, ValueError, IndexError, TypeError):
        return finding.but(severity="hint")
    won = plain - helped
    if not math.isfinite(helped) or not won > WON * (plain - begun) or price > PRICE * won:
        return None
    told = {"old_loss_as_is": plain, "old_loss_with_old_rows": helped, "old_loss_before": begun,
            "new_loss_lost": price}  # fmt: skip
    return finding.but(confirmed=True, evidence={**finding.evidence, **told})


def _asked_steps(facts: Facts, finding: Finding) -> int:
    total = (facts.start or facts).exp.total_steps
    return min(finding.step or total, max(LEAST, min(MOST, total // 4)))


def _restored(rows: Any, then: tuple[float, float, bool]) -> Restored:
    """Return the question whether a treated run does the old task as well as before its start.

    Within `POINTS` or `RISE` and the noise: that some is lost where old rows come again is the
    price of the new task, but no cure while more than that is.
    """

    def asked(treated: Experiment, untreated: Experiment) -> tuple[bool, str]:
        now, sick = score(treated, rows), score(untreated, rows)
        if now is None or sick is None:
            return False, "the old task's rows cannot be judged"
        lost, noise = then[0] - now[0], 2 * math.hypot(then[1], now[1])
        if then[2]:
            return lost <= max(POINTS, noise), (
                f"{now[0]:.1%} of the old task's rows are answered rightly, {sick[0]:.1%} without "
                f"the change, {then[0]:.1%} before the run"
            )
        return lost <= max(RISE * abs(then[0]), noise), (
            f"the old task's loss is {-now[0]:.4g}, {-sick[0]:.4g} without the change, "
            f"{-then[0]:.4g} before the run"
        )

    return asked


def replayed(facts: Facts) -> float:
    """Return the share of the training rows that are rows of the old task; 0 where none is known.

    A net that must also tell old from new does the old a little worse than one that did nothing
    else: that is the price of the new task, no forgetting.
    """
    first = facts.start or facts
    if "replayed" not in first.notes:
        first.notes["replayed"] = 0.0
        old = whole(first.exp.declared.get("old_task"), MOST_ROWS, first.exp.device)
        if old is not None and isinstance(old[0], Tensor) and first.train is not None:
            new = keys_of(inputs_of(first.exp.train, first.train))
            if len(new):
                there = torch.isin(new, keys_of(old[0]))
                first.notes["replayed"] = float(there.double().mean())
    found: float = first.notes["replayed"]
    return found


def score(exp: Experiment, rows: Any) -> tuple[float, float, bool] | None:
    """Return how well rows are done, its standard error, and whether that is a share of rows.

    The share of right answers where targets are classes, else minus the loss.
    """
    X, y = rows
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            said = outputs(exp, X)
            if isinstance(y, Tensor) and not y.is_floating_point() and isinstance(said, Tensor):
                if said.ndim == y.ndim + 1:
                    right = said.argmax(1 if said.shape[2:] == y.shape[1:] else -1) == y
                    return *_share(right, y >= 0), True
                return None
            value = float((exp.judge or exp.loss)(said, y))
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None
    return (-value, 0.0, False) if math.isfinite(value) else (-math.inf, 0.0, False)


def _share(right: Tensor, known: Tensor) -> tuple[float, float]:
    """Return the share of right answers, and its standard error by rows: places go together.

    The variance of a ratio of sums (Cochran 1977, Sampling Techniques, section 2.11).
    """
    asked = known.reshape(len(known), -1).sum(1).double()
    given = (right & known).reshape(len(known), -1).sum(1).double()
    share = float(given.sum() / asked.sum())
    off = (given - share * asked).square().sum()
    return share, float(off.sqrt() / asked.sum())


def slow_replay(exp: Experiment) -> str:
    """Mix as many rows of the old task in as there are new ones, at a tenth of the rate.

    A rate that washes everything out leaves nothing that old rows could hold.
    """
    return f"{replay(exp, share=ALIKE)}, {times_lr(0.1)(exp)}"


def replay(exp: Experiment, *, share: float = REPLAY) -> str:
    """Mix rows of the old task into the training rows."""
    old = whole(exp.declared.get("old_task"), MOST_ROWS, exp.device)
    if old is None or tensors(old) is None:
        message = "the old task's rows are not two tensors"
        raise CannotRepair(message)
    new = tensors(exp.train)
    if new is not None:
        if new[0].shape[1:] != old[0].shape[1:] or new[1].shape[1:] != old[1].shape[1:]:
            message = "rows of the two tasks have different shapes"
            raise CannotRepair(message)
        chosen, said = drawn(len(old[0]), share * len(new[0]), exp.seed)
        exp.train = (torch.cat([new[0], take(old[0], chosen).to(new[0])]),
                     torch.cat([new[1], take(old[1], chosen).to(new[1])]))  # fmt: skip
        exp.shuffle = True
        return f"{said} of the old task are trained on beside {len(new[0])} new ones"
    loader = exp.train
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        message = "rows cannot be mixed into a stream"
        raise CannotRepair(message)
    rows: Any = loader.dataset
    chosen, said = drawn(len(old[0]), share * len(rows), exp.seed)
    both: Any = ConcatDataset([loader.dataset, TensorDataset(old[0][chosen], old[1][chosen])])
    exp.train = reloaded(loader, both, shuffle=True)
    return f"{said} of the old task are trained on beside {len(rows)} new ones"


def drawn(there: int, wanted: float, seed: int) -> tuple[Tensor, str]:
    """Return which of the old rows are mixed in, and how many in words.

    Few are told more than once, all equally often: it is their share of the steps that holds the
    weights (Chaudhry et al. 2019, arXiv:1902.10486: tiny memories are learned by heart and still
    keep the task).
    """
    count = max(1, round(wanted))
    order = torch.randperm(there, generator=torch.Generator().manual_seed(seed))
    times = max(1, round(count / there))
    if times == 1:
        chosen = order[:count]
        return chosen, f"{len(chosen)} rows"
    return order.repeat(times), f"{there} rows, each {times} times,"


RULE = Rule(
    code="catastrophic_forgetting",
    title="the old task is forgotten",
    looks="the new task gets better and the old one falls from the first steps on",
    why="nothing in the new rows keeps the weights where the old task needs them",
    do="mix old rows in (5 to 25 %), train with a tenth of the rate, or hold the weights near the "
    "old ones",
    source="McCloskey and Cohen 1989; Kirkpatrick et al. 2017, arXiv:1612.00796",
    during=during,
    confirm=confirm,
    passes=MOST,
    cost=_asked_steps,
    causes=("underfit",),
)
