"""Rows of any kind as a matrix of numbers of equal standing: what shallow learners look at.

Tables as they are; images pooled; sequences with what does not depend on the order; tokens as
counts of words, of pairs, and of words at their places. Then standardised by the training rows, cut
at five deviations, projected to a bounded width, and bent by random rectifiers so that a linear
reader sees curves (Rahimi and Recht 2008; Huang et al. 2006).

Shapes: n rows, p features, k columns of targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gipi.doctor.codes import ask_labels, codes_in, is_table
from gipi.doctor.experiment import rows_of
from gipi.doctor.shallow import Answer, Ridge, ask_neighbours, ask_ridge, neighbours, ridge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gipi.doctor.facts import Facts

Noted = TypeVar("Noted")

MOST_ROWS = 1200
WIDTH = 256
BENT = 128
WORDS, PAIRS, PLACES = 300, 128, 256
SIDE = 12
MOST_CLASSES = 12


@dataclass(frozen=True)
class Lens:
    """How rows become features: made from the training rows, used on any."""

    words: Tensor | None
    mean: Tensor
    std: Tensor
    project: Tensor | None
    bend: Tensor
    offset: Tensor

    def straight(self, X: Any) -> Tensor:
        """Return (n, p) standardised features."""
        flat = ((_raw(X, self.words) - self.mean) / self.std).clamp(-5, 5)
        return flat if self.project is None else flat @ self.project

    def __call__(self, X: Any) -> Tensor:
        """Return the features and their bent companions."""
        flat = self.straight(X)
        return torch.cat([flat, (flat @ self.bend + self.offset).relu()], 1)


@dataclass(frozen=True)
class Sheet:
    """Some rows of a split.

    rows   their numbers within `facts.train` or `facts.val`
    F, Y   features (n, p) and targets (n, k), standardised or one-hot
    label  the class of every row, None where targets are no classes
    flat   how many of the features are straight
    """

    lens: Lens
    rows: Tensor
    F: Tensor
    Y: Tensor
    label: Tensor | None
    flat: int

    @cached_property
    def ridge(self) -> Ridge:
        """The features, factorised when a regression is asked for."""
        return ridge(self.F)

    @cached_property
    def near(self) -> Tensor:
        """The numbers of the nearest rows of each, looked for when they are asked for."""
        return neighbours(self.straight)

    @property
    def straight(self) -> Tensor:
        """The straight features."""
        return self.F[:, : self.flat]


def origin(facts: Facts) -> Facts:
    """Return the facts before the first step: data are looked at once for the whole diagnosis."""
    return facts.start or facts


def noted(facts: Facts, key: str, ask: Callable[[Facts], Noted]) -> Noted:
    """Return what is asked of the facts before the first step, written down when it was asked once.

    A key belongs to one question.
    """
    first = origin(facts)
    if key not in first.notes:
        first.notes[key] = ask(first)
    return cast("Noted", first.notes[key])


def sheet(facts: Facts, split: str = "train") -> Sheet | None:
    """Return up to `MOST_ROWS` rows of a split as a sheet; None for what has no rows or targets."""
    return noted(facts, f"sheet of {split}", lambda first: _sheet(first, split))


def _sheet(facts: Facts, split: str) -> Sheet | None:
    data = facts.train if split == "train" else facts.val
    if split != "train" and sheet(facts) is None:
        return None
    if data is None or not isinstance(data[1], Tensor) or not len(data[1]):
        return None
    X, y = cpu(data[0]), data[1].detach().cpu()
    label = classes_of(facts, y)
    good = torch.isfinite(y.reshape(len(y), -1).double()).all(1)
    if label is not None:
        good &= label >= 0
    rows = good.nonzero().flatten()
    if len(rows) > MOST_ROWS:
        rows = rows[torch.arange(MOST_ROWS) * len(rows) // MOST_ROWS]
    return _of_rows(facts, X, y, rows=rows)


def in_file_order(facts: Facts, X: Tensor, y: Tensor) -> Sheet | None:
    """Return the first rows as they are stored, neighbours beside each other; all have a target."""
    X, y = cpu(X[:MOST_ROWS]), y[:MOST_ROWS].detach().cpu()
    label = classes_of(facts, y)
    good = torch.isfinite(y.reshape(len(y), -1).double()).all()
    if not bool(good) or (label is not None and bool((label < 0).any())):
        return None
    return _of_rows(origin(facts), X, y, rows=torch.arange(len(y)))


def _of_rows(facts: Facts, X: Any, y: Tensor, *, rows: Tensor) -> Sheet | None:
    if len(rows) < 2:
        return None
    label = classes_of(facts, y)
    taken = take(X, rows)
    if taken is None:
        return None
    lens = the_lens(facts)
    Y = _targets(facts, y[rows], None if label is None else label[rows])
    if lens is None or Y is None:
        return None
    return Sheet(
        lens, rows, lens(taken), Y, None if label is None else label[rows], lens.bend.shape[0]
    )


def linear_answer(facts: Facts, split: str = "train") -> Answer:
    """Return what ridge regression finds in a split; asked once."""
    return _once(facts, split, "linear", lambda s: ask_ridge(s.ridge, s.Y)[0])


def near_answer(facts: Facts, split: str = "train") -> Answer:
    """Return what the nearest neighbours find in a split; asked once."""
    return _once(facts, split, "near", lambda s: ask_neighbours(s.near, s.Y))


def _once(facts: Facts, split: str, which: str, ask: Callable[[Sheet], Answer]) -> Answer:
    def of_sheet(first: Facts) -> Answer:
        found = sheet(first, split)
        assert found is not None
        return ask(found)

    return noted(facts, f"{which} answer in {split}", of_sheet)


def label_answer(facts: Facts, split: str = "train") -> Answer | None:
    """Return what the codes of labels tell beside the numbers; None where there are none."""
    data = origin(facts).train if split == "train" else origin(facts).val
    found, codes = sheet(facts, split), codes_in(data[0]) if data is not None else None
    if found is None or codes is None or not codes.shape[1]:
        return None
    return _once(facts, split, "label", lambda s: ask_labels(codes[s.rows], s.Y))


def answers(facts: Facts, split: str = "train") -> tuple[Answer, ...]:
    """Return what all find in a split: linear, nearest neighbours, labels where there are any."""
    labels = label_answer(facts, split)
    both = linear_answer(facts, split), near_answer(facts, split)
    return both if labels is None else (*both, labels)


def silent(facts: Facts, split: str = "train") -> bool:
    """Whether none finds more than in random orders; a further one is asked where it matters.

    Not where whole numbers beside others may be words at places: they are not looked at as such.
    """
    start = origin(facts)
    data = start.train if split == "train" else start.val
    if data is not None and codes_in(data[0]) is not None:
        parts = list(data[0].values()) if isinstance(data[0], dict) else list(data[0])
        if not is_table(start, parts):
            return False
    if not linear_answer(facts, split).nothing or not near_answer(facts, split).nothing:
        return False
    labels = label_answer(facts, split)
    return labels is None or labels.nothing


def the_lens(facts: Facts) -> Lens | None:
    """Return the lens that is made from the training rows."""
    return noted(facts, "lens", _lens)


def _lens(facts: Facts) -> Lens | None:
    facts.notes["lens"] = None  # one that cannot be made is not tried again
    if facts.train is None:
        return None
    X = cpu(facts.train[0])
    n = rows_of(X)
    if n < 2:
        return None
    picked = take(X, torch.arange(min(n, MOST_ROWS)) * n // min(n, MOST_ROWS))
    return None if picked is None else _ground(picked, facts.exp.declared)


def _ground(X: Any, declared: Mapping[str, Any]) -> Lens | None:
    words = None
    if is_tokens(X):
        pads = {v for k, v in dict(declared.get("tokens") or {}).items() if k == "pad"}
        ids, counts = torch.unique(X, return_counts=True)
        good = torch.tensor([int(i) not in pads for i in ids], dtype=torch.bool)
        ids, counts = ids[good], counts[good]
        words = ids[counts.argsort(descending=True)[:WORDS]].sort().values
    raw = _raw(X, words)
    if raw is None or raw.shape[1] == 0:
        return None
    mean, std = raw.mean(0), raw.std(0)
    std = torch.where(std > 1e-12 * (1 + mean.abs()), std, torch.ones_like(std))
    generator = torch.Generator().manual_seed(0)
    width = raw.shape[1]
    project = None
    if width > WIDTH:
        project = torch.randn(width, WIDTH, generator=generator) / width**0.5
        spread = (((raw - mean) / std).clamp(-5, 5) @ project).std(0)
        project = project / spread.clamp_min(1e-6)
        width = WIDTH
    # Each rectifier looks along a direction of its own and bends at one of the middling places.
    bend = torch.randn(width, BENT, generator=generator)
    few = torch.rand(width, BENT, generator=generator)
    bend = bend * (few <= few.topk(min(4, width), dim=0, largest=False).values[-1])
    bend = bend / bend.norm(dim=0).clamp_min(1e-6)
    offset = torch.randn(BENT, generator=generator)
    return Lens(words, mean, std, project, bend, offset)


def is_tokens(X: Any) -> bool:
    """Whether rows are ids of tokens."""
    return isinstance(X, Tensor) and X.ndim == 2 and X.dtype in (torch.int64, torch.int32)


def _raw(X: Any, words: Tensor | None) -> Tensor:
    """Return (n, numbers) of float32 without gaps."""
    if isinstance(X, (tuple, list)):
        return torch.cat([_raw(x, None) for x in X if isinstance(x, Tensor)], 1)
    if isinstance(X, dict):
        return torch.cat([_raw(x, None) for x in X.values() if isinstance(x, Tensor)], 1)
    if words is not None:
        return _counts(X, words)
    x = torch.nan_to_num(X.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
    parts = [x]
    if x.ndim == 4:
        if x.shape[2] * x.shape[3] > SIDE * SIDE:
            parts = [F.adaptive_avg_pool2d(x, SIDE)]
        parts += [x.mean((2, 3)), x.std((2, 3), correction=0), x.diff(dim=2).abs().mean((2, 3)),
                  x.diff(dim=3).abs().mean((2, 3))]  # fmt: skip
    elif x.ndim == 3 and x.shape[1] > 1:
        parts += [x.mean(1), x.std(1, correction=0), x.diff(dim=1).abs().mean(1)]
    return torch.cat([torch.nan_to_num(p).flatten(1) if p.ndim > 1 else p[:, None] for p in parts],
                     1)  # fmt: skip


def _counts(X: Tensor, words: Tensor) -> Tensor:
    """Return log(1 + count) of words and of hashed pairs of neighbours."""
    n = len(X)
    at = torch.searchsorted(words, X.contiguous()).clamp_max(max(len(words) - 1, 0))
    hit = words[at] == X
    single = torch.zeros(n, len(words)).scatter_add_(1, at, hit.float())
    if X.shape[1] < 2:
        return single.log1p()
    pair = (X[:, :-1].long() * 1_000_003 + X[:, 1:].long() * 7919) % PAIRS
    double = torch.zeros(n, PAIRS).scatter_add_(1, pair, (hit[:, :-1] & hit[:, 1:]).float())
    at_place = (torch.arange(X.shape[1]) * 31 + X.long() * 1009) % PLACES
    placed = torch.zeros(n, PLACES).scatter_add_(1, at_place, hit.float())
    return torch.cat([single, double, placed], 1).log1p()


def classes_of(facts: Facts, y: Tensor) -> Tensor | None:
    """Return the class of every row where targets are one class a row, else None."""
    if facts.kind == "binary" or (facts.kind == "classes" and y.is_floating_point()):
        flat = y.reshape(len(y), -1)
        return flat[:, 0].gt(0.5).long() if flat.shape[1] == 1 else None
    if facts.kind == "classes" and not y.is_floating_point() and y.ndim == 1:
        return y.long()
    return None


def _targets(facts: Facts, y: Tensor, label: Tensor | None) -> Tensor | None:
    if label is not None:
        known = _known_classes(facts)
        if known is None:
            return None
        return (label[:, None] == known[None]).float()
    if facts.kind not in ("numbers", "multilabel"):
        return None
    flat = y.reshape(len(y), -1).float()
    if flat.shape[1] > MOST_CLASSES:
        generator = torch.Generator().manual_seed(0)
        flat = flat @ torch.randn(flat.shape[1], MOST_CLASSES, generator=generator)
    if facts.kind == "multilabel":
        return flat
    if "scale of targets" not in facts.notes:
        facts.notes["scale of targets"] = flat.mean(0), flat.std(0).clamp_min(1e-12)
    mean, std = facts.notes["scale of targets"]
    scaled: Tensor = (flat - mean) / std
    return scaled.clamp(-5, 5)


def _known_classes(facts: Facts) -> Tensor | None:
    """Return the most frequent classes of the training rows."""
    if facts.y is None:
        return None
    label = classes_of(facts, facts.y.detach().cpu())
    if label is None:
        return None
    ids, counts = torch.unique(label[label >= 0], return_counts=True)
    known: Tensor = ids[counts.argsort(descending=True)[:MOST_CLASSES]]
    return known


def cpu(value: Any) -> Any:
    """Return tensors within on the CPU, without their graph."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {k: cpu(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [cpu(v) for v in value]
    return value


def take(X: Any, rows: Tensor) -> Any:
    """Return some rows of whatever inputs are; None where their parts differ in length."""
    if isinstance(X, Tensor):
        return X[rows.to(X.device)] if X.ndim else None
    if not rows_of(X):
        return None
    if isinstance(X, dict):
        return {k: take(v, rows) if isinstance(v, Tensor) else v for k, v in X.items()}
    return type(X)(take(v, rows) if isinstance(v, Tensor) else v for v in X)


def columns(facts: Facts, X: Tensor, *, most: int = 400_000) -> Tensor:
    """Return (places, columns): numbers that share a meaning stand in one column.

    The last dimension of tables and sequences, the channels of images; of a sequence whose first
    layer is a convolution over it as it comes, the channels too. At most `most` numbers, as float64
    on the CPU: not every device has it.
    """
    if X.ndim == 4 or (X.ndim == 3 and channels_first(facts)):
        X = X.transpose(1, -1)
    flat = X.reshape(-1, X.shape[-1]) if X.ndim > 1 else X[:, None]
    limit = max(1, most // max(flat.shape[1], 1))
    if len(flat) > limit:
        flat = flat[torch.arange(limit, device=flat.device) * len(flat) // limit]
    return flat.detach().cpu().double()


def channels_first(facts: Facts) -> bool:
    """Whether the channels of a sequence stand before its places."""
    xb = facts.batch[0]
    return any(
        op.kind == "conv" and op.inputs and op.inputs[0].shape == xb.shape
        for op in facts.tape.ops
    ) if isinstance(xb, Tensor) and xb.ndim == 3 else False  # fmt: skip
