"""Someone's own torch Dataset, IterableDataset or DataLoader.

A map-style Dataset whose items stay the same is read once into columns and is then like any other
data. Anything else is a foreign stream: it works, but is never cached, and `weakened_laws` says
what can no longer be promised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from gipi.core.batch import Batch
from gipi.core.errors import DataError
from gipi.core.seed import derive
from gipi.data.sources.arrays import read_arrays, read_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from gipi.data.source import Source

READ_BYTES = 2 << 30  # a data set that would be larger in memory stays a stream
PROBES = 3


def is_torch_data(data: Any) -> bool:
    """Return whether `data` is a torch Dataset, IterableDataset or DataLoader."""
    return isinstance(data, Dataset | DataLoader)


def read_dataset(data: Any) -> Source:
    """Return the items of a map-style Dataset as columns.

    Raises `DataError` where the items change from call to call, have no length, or would not fit;
    then `ForeignStream` is the way.
    """
    if isinstance(data, TensorDataset):
        return _from_columns(list(data.tensors), "TensorDataset")
    why = why_foreign(data)
    if why is not None:
        raise DataError(
            f"{type(data).__name__}: {why}",
            "a Dataset whose items stay the same, to be read once",
            "pass it to fit as a stream: gipi.data.ForeignStream(data, batch_size=...)",
        )
    items = [_parts(data[i]) for i in range(len(data))]
    names = list(items[0])
    columns = {name: _stack([item[name] for item in items], name) for name in names}
    if names == ["0", "1"]:
        return read_pair(columns["0"], columns["1"], name=type(data).__name__)
    if names == ["0"]:
        return read_arrays({"x": columns["0"]}, name=type(data).__name__)
    return read_arrays(columns, name=type(data).__name__)


def why_foreign(data: Any) -> str | None:
    """Return why `data` cannot be read once into columns, or None where it can."""
    if isinstance(data, DataLoader):
        return "a DataLoader makes its own batches"
    if isinstance(data, IterableDataset):
        return "an IterableDataset has no fixed order of items"
    try:
        rows = len(data)
    except TypeError:
        return "it has no length"
    if rows == 0:
        raise DataError(f"{type(data).__name__} has no items", "at least one", "check the Dataset")
    for i in sorted({0, rows // 2, rows - 1})[:PROBES]:
        one, two = _parts(data[i]), _parts(data[i])
        if list(one) != list(two) or not all(_equal(one[k], two[k]) for k in one):
            return f"item {i} differs when it is read twice (random augmentation?)"
    size = sum(np.asarray(v).nbytes for v in _parts(data[0]).values()) * rows
    if size > READ_BYTES:
        return f"it would take {size / 1e9:.1f} GB of memory"
    return None


def weakened_laws(data: Any) -> list[str]:
    """Return, for a foreign stream, what gipi cannot promise, as sentences for people."""
    laws = [
        "equivalence: order and augmentation are the stream's own, so workers may change them",
        "honesty: rows have no ids, so duplicates across splits and bad rows cannot be named",
        "speed: items are made one by one in Python and are never cached",
    ]
    if not (isinstance(data, Dataset) and not isinstance(data, IterableDataset)):
        laws.insert(
            1, "kill-proof: a resumed run skips batches by reading them, and need not see the same"
        )
    return laws


class ForeignStream:
    """A `gipi.core.batch.Stream` over a torch Dataset, IterableDataset or DataLoader.

    A map-style Dataset is shuffled by a permutation that is a function of (seed, epoch); an
    IterableDataset is cut into batches; a DataLoader keeps its own batches. Items may be tensors,
    (input, target), (input, target, weight) or dicts with "target" (or "label", "y") and optionally
    "weight". `laws` says what such a stream weakens.
    """

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int = 128,
        seed: int = 0,
        shuffle: bool = True,
        steps: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self._data, self._seed, self._shuffle = data, seed, shuffle
        self._device = torch.device(device)
        self.laws = weakened_laws(data)
        self.batch_size = batch_size
        rows = _length(data.dataset if isinstance(data, DataLoader) else data)
        if isinstance(data, DataLoader):
            self.batch_size = int(data.batch_size or batch_size)
            steps = steps or _length(data)
        if rows is None and steps is None:
            raise DataError(
                f"{type(data).__name__} does not say its length",
                "the number of steps in an epoch",
                "give steps=..., or add __len__",
            )
        self.steps = steps or -(-(rows or 0) // self.batch_size)
        self.rows = rows if rows is not None else self.steps * self.batch_size

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, beginning with batch number `skip`."""
        for number, batch in enumerate(self._batches(epoch, skip)):
            if number >= self.steps - (skip if self._can_seek else 0):
                return
            if self._can_seek or number >= skip:
                yield batch.to(self._device)

    @property
    def _can_seek(self) -> bool:
        return isinstance(self._data, Dataset) and not isinstance(self._data, IterableDataset)

    def _batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        if isinstance(self._data, DataLoader):
            sampler = getattr(self._data, "sampler", None)
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
            for made in self._data:
                yield as_batch(made)
        elif self._can_seek:
            order = torch.arange(self.rows)
            if self._shuffle:
                key = torch.Generator().manual_seed(derive(self._seed, "shuffle", epoch))
                order = torch.randperm(self.rows, generator=key)
            for start in range(skip * self.batch_size, self.rows, self.batch_size):
                rows = order[start : start + self.batch_size]
                yield _collate([self._data[int(i)] for i in rows], rows)
        else:
            items: list[Any] = []
            for item in self._data:
                items.append(item)
                if len(items) == self.batch_size:
                    yield _collate(items, None)
                    items = []
            if items:
                yield _collate(items, None)


def as_batch(made: Any) -> Batch:
    """Return a core `Batch` from what a DataLoader yields: a tensor, a tuple or a dict."""
    if isinstance(made, Batch):
        return made
    parts = _parts(made)
    target = next((parts.pop(k) for k in ("target", "label", "labels", "y") if k in parts), None)
    weight = parts.pop("weight", None)
    if not isinstance(made, dict):
        names = list(parts)
        target = parts.pop("1") if len(names) > 1 else None
        weight = parts.pop("2") if len(names) > 2 else None
    inputs = {_input_name(k, v): _input(v, k) for k, v in parts.items()}
    if not inputs:
        raise DataError(
            f"a batch of type {type(made).__name__} without inputs",
            "a tensor, (input, target) or a dict of tensors",
            "change what the Dataset returns",
        )
    rows = len(next(iter(inputs.values())))
    return Batch(
        inputs,
        None if target is None else _target(target),
        None if weight is None else torch.as_tensor(weight).float(),
        None,
        rows,
    )


def _collate(items: list[Any], rows: Tensor | None) -> Batch:
    parts = [_parts(item) for item in items]
    stacked = {k: torch.as_tensor(_stack([p[k] for p in parts], k)) for k in parts[0]}
    made: Any = stacked if isinstance(items[0], dict) else tuple(stacked.values())
    batch = as_batch(made)
    batch.ids = rows
    return batch


def _parts(item: Any) -> dict[str, Any]:
    if isinstance(item, dict):
        return dict(item)
    values = item if isinstance(item, tuple | list) else (item,)
    return {str(i): value for i, value in enumerate(values)}


def _equal(one: Any, two: Any) -> bool:
    a, b = np.asarray(one), np.asarray(two)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _stack(values: list[Any], name: str) -> np.ndarray:
    arrays = [np.asarray(v) for v in values]
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        shown = " and ".join(str(s) for s in sorted(shapes)[:2])
        raise DataError(
            f"items of different shapes in part '{name}': {shown}",
            "one shape, so that items can be put into a batch",
            "resize or pad the items in the Dataset",
        )
    stacked = np.stack(arrays)
    if stacked.ndim == 4 and stacked.shape[1] in (1, 3, 4) and isinstance(values[0], torch.Tensor):
        return np.ascontiguousarray(stacked)
    return stacked


def _from_columns(tensors: list[Tensor], name: str) -> Source:
    if len(tensors) == 2:
        return read_pair(tensors[0], tensors[1], name=name)
    return read_arrays({f"x{i}": t for i, t in enumerate(tensors)}, name=name)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:
        return None


def _input_name(key: str, value: Any) -> str:
    if not key.isdigit():
        return key
    return "image" if getattr(value, "ndim", 0) == 4 else "numbers"


def _input(value: Any, key: str) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"part '{key}' of a batch is {type(value).__name__}, which is no tensor",
            "tensors or NumPy arrays",
            "convert it in the Dataset",
        ) from error
    if tensor.dtype in (torch.float64, torch.float16, torch.uint8, torch.bool):
        return tensor.float()
    return tensor


def _target(value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    if tensor.is_floating_point():
        return tensor.float()
    return tensor.long()
