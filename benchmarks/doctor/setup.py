"""What a case is made of: a setting that learns, one fault or oddity, and the twin without it.

A setting is a function (seed) -> `Setup`; a fault changes a `Setup` in place before the experiment
is built from it. The doctor gets train and val; `test` is rows that neither it nor a repair sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gipi.core.seed import derive
from gipi.doctor import Experiment

Pair = tuple[Any, Any]
Apply = Callable[["Setup", float], None]
After = Callable[[nn.Module], Any]


def sgd(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr, momentum=0.9)


def plain_sgd(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr)


def adam(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr)


def adamw(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr, weight_decay=0.01)


def rmsprop(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(params, lr)


@dataclass
class Setup:
    """One training before it is built: everything may still be changed.

    data, net  kinds, for the tables of results
    kind       how held-out rows are scored: "classes", "binary", "multilabel", "numbers",
               "language", "reconstruct"
    make       knobs -> model; knobs: those that every net of `nets` knows, and its own
    after      done to the model after it is made, before the optimizer sees it
    params     model -> what the optimizer gets
    """

    data: str
    net: str
    kind: str
    train: Pair
    val: Pair | None
    test: Pair
    make: Callable[..., nn.Module]
    loss: Any
    lr: float
    epochs: float
    optimizer: Callable[[Any, float], torch.optim.Optimizer] = adam
    knobs: dict[str, Any] = field(default_factory=dict)
    after: list[After] = field(default_factory=list)
    params: Callable[[nn.Module], Any] = lambda model: list(model.parameters())
    batch_size: int = 32
    shuffle: bool = True
    scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None
    """(optimizer, all steps) -> scheduler."""
    scheduler_every: str = "epoch"
    step: Any = None
    transform: Any = None
    evaluate: Any = None
    declared: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    loader: Callable[[Pair, int], Any] | None = None
    """((X, y), batch size) -> what is given as `train`, in place of the pair."""
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    """What a setting tells faults: {"classes", "vocabulary", "inputs", ...}."""

    def generator(self, purpose: str) -> torch.Generator:
        """Return random numbers for one purpose."""
        return torch.Generator().manual_seed(derive(self.seed, purpose))

    def each(self, change: Callable[[Any, Any], Pair], *splits: str) -> None:
        """Change (X, y) of the splits named, of all three where none is."""
        for name in splits or ("train", "val", "test"):
            pair = getattr(self, name)
            if pair is not None:
                setattr(self, name, change(*pair))

    def inputs(self, change: Callable[[Tensor], Tensor], *splits: str) -> None:
        """Change X of the splits named, of all three where none is."""
        self.each(lambda X, y: (change(X), y), *splits)

    def targets(self, change: Callable[[Tensor], Tensor], *splits: str) -> None:
        """Change y of the splits named, of all three where none is."""
        self.each(lambda X, y: (X, change(y)), *splits)


@dataclass(frozen=True)
class Fault:
    """One way in which a training goes wrong (or looks odd: then `code` is empty).

    on        names of the settings that it fits
    low, high range of its strength; drawn log-uniformly where `low` is above 0
    also      codes that name the same cause as truly as `code` does
    base      done to the healthy twin too: what the fault needs and is not one
    twin      done to the healthy twin only: what a careful person would do about the fault
    auto      the catalogue lets the doctor repair it by itself, and a repair can reach the twin
    """

    name: str
    code: str
    apply: Apply
    on: tuple[str, ...]
    low: float = 1.0
    high: float = 1.0
    also: tuple[str, ...] = ()
    base: Apply | None = None
    twin: Apply | None = None
    auto: bool = True

    @property
    def healthy(self) -> bool:
        """It is an oddity."""
        return not self.code


@dataclass(frozen=True)
class Case:
    """A fault of some strength in a setting; `vary` changes the setting itself, drawn cases only."""

    setting: str
    fault: Fault
    strength: float
    half: str = "tuned"
    vary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Known by this in the results."""
        said = ",".join(f"{k}={v}" for k, v in sorted(self.vary.items()))
        return f"{self.fault.name}@{self.setting}*{self.strength:.3g}" + (
            f"[{said}]" if said else ""
        )

    @property
    def truth(self) -> tuple[str, ...]:
        """Codes that are right, the fault's own first; none for an oddity."""
        return (self.fault.code, *self.fault.also) if self.fault.code else ()


@dataclass
class Built:
    """A case as experiments: sick (or odd) and its healthy twin, each with its held-out rows."""

    sick: Experiment
    sick_test: Pair
    healthy: Experiment
    healthy_test: Pair
    kind: str


def build(case: Case, settings: Mapping[str, Callable[[int], Setup]], seed: int) -> Built:
    """Return the experiments of a case; what is random in it follows from `seed` and its name."""
    made = []
    for sick in (True, False):
        s = settings[case.setting](seed)
        s.seed = derive(seed, case.fault.name, case.setting) % 2**31
        vary(s, case.vary)
        if case.fault.base is not None:
            case.fault.base(s, case.strength)
        if sick:
            case.fault.apply(s, case.strength)
        elif case.fault.twin is not None:
            case.fault.twin(s, case.strength)
        made.append((experiment(s), s.test, s.kind))
    (one, one_test, kind), (two, two_test, _) = made
    if case.fault.healthy:
        two, two_test = one, one_test
    return Built(one, one_test, two, two_test, kind)


def vary(s: Setup, changes: Mapping[str, Any]) -> None:
    """Change a setting within what stays healthy.

    width (a factor), act, batch, rows (a share), decay; form "loader": rows come from a loader that
    shuffles; written "call": the loss is a function of the user's that calls the known one.
    """
    if "act" in changes:
        s.knobs.setdefault("act", changes["act"])
    if "width" in changes:
        s.knobs["width"] = max(8, round(s.facts.get("width", 32) * changes["width"] / 8) * 8)
    if "batch" in changes:
        s.epochs = max(2, round(s.epochs * changes["batch"] / s.batch_size))  # as many steps
        s.batch_size = changes["batch"]
    if "rows" in changes:
        keep = max(64, round(len(s.train[1]) * changes["rows"]))
        s.each(lambda X, y: (X[:keep], y[:keep]), "train")
    if "decay" in changes and s.optimizer is adam:
        s.optimizer = adamw
    if "form" in changes:
        s.loader = lambda pair, size: DataLoader(
            TensorDataset(*pair), batch_size=size, shuffle=True
        )
    if "written" in changes:
        s.loss = _written(s.loss)


def _written(loss: Any) -> Any:
    """Return the loss as a function that a person wrote around it."""

    def own_loss(said: Any, y: Any) -> Any:
        return loss(said, y)

    return own_loss


def experiment(s: Setup) -> Experiment:
    """Return the experiment that a setup describes; weights follow from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(s.seed)
        model = s.make(**s.knobs)
        for change in s.after:
            change(model)
    optimizer = s.optimizer(s.params(model), s.lr)
    train = s.train if s.loader is None else s.loader(s.train, s.batch_size)
    steps = max(1, round(s.epochs * -(-rows(s.train) // s.batch_size)))
    scheduler = s.scheduler(optimizer, steps) if s.scheduler is not None else None
    return Experiment(
        model,
        train=train,
        val=s.val,
        loss=s.loss,
        optimizer=optimizer,
        epochs=s.epochs,
        batch_size=s.batch_size,
        shuffle=s.shuffle,
        scheduler=scheduler,
        scheduler_every=s.scheduler_every,  # type: ignore[arg-type]
        step=s.step,
        transform=s.transform,
        evaluate=s.evaluate,
        declared=s.declared,
        task=s.task,
        seed=s.seed,
    )


def rows(pair: Pair) -> int:
    """Return how many rows (X, y) hold."""
    return len(pair[1])
