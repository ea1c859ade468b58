"""An experiment: any PyTorch training, described so that it can be repeated, probed and changed.

X and y are whatever the model and the loss take; where they are tensors of rows the doctor looks
into them. Nothing here knows of gipi's own models, tasks or streams.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.core.seed import derive
from gipi.doctor.closures import asks_for_loss, minimised

LossFunction = Callable[[Any, Any], Tensor]
Step = Callable[["Experiment", Any, Any], Tensor]

PARTS = (
    ("model", nn.Module, "a torch.nn.Module", "make the model first, Experiment(model, ...)"),
    ("optimizer", torch.optim.Optimizer, "the optimizer of the model's parameters",
     "optimizer=torch.optim.Adam(model.parameters(), 1e-3)"),
    ("loss", None, "a function of (outputs, targets)", "loss=nn.CrossEntropyLoss()"),
)  # fmt: skip
"""Of an experiment: what each part must be, None for a function, and what to do."""
DECLARED = {
    "frozen": "patterns of parameter names that are meant to stay as they are",
    "time_ordered": "True: the order of the rows is time, and they are not to be shuffled",
    "vocabulary": "the number of tokens that the tokenizer knows",
    "tokens": "ids of special tokens, such as {'pad': 0, 'unknown': 1}",
    "lengths": "length of every training row before it was cut",
    "imbalance": "True: classes are as unequal in life as they are here",
    "groups": "a group of every training row: rows of one group belong to one split",
    "duplicates": "True: equal rows are natural here",
    "causal": "True: an output must not depend on later inputs",
    "old_task": "(X, y) of what the model could do before, and must not forget",
    "columns": "names of the input's columns",
    "small_batches": "True: batches are as small as they are on purpose",
}


@dataclass(repr=False)
class Experiment:
    """A model and everything that trains it.

    train, val       (X, y) tensors, a DataLoader, or an iterable of (xb, yb) that can be repeated
    loss             (outputs, y) -> scalar tensor
    epochs           passes over `train`; 0.5 is half a pass
    batch_size, shuffle  used where `train` is a pair of tensors
    scheduler        stepped after every epoch, or every "step" (`scheduler_every`)
    task             "classes", "numbers", "tokens", "reconstruct"; None: seen from loss and target
    metric           (outputs, y) -> float, more is better; None: minus the loss
    step             (experiment, xb, yb) -> loss: one whole step, in place of `plain_step`
    transform        xb -> xb, applied to training batches only (augmentation)
    evaluate         (model, X) -> outputs, in place of one pass in evaluation mode
    declared         what you know and the doctor cannot see: the keys of `DECLARED`
    keep_best        the run ends with the weights of the epoch whose validation loss was lowest

    Raises `ConfigError` for what cannot be trained and `DataError` for data of unequal length.
    """

    model: nn.Module
    train: Any = field(kw_only=True)
    val: Any = field(default=None, kw_only=True)
    loss: LossFunction = field(kw_only=True)
    optimizer: torch.optim.Optimizer = field(kw_only=True)
    epochs: float = field(default=10, kw_only=True)
    batch_size: int = field(default=32, kw_only=True)
    shuffle: bool = field(default=True, kw_only=True)
    scheduler: Any = field(default=None, kw_only=True)
    scheduler_every: Literal["epoch", "step"] = field(default="epoch", kw_only=True)
    task: str | None = field(default=None, kw_only=True)
    metric: Callable[[Any, Any], float] | None = field(default=None, kw_only=True)
    step: Step | None = field(default=None, kw_only=True)
    transform: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    evaluate: Callable[[nn.Module, Any], Any] | None = field(default=None, kw_only=True)
    declared: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    keep_best: bool = field(default=False, kw_only=True)
    judge: LossFunction | None = field(default=None, init=False, repr=False)
    """The loss of the question as it was asked: a repair that changes `loss` leaves it here."""
    begun: list[Any] | None = field(default=None, init=False, repr=False, compare=False)
    """Short trainings that a longer one may go on from, while a diagnosis is under way."""

    def __post_init__(self) -> None:
        for key, kind, needed, do in PARTS:
            given = getattr(self, key)
            right = callable(given) if kind is None else isinstance(given, kind)
            if not right or isinstance(given, type):
                found = f"no {key}" if given is None else f"{key} is {_named(given)}"
                raise ConfigError(found, needed, do)
        if self.train is None:
            raise ConfigError("no train", "the training rows", "train=(X, y)")
        if not isinstance(self.declared, Mapping):
            raise ConfigError(
                f"declared is {_named(self.declared)}",
                f"a dict with keys of {', '.join(DECLARED)}",
                "declared={'frozen': ['body.*']}",
            )
        for key in self.declared:
            if key not in DECLARED:
                raise ConfigError(
                    f"declared={{'{key}': ...}}",
                    f"one of {', '.join(DECLARED)}",
                    did_you_mean(key, DECLARED),
                )
        if self.scheduler_every not in ("epoch", "step"):
            raise ConfigError(
                f"scheduler_every='{self.scheduler_every}'", "'epoch' or 'step'", "choose one"
            )
        if self.batch_size < 1 or self.epochs <= 0:
            raise ConfigError(
                f"batch_size={self.batch_size}, epochs={self.epochs}",
                "at least one row a step, and something to train",
                "give both above 0",
            )
        for name in ("train", "val"):
            pair = _readable(name, getattr(self, name))
            if pair is not None and len(pair[0]) != len(pair[1]):
                raise DataError(
                    f"{name}: {len(pair[0])} inputs and {len(pair[1])} targets",
                    "one target for every row",
                    "check how the two were cut",
                )
            if pair is not None and not len(pair[0]):
                raise DataError(f"{name} has no rows", "rows", "check how the rows were divided")

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.model.parameters() if not is_lazy(p))
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        lr = self.optimizer.param_groups[0].get("lr", math.nan)
        splits = [
            f"{name} {_size(split)}"
            for name, split in (("train", self.train), ("val", self.val)) if split is not None
        ]  # fmt: skip
        return (
            f"<Experiment: {type(self.model).__name__} of {count} parameters; "
            f"{', '.join(splits)}; {loss}; {type(self.optimizer).__name__}, lr {lr:.3g}; "
            f"{self.epochs:g} epochs>"
        )

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass; counted once where a stream does not tell."""
        pair = tensors(self.train)
        if pair is not None:
            return -(-len(pair[0]) // self.batch_size)
        try:
            return len(self.train)
        except TypeError:
            return max(1, sum(1 for _ in self.train))

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return max(1, round(self.epochs * self.steps_per_epoch))


def _named(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _readable(name: str, data: Any) -> tuple[Tensor, Tensor] | None:
    """Return `tensors` of a split; raise where it is plain lists, rows, or can be run once only."""
    if isinstance(data, (Tensor, np.ndarray)):
        raise DataError(f"{name} is inputs alone", "inputs and targets", f"{name}=(X, y)")
    if isinstance(data, (GeneratorType, zip, map, filter)):
        raise DataError(
            f"{name} is a {type(data).__name__}, which can be run through once",
            "batches that can be had again for every epoch",
            f"{name}=list(...), or a DataLoader",
        )
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset) and _rows(data):
        raise DataError(
            f"{name} is a Dataset, which gives rows",
            "batches",
            f"{name}=torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)",
        )
    if isinstance(data, (tuple, list)) and len(data) == 2:
        for part, one in zip(("inputs", "targets"), data, strict=True):
            if _plain(one) and not (isinstance(one, tuple) and len(one) == 2):  # a batch
                raise DataError(
                    f"{name}: the {part} are a {type(one).__name__} of plain values",
                    "tensors or arrays",
                    f"torch.tensor({'X' if part == 'inputs' else 'y'})",
                )
    try:
        return tensors(data)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} cannot be read as numbers: {error}",
            "columns of numbers",
            "turn words and missing values into numbers first",
        ) from error


def _rows(data: Any) -> bool:
    """Whether the first item of a dataset is one row: its target is one number."""
    try:
        _, target = data[0]
        return not isinstance(target, str) and np.ndim(target) == 0
    except Exception:  # noqa: BLE001  what it gives instead is said where it is used
        return False


def _plain(value: Any) -> bool:
    """Whether something is lists of numbers or words."""
    depth = 0
    while isinstance(value, (list, tuple)) and value and depth < 5:
        value, depth = value[0], depth + 1
    return depth > 0 and isinstance(value, (int, float, str))


def _size(data: Any) -> str:
    pair = tensors(data)
    if pair is not None:
        return f"{len(pair[0])} rows of {tuple(pair[0].shape[1:])}"
    return f"{len(data)} batches" if hasattr(data, "__len__") else type(data).__name__


def tensors(data: Any) -> tuple[Tensor, Tensor] | None:
    """Return (X, y) where the data are a pair of tensors (or arrays), else None."""
    if isinstance(data, (tuple, list)) and len(data) == 2:
        pair = tuple(_tensor(d) for d in data)
        if all(isinstance(d, Tensor) for d in pair):
            return pair[0], pair[1]
    return None


def _tensor(value: Any) -> Any:
    if isinstance(value, Tensor) or not hasattr(value, "__array__"):
        return value
    array = np.asarray(value)
    return torch.as_tensor(array if array.flags.writeable else array.copy())


def batches(exp: Experiment, epoch: int) -> Iterator[tuple[Any, Any]]:
    """Yield the training batches of one epoch, on the model's device, without `transform`.

    Pairs of tensors are shuffled by (seed, epoch); a loader decides its own order.
    """
    pair = tensors(exp.train)
    if pair is None:
        for xb, yb in exp.train:
            yield moved(xb, exp.device), moved(yb, exp.device)
        return
    X, y = pair
    order = torch.arange(len(X))
    if exp.shuffle:
        generator = torch.Generator().manual_seed(derive(exp.seed, "order", epoch))
        order = torch.randperm(len(X), generator=generator)
    for chosen in order.split(exp.batch_size):
        yield moved(X[chosen], exp.device), moved(y[chosen], exp.device)


def whole(data: Any, rows: int, device: torch.device) -> tuple[Any, Any] | None:
    """Return up to `rows` rows of a split as one (X, y), in the order of the data; None for none.

    Of more rows, those at even distances: the first ones of sorted data are of one kind. Inputs
    that are tuples or lists of tensors come back as one. Batches of a loader that are of another
    kind, or differ in shape, come back as their first batch.
    """
    if data is None:
        return None
    pair = tensors(data)
    if pair is None and isinstance(data, DataLoader) and _as_stored(data):
        pair = tensors(cast("TensorDataset", data.dataset).tensors)
    if pair is not None:
        if len(pair[0]) > rows:
            kept = torch.arange(rows) * len(pair[0]) // rows
            pair = pair[0][kept], pair[1][kept]
        return moved(pair[0], device), moved(pair[1], device)
    xs, ys, seen = [], [], 0
    for xb, yb in data:
        xs.append(moved(xb, device))
        ys.append(moved(yb, device))
        seen += rows_of(ys[-1])
        joined = isinstance(ys[0], Tensor) and isinstance(xs[0], (Tensor, tuple, list))
        if seen >= rows or not joined:
            break
    if not xs:
        return None
    if all(type(x) in (tuple, list) and len(x) == len(xs[0]) for x in xs):
        columns = list(zip(*xs, strict=True))
        if all(_alike(column) for column in (*columns, ys)):
            parts = type(xs[0])(torch.cat(column)[:rows] for column in columns)
            return parts, torch.cat(ys)[:rows]
    if not _alike(xs) or not _alike(ys):
        return xs[0], ys[0]
    return torch.cat(xs)[:rows], torch.cat(ys)[:rows]


def rows_of(value: Any) -> int:
    """Return the rows of inputs or targets, whatever they are; 0 where their tensors differ."""
    if isinstance(value, (Tensor, np.ndarray)):
        return len(value) if value.ndim else 0
    parts = value.values() if isinstance(value, Mapping) else value
    sizes = {rows_of(p) for p in parts} - {0} if isinstance(value, (Mapping, tuple, list)) else {0}
    return sizes.pop() if len(sizes) == 1 else 0


def _as_stored(data: DataLoader[Any]) -> bool:
    """Whether a loader gives rows of tensors as they are: nothing changes them on the way."""
    stored = getattr(type(data.dataset), "__getitem__", None) is TensorDataset.__getitem__
    return stored and data.collate_fn is default_collate


def _alike(parts: Sequence[Any]) -> bool:
    """Whether all are tensors whose rows have one shape."""
    return all(isinstance(p, Tensor) and p.ndim and p.shape[1:] == parts[0].shape[1:]
               for p in parts)  # fmt: skip


def moved(value: Any, device: torch.device) -> Any:
    """Return tensors within tuples, lists and mappings on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {k: moved(v, device) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(moved(v, device) for v in value)
    return torch.as_tensor(value, device=device) if hasattr(value, "__array__") else value


def call(model: nn.Module, xb: Any) -> Any:
    """Return the outputs: a tuple of inputs is given by position, a mapping by name."""
    if isinstance(xb, (tuple, list)):
        return model(*xb)
    if isinstance(xb, Mapping):
        return model(**xb)
    return model(xb)


def plain_step(exp: Experiment, xb: Any, yb: Any) -> Tensor:
    """One step as everyone writes it; returns the loss before it."""
    if asks_for_loss(exp.optimizer):
        return minimised(exp.optimizer, lambda: exp.loss(call(exp.model, xb), yb))
    exp.optimizer.zero_grad()
    loss = exp.loss(call(exp.model, xb), yb)
    loss.backward()
    update(exp.optimizer)
    return loss.detach()


def update(optimizer: torch.optim.Optimizer) -> None:
    """Call ``optimizer.step()``; where the compiler is not imported yet, without importing it.

    torch's own `step` asks the compiler not to look into it, and imports it for that: a second.
    """
    kind = type(optimizer)
    if "torch._dynamo" in sys.modules or not kind.__module__.startswith("torch.optim"):
        optimizer.step()
        return
    for hook in optimizer._optimizer_step_pre_hooks.values():  # noqa: SLF001
        hook(optimizer, (), {})
    with torch.no_grad():
        inspect.unwrap(kind.step)(optimizer)
    optimizer._opt_called = True  # type: ignore[attr-defined]  # noqa: SLF001  for schedulers
    for hook in optimizer._optimizer_step_post_hooks.values():  # noqa: SLF001
        hook(optimizer, (), {})


def take_step(exp: Experiment, xb: Any, yb: Any) -> Tensor:
    """One step of the experiment, with its transform and its own way of stepping."""
    if exp.transform is not None:
        xb = exp.transform(xb)
    return (exp.step or plain_step)(exp, xb, yb)


def outputs(exp: Experiment, X: Any, *, rows: int = 1024) -> Any:
    """Return what the model says of X, as the user evaluates it; the mode is left as it was."""
    training = exp.model.training
    try:
        with torch.no_grad():
            if exp.evaluate is not None:
                return exp.evaluate(exp.model, X)
            exp.model.eval()
            if isinstance(X, Tensor) and len(X) > rows:
                said = [exp.model(part) for part in X.split(rows)]
                if all(isinstance(s, Tensor) for s in said):
                    return torch.cat(said)
            return call(exp.model, X)
    finally:
        exp.model.train(training)


def judged(exp: Experiment, said: Any, y: Any) -> float:
    """Return how good outputs are, more is better: the metric, or minus the loss as asked."""
    if exp.metric is not None:
        try:
            return float(exp.metric(said, y))
        except (ValueError, ZeroDivisionError):  # outputs that are not finite, a part of one class
            return math.nan
    with torch.no_grad():
        return -float((exp.judge or exp.loss)(said, y))
