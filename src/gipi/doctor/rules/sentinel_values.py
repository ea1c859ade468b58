"""A number stands for "unknown": -999 among ages, 1e20 among temperatures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.edits import kept, put_in_front, splits_of
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.gaps import NEAR, Fill, add_marks
from gipi.doctor.named import called
from gipi.doctor.order import quantiles
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import channels_first, columns
from gipi.doctor.tape import WEIGHTED, taped
from gipi.doctor.trials import Outcome, lead, trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment

MASS = 0.01
LEAST_ROWS = 5
GAP = 5.0
"""Distance to the nearest other value, in interquartile ranges of the others."""
DISTINCT, FEWEST, GRADES = 10, 3, 5.0
"""Different other values from which on they count as numbers; of fewer, grades or counts, there
must be so many, and the gap must be this many times as wide as they reach."""
CODES = 4
"""Codes that a column may have for different reasons of not knowing."""
CUSTOMARY = frozenset(
    (0.0, -1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0,
     1e20, -1e20, 1e30, -1e30, 1e10, -1e10)
)  # fmt: skip
LENIENT, CLOSE = 0.9, 0.5
"""Part of what is asked that all columns are looked at for; and gap, of the spread of the others,
below which no further code is looked for."""
STEPS = 60
WINS = 0.03
"""The loss must fall by this share more where the value is filled."""
LATER, BEGINS, LOWER = 200, 0.05, 0.15
"""Steps after which, or fewer that can be afforded, it is asked again where the loss begins to be
lower, by this share of what it is without filling; by which it then must be, of rows that were not
trained on as well."""


@dataclass(frozen=True)
class Sentinel:
    """One value of one column, far from all others. mean, std: of the others.

    value  the furthest where there are several, as 77, 88 and 99; codes: all of them
    """

    column: int
    value: float
    share: float
    gap: float
    median: float
    mean: float
    std: float
    codes: tuple[float, ...] = ()

    def within(self, column: Tensor) -> Tensor:
        """Return where a column holds one of the codes."""
        return torch.isin(column.detach().cpu().double(), torch.tensor(self.codes).double())


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a frequent value that is far from everything else in its column."""
    X = facts.X
    if X is not None and facts.inputs in ("table", "sequence", "image") and len(X) >= 20:
        flat = columns(facts, X)
        found = sentinels(flat)
        if X.ndim == 3:
            found = _not_padding(_places(facts, X), flat, found)
        if X.ndim == 4:  # a border or a mask: an unknown pixel has known ones on both sides
            lines = _places(facts, X).flatten(0, 1)
            found = [s for s in found if _inside(s.within(lines[..., s.column]))]
        found = [s for s in found if _arrives(facts, X, s)]
        if found:
            yield _of_inputs(called(facts.exp, flat.shape[1]), found)
    y = facts.y
    if y is not None and facts.kind == "numbers" and y.ndim <= 2 and len(y) >= 20:
        flat = y.reshape(len(y), -1).detach().cpu().double()
        if flat.shape[1] <= 16:
            found = sentinels(flat)
            if found:
                yield _of_targets(found, y)


def _of_inputs(names: list[str], found: list[Sentinel]) -> Finding:
    named = [names[s.column] for s in found]
    worst = max(found, key=lambda s: s.gap)
    return Finding(
        "sentinel_values",
        f"{worst.value:.6g} stands in {worst.share:.1%} of {named[found.index(worst)]} and is "
        f"{worst.gap:.3g} interquartile ranges away from every other value: it seems to mean "
        "'unknown', and the net reads it as a quantity",
        "fill it like a gap, by the median of the others, with a column that says where it was",
        where=tuple(named),
        evidence={n: {"value": s.value, "share": s.share, "gap": s.gap, "median": s.median}
                  for n, s in zip(named, found, strict=True)},
        strength=min(worst.gap / GAP, 1e3),
        repairs=(
            Repair("fill the value within the model", fill, proof="not worse",
                   edit=f"X[X == {worst.value:.6g}] = nan; then fill by the median of the "
                   "training rows, with a column that says where"),
        ),
    )  # fmt: skip


def _of_targets(found: list[Sentinel], y: Tensor) -> Finding:
    worst = max(found, key=lambda s: s.share)
    coded = worst.within(y.reshape(len(y), -1)[:, worst.column])
    rows = coded.nonzero().flatten()
    return Finding(
        "sentinel_values",
        f"the target is {worst.value:.6g} in {worst.share:.1%} of the rows and never anything near "
        f"it ({worst.gap:.3g} interquartile ranges away): it seems to mean 'unknown'",
        "take rows without a known target out of training and validation",
        severity="problem" if worst.value in CUSTOMARY else "hint",
        where=("target",),
        rows=tuple(rows[:20].tolist()),
        evidence={"value": worst.value, "share": worst.share, "gap": worst.gap},
        confirmed=worst.value in CUSTOMARY,
        strength=min(worst.gap / GAP, 1e3),
        repairs=(
            Repair("drop rows without a target", drop, mode="ask", proof="exact",
                   edit=f"keep = y != {worst.value:.6g}; X, y = X[keep], y[keep]"),
        ),
    )  # fmt: skip


def sentinels(flat: Tensor) -> list[Sentinel]:
    """Return the columns of (places, columns) in which a value seems to stand for "unknown"."""
    found = (sentinel(flat[:, j], j) for j in _with_a_value_apart(flat))
    return [s for s in found if s is not None]


def _with_a_value_apart(flat: Tensor) -> list[int]:
    """Return the columns with frequent lowest or highest values that are not close to the others.

    All columns at once, and a little more leniently than `sentinel` looks at one.
    """
    finite = flat.isfinite()
    n = finite.sum(0)
    apart = torch.zeros_like(n, dtype=torch.bool)
    for sign in (1.0, -1.0):
        x = torch.where(finite, sign * flat, torch.inf)
        there = torch.zeros_like(finite)
        open_ = n >= 20
        for _ in range(CODES):
            value = torch.where(there, torch.inf, x).amin(0)
            more = x == value
            count = (there | more).sum(0)
            often = more.sum(0) >= (MASS * n).clamp_min(LEAST_ROWS)
            open_ &= often & (count <= 0.9 * n) & value.isfinite()
            columns_ = open_.nonzero().flatten()
            if not len(columns_):
                break
            there = there | more
            others = torch.where(there | ~finite, torch.nan, x).T[columns_].contiguous()
            at = torch.tensor([0.005, 0.25, 0.75, 0.995], dtype=x.dtype)
            low, q1, q3, high = quantiles(others, at)
            gap = torch.where(others.isnan(), torch.inf, others).amin(1) - value[columns_]
            spread = torch.minimum(q3 - q1, (high - low) / 3)
            wide = (gap >= LENIENT * 0.5 * (high - low)) & (gap >= LENIENT * 0.6 * GAP * spread)
            apart[columns_[wide]] = True
            open_[columns_[gap < CLOSE * spread]] = False  # the next value is one of the others
    return [int(j) for j in apart.nonzero().flatten()]


def sentinel(column: Tensor, number: int) -> Sentinel | None:
    """Return the value of a column that seems to stand for "unknown", None where there is none."""
    column = column[column.isfinite()]
    if len(column) < 20:
        return None
    found = [_at_an_end(column, number, highest=highest) for highest in (False, True)]
    return max((s for s in found if s is not None), key=lambda s: s.gap, default=None)


def _at_an_end(column: Tensor, number: int, *, highest: bool) -> Sentinel | None:
    """Return the code, or the few codes, at an end of a column, with a gap to all others."""
    n, codes = len(column), list[float]()
    others = column
    while len(codes) < CODES:
        value = float(others.max() if highest else others.min())
        rest = others[others != value]
        if len(others) - len(rest) < max(LEAST_ROWS, MASS * n) or n - len(rest) > 0.9 * n:
            return None
        codes, others = [*codes, value], rest
        values = torch.unique(others[:100_000])
        if len(values) < FEWEST:
            return None
        low, q1, mid, q3, high = torch.quantile(
            others[:100_000], torch.tensor([0.005, 0.25, 0.5, 0.75, 0.995], dtype=torch.float64)
            ).tolist()  # fmt: skip
        reach = high - low
        spread = min(q3 - q1, reach / 3)  # half of a flat range lies between its quartiles
        if spread <= 0:
            continue
        gap = float((others - value).abs().min())
        known = value in CUSTOMARY
        wanted = 0.5 if known else 1.5
        if len(values) < DISTINCT:  # of a few grades the next one may be left out
            wanted = GRADES
        if gap < GAP * spread * (0.6 if known else 1.0) or gap < wanted * reach:
            continue
        if value == 0 and n - len(others) > 0.4 * n:  # most are zero: the rest is special
            continue
        return Sentinel(number, codes[0], 1 - len(others) / n, gap / spread, mid,
                        float(others.mean()), float(others.std()), tuple(codes))  # fmt: skip
    return None


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with the value and with it filled: the finding stands where filling wins."""
    steps = min(STEPS, max(20, facts.exp.total_steps // 2))
    plain = trial(facts, steps)
    filled = trial(facts, steps, change=fill)
    numbers = {"loss_as_is": plain.train, "loss_filled": filled.train}
    if lead(plain, filled) > WINS:
        return finding.but(confirmed=True, evidence={**finding.evidence, **numbers})
    left = (facts.allowed - facts.passes) / 2 - 2
    later = int(min(LATER, max(20, facts.exp.total_steps // 2), left))
    if _by(plain, filled) > BEGINS and later >= steps:
        # A column that the value has squeezed is read late, and little of the first loss is left.
        steps = later
        plain, filled = trial(facts, steps), trial(facts, steps, change=fill)
        if _by(plain, filled) > LOWER:
            numbers = {"loss_as_is": plain.train, "loss_filled": filled.train}
            return finding.but(confirmed=True, evidence={**finding.evidence, **numbers})
    # Where the loss says nothing within so few steps, a customary code is still worth a look.
    values = [v["value"] for v in finding.evidence.values() if isinstance(v, dict)]
    if any(v in CUSTOMARY and abs(v) >= 99 for v in values):
        return finding.but(severity="hint", evidence={**finding.evidence, **numbers})
    return None


def _by(plain: Outcome, filled: Outcome) -> float:
    """Return the share by which filling lowers the loss, of training and of validation at least."""
    pairs = ((plain.train, filled.train), (plain.val, filled.val))
    if not all(math.isfinite(a) and math.isfinite(b) and a > 0 for a, b in pairs):
        return 0.0
    return min(1 - b / a for a, b in pairs)


def fill(exp: Experiment) -> str:
    """Fill the values in front of the model; columns that had one are standardised by the rest."""
    facts = Facts(exp)
    X = facts.X
    if X is None or not X.is_floating_point() or X.ndim not in (2, 3, 4):
        message = "the input is not a table, a sequence or an image of numbers"
        raise CannotRepair(message)
    flat = columns(facts, X)
    found = sentinels(flat)
    if not found:
        message = "no such value was found again"
        raise CannotRepair(message)
    width = flat.shape[1]
    median, code = torch.zeros(width), torch.full((CODES, width), torch.nan)
    mean, std = torch.zeros(width), torch.ones(width)
    for s in found:
        median[s.column] = s.median
        code[: len(s.codes), s.column] = torch.tensor(s.codes)
        mean[s.column], std[s.column] = s.mean, s.std or 1.0
    first = X.ndim == 4 or (X.ndim == 3 and width == X.shape[1] != X.shape[2])
    filled = Fill(median.to(X.dtype), code.to(X.dtype), channels_first=first,
                  mean=mean.to(X.dtype), std=std.to(X.dtype))  # fmt: skip
    marks = torch.tensor([s.column for s in found])
    marked = X.ndim == 2 and add_marks(exp, filled, marks, X)
    put_in_front(exp, filled)
    names = called(exp, width)
    values = ", ".join(f"{s.value:.6g} of {names[s.column]}" for s in found[:4])
    more = ", and a column each says where it was" if marked else ""
    return f"{values} is filled by the median of the training rows within the model{more}"


def drop(exp: Experiment) -> str:
    """Take rows whose target stands for "unknown" out of both splits."""
    y = Facts(exp).y
    if y is None:
        message = "the targets are not one tensor"
        raise CannotRepair(message)
    flat = y.reshape(len(y), -1).detach().cpu().double()
    found = sentinels(flat)
    taken = 0
    for name, data, _, targets in splits_of(exp):
        rows = targets.reshape(len(targets), -1).cpu().double()
        bad = torch.zeros(len(rows), dtype=torch.bool)
        for s in found:
            bad |= s.within(rows[:, s.column])
        taken += int(bad.sum())
        setattr(exp, name, kept(data, ~bad))
    return f"took out {taken} rows without a known target"


def _not_padding(X_BTC: Tensor, flat: Tensor, found: list[Sentinel]) -> list[Sentinel]:
    """Keep the values that do not pad a sequence.

    Padding stands in all columns at once, and at an end of the row; a gap has values on both sides.
    """
    left = []
    for s in found:
        there = flat[s.within(flat[:, s.column])]
        apart = float((there == s.value).all(1).double().mean()) < 0.5 and flat.shape[1] > 1
        if apart or _inside(s.within(X_BTC[..., s.column])):
            left.append(s)
    return left


def _inside(there_BT: Tensor) -> bool:
    """Whether in most rows that have a value it has others before and behind it."""
    other = ~there_BT
    between = there_BT & (other.cumsum(1) > 0) & (other.flip(1).cumsum(1).flip(1) > 0)
    rows = there_BT.any(1)
    return float(between[rows].any(1).double().mean()) > 0.5 if bool(rows.any()) else False


def _places(facts: Facts, X: Tensor) -> Tensor:
    """Return rows of a table, a sequence or images with their columns last."""
    second = X.ndim == 4 or (X.ndim == 3 and channels_first(facts))
    return X.movedim(1, -1) if second else X


def _arrives(facts: Facts, X: Tensor, s: Sentinel) -> bool:
    """Whether the value reaches the first weights as it is; a model may fill it itself."""
    there = _places(facts, X)[..., s.column].reshape(len(X), -1).cpu().double() == s.value
    rows = there.any(1).nonzero().flatten()[:16]
    if not len(rows):
        return True
    key = "rows with a sentinel at the first weights"
    seen = facts.notes.setdefault(key, {})
    if s.column not in seen and len(seen) < 4:
        facts.passes += 1
        training = facts.exp.model.training
        facts.exp.model.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                first = taped(facts.exp, X[rows]).of(WEIGHTED)
        finally:
            facts.exp.model.train(training)
        seen[s.column] = first[0].inputs[0].detach() if first and first[0].inputs else None
    fed = seen.get(s.column)
    if fed is None or fed.ndim < 2:
        return True
    if X.ndim > 2 and fed.ndim == 2:  # all places side by side
        if fed[0].numel() < X[0].numel():
            return True
    else:
        fed = _places(facts, fed)
        if fed.shape[-1] <= s.column or (X.ndim == 2 and fed.shape[-1] < X.shape[-1]):
            return True
        fed = fed[..., s.column]
    return bool(((fed.cpu().double() - s.value).abs() <= NEAR * (1 + abs(s.value))).any())


RULE = Rule(
    code="sentinel_values",
    title="a number stands for 'unknown'",
    looks="one value far outside of its column, often -999 or 1e20, in more than one row in a "
    "hundred",
    why="the net takes it for a quantity: the column's spread is that of the code, what the column "
    "says is squeezed into a point, and gradients of these rows drown all others",
    do="treat the value as a gap: fill it by the median of the training rows in every split, and "
    "add a column that says where it was",
    source="Little and Rubin 2019, Statistical analysis with missing data, 3rd edition",
    before=before,
    confirm=confirm,
    passes=2 * STEPS + 4,
    causes=("unnormalised_input", "saturated_activation", "dead_relu", "exploding_gradient",
            "nan_inf", "lr_too_high", "plateau", "bad_init_scale", "oscillating_loss", "underfit",
            "train_val_shift", "preprocessing_mismatch"),
)  # fmt: skip
