"""Changes to an experiment's data and to what stands in front of its model.

Data keep their form: a pair of tensors stays one, a loader stays a loader over the same dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import batches, moved, outputs, take_step, tensors
from gipi.doctor.finding import CannotRepair
from gipi.doctor.rewire import Around

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gipi.doctor.experiment import Experiment


MOST = 200_000
"""Rows of a loader that are read in order, at most."""
LEAST_KEPT = 0.9
"""Share of a split that must be left when rows are taken out."""


@dataclass
class Mapped:
    """Batches of another iterable with a function over X and one over y."""

    data: Any
    of_x: Callable[[Any], Any] | None = None
    of_y: Callable[[Any], Any] | None = None

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for xb, yb in self.data:
            yield self.of_x(xb) if self.of_x else xb, self.of_y(yb) if self.of_y else yb

    def __len__(self) -> int:
        return len(self.data)

    @property
    def dataset(self) -> Any:
        """The rows that the batches come from, where the iterable tells."""
        return getattr(self.data, "dataset", None)


def mapped(
    data: Any, *, of_x: Callable[[Any], Any] | None = None, of_y: Callable[[Any], Any] | None = None
) -> Any:
    """Return the data with a function over their inputs or targets."""
    pair = tensors(data)
    if pair is None:
        return Mapped(data, of_x, of_y)
    return of_x(pair[0]) if of_x else pair[0], of_y(pair[1]) if of_y else pair[1]


def at_hand(data: Any) -> tuple[Tensor, Tensor] | None:
    """Return every row as (X, y) where they lie in two tensors; None where reading them costs."""
    pair = tensors(data)
    if pair is None and isinstance(data, DataLoader):
        pair = tensors(getattr(data.dataset, "tensors", None))
    return pair


def first_rows(data: Any, rows: int) -> Any:
    """Return the inputs of the first rows in the order in which they are stored; None for none."""
    pair = at_hand(data)
    if pair is not None:
        return pair[0][:rows]
    if not isinstance(data, DataLoader) or isinstance(data.dataset, IterableDataset):
        return None
    part = Subset(data.dataset, range(min(rows, _rows_of(data))))
    try:
        xs = [xb for xb, _ in reloaded(data, part, shuffle=False, drop_last=False)]
    except (CannotRepair, ValueError, TypeError):
        return None
    whole = xs and all(isinstance(x, Tensor) and x.shape[1:] == xs[0].shape[1:] for x in xs)
    return torch.cat(xs) if whole else None


def stored(data: Any) -> tuple[Tensor, Tensor] | None:
    """Return every row as (X, y), in the order in which `kept` counts them; None for a stream."""
    pair = at_hand(data)
    if pair is not None or not isinstance(data, DataLoader):
        return pair
    if isinstance(data.dataset, IterableDataset) or _rows_of(data) > MOST:
        return None
    try:
        in_order = reloaded(data, data.dataset, shuffle=False, drop_last=False)
    except CannotRepair:
        return None
    xs, ys = [], []
    for batch in in_order:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            return None
        xb, yb = batch
        if not isinstance(xb, Tensor) or not isinstance(yb, Tensor):
            return None
        xs.append(xb)
        ys.append(yb)
    if not xs or any(x.shape[1:] != xs[0].shape[1:] for x in xs):
        return None
    X = torch.cat(xs)
    return (X, torch.cat(ys)) if len(X) == _rows_of(data) else None


def kept(data: Any, keep: Tensor) -> Any:
    """Return the data with some rows only: `keep` is a mask or a list of row numbers.

    Raises `CannotRepair` for streams and for loaders with a sampler of the user's own.
    """
    chosen = keep.nonzero().flatten() if keep.dtype == torch.bool else keep
    pair = tensors(data)
    if pair is not None:
        return pair[0][chosen], pair[1][chosen]
    if not isinstance(data, DataLoader) or isinstance(data.dataset, IterableDataset):
        message = "rows of a stream cannot be chosen by their number"
        raise CannotRepair(message)
    rows: Any = Subset(data.dataset, chosen.tolist())
    pair = tensors(getattr(data.dataset, "tensors", None))
    if pair is not None:
        rows = TensorDataset(pair[0][chosen], pair[1][chosen])
    return reloaded(data, rows, shuffle=_shuffles(data))


def every_row(data: Any) -> Any:
    """Return the data of a split of which every row counts: no loader leaves the last ones out."""
    if not isinstance(data, DataLoader) or not data.drop_last:
        return data
    return reloaded(data, data.dataset, shuffle=_shuffles(data), drop_last=False)


def splits_of(exp: Experiment) -> Iterator[tuple[str, Any, Tensor, Tensor]]:
    """Yield (name, data, X, y) of both splits, every row in the order in which `kept` counts them.

    Raises `CannotRepair` where a split is a stream.
    """
    for name in ("train", "val"):
        data = getattr(exp, name)
        if data is None:
            continue
        pair = stored(data)
        if pair is None:
            message = f"rows of {name} cannot be chosen by their number"
            raise CannotRepair(message)
        yield name, data, *pair


def replaced(data: Any, X: Tensor, y: Tensor) -> Any:
    """Return other rows in the form of the data: a pair for a pair, a loader for a loader.

    Raises `CannotRepair` for streams.
    """
    if tensors(data) is not None:
        return X, y
    if not isinstance(data, DataLoader) or isinstance(data.dataset, IterableDataset):
        message = "rows of a stream cannot be replaced"
        raise CannotRepair(message)
    rows = TensorDataset(X, y)
    return reloaded(data, rows, shuffle=_shuffles(data), collate=False)


def reloaded(
    loader: DataLoader[Any],
    rows: Any,
    *,
    shuffle: bool,
    drop_last: bool | None = None,
    collate: bool = True,
) -> DataLoader[Any]:
    """Return a loader over other rows, with the options of the one given.

    collate  False: rows are tensors and need no function that makes batches of them
    """
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        message = "the loader makes its batches in a way of its own"
        raise CannotRepair(message)
    return DataLoader(
        rows,
        batch_size=loader.batch_size,
        shuffle=shuffle,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn if collate else None,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last if drop_last is None else drop_last,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
    )


def _shuffles(loader: DataLoader[Any]) -> bool:
    if isinstance(loader.sampler, RandomSampler):
        return True
    if isinstance(loader.sampler, SequentialSampler):
        return False
    message = "the loader's sampler chooses rows in a way of its own"
    raise CannotRepair(message)


def _rows_of(loader: DataLoader[Any]) -> int:
    rows: Any = loader.dataset
    return len(rows)


def shuffled(exp: Experiment) -> str:
    """Let the training rows come in a new order every epoch."""
    if tensors(exp.train) is not None:
        exp.shuffle = True
        return "training rows come in a new order every epoch"
    if not isinstance(exp.train, DataLoader) or isinstance(exp.train.dataset, IterableDataset):
        message = "the order of a stream is made elsewhere"
        raise CannotRepair(message)
    if not isinstance(exp.train.sampler, SequentialSampler):
        message = "the loader's sampler chooses rows in a way of its own"
        raise CannotRepair(message)
    exp.train = reloaded(exp.train, exp.train.dataset, shuffle=True)
    return "the training loader shuffles its rows"


def finite_rows(exp: Experiment) -> str:
    """Take out of both splits what the net answers with something that is no number.

    Raises `CannotRepair` where there is no such row, where they are many, and for streams.
    """
    taken = 0
    for name, data, X, _ in splits_of(exp):
        said = outputs(exp, moved(X, exp.device))
        if not isinstance(said, Tensor) or len(said) != len(X):
            message = "outputs do not belong to rows"
            raise CannotRepair(message)
        keep = said.reshape(len(said), -1).isfinite().all(1).cpu()
        if float(keep.double().mean()) < LEAST_KEPT:
            message = f"{int((~keep).sum())} of {len(keep)} rows of {name} have no answer"
            raise CannotRepair(message)
        if not bool(keep.all()):
            setattr(exp, name, kept(data, keep))
            taken += int((~keep).sum())
    if not taken:
        message = "every row by itself has an answer that is a number"
        raise CannotRepair(message)
    return f"took out {taken} rows whose answer is no number"


class _Front(Around):
    """A model with a step before it, a step after it, or both; its other attributes stay its own.

    before  inputs -> inputs: a tuple of positional ones; None for none
    after   outputs -> outputs; None for none
    """

    def __init__(
        self, model: nn.Module, before: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.before = before
        self.after = after

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the model's outputs for the changed inputs, changed in turn."""
        if self.before is not None:
            inputs = tuple(self.before(x) for x in inputs)
            named = {k: self.before(x) for k, x in named.items()}
        said = self.model(*inputs, **named)
        return said if self.after is None else self.after(said)


class Moments(nn.Module):
    """A module that travels with the mean and the standard deviation of training rows."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)


def put_in_front(
    exp: Experiment, before: nn.Module | None = None, *, after: nn.Module | None = None
) -> None:
    """Let the model see inputs through a step before it, or be seen through one after it.

    Names of parameters that were declared frozen go on meaning the same ones.
    Raises `CannotRepair` where the user's own step does not get along with it.
    """
    old, declared = exp.model, exp.declared
    exp.model = _Front(exp.model, before, after).to(exp.device)
    exp.model.train(old.training)
    frozen = exp.declared.get("frozen")
    if isinstance(frozen, (list, tuple, set, frozenset)):
        exp.declared = {**exp.declared, "frozen": [*frozen, *(f"model.{f}" for f in frozen)]}
    elif isinstance(frozen, str):
        exp.declared = {**exp.declared, "frozen": [frozen, f"model.{frozen}"]}
    if exp.step is None and exp.evaluate is None:
        return
    try:
        twin = duplicate(exp)
        with torch.random.fork_rng(devices=[]):
            for xb, yb in _first_batch(twin):
                take_step(twin, xb, yb)
                if twin.evaluate is not None:
                    twin.evaluate(twin.model, xb)
    except Exception as error:
        exp.model, exp.declared = old, declared
        message = f"the step does not go with a changed model: {error}"
        raise CannotRepair(message) from error


def _first_batch(exp: Experiment) -> Iterator[tuple[Any, Any]]:
    for pair in batches(exp, 0):
        yield pair
        return
