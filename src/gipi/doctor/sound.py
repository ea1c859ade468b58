"""What cannot be trained is said in words before anything is tried.

A batch must go through the model, and what comes out through the loss. Where torch refuses, its
words are about kernels: here it is said which of data, model and loss does not fit the others.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.core.errors import ConfigError, DataError, GipiError, ModelError
from gipi.doctor.closures import asks_for_loss
from gipi.doctor.copies import peeking, untouched
from gipi.doctor.experiment import batches, call, moved, take_step, tensors
from gipi.doctor.facts import FEW
from gipi.doctor.hushed import hushed
from gipi.doctor.losses import MODULES
from gipi.doctor.spoken import place_of

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.Embedding)  # noqa: SLF001
WEIGHED = LAYERS[:-1]
PAIR = "pairs of inputs and targets: (X, y) tensors, a DataLoader, or a list of (xb, yb)"


def sound(facts: Facts) -> None:
    """Raise where a batch of training or validation cannot pass through model and loss.

    What a step or an evaluation of the user's own makes of a batch is left to it. The experiment,
    and the generators that a shuffling loader or a sampling loss draws from, are left as they were.
    """
    exp = facts.exp
    if next((p for p in exp.model.parameters()), torch.zeros(())).device.type == "meta":
        raise ModelError(
            "the model's weights are on the device 'meta': they have shapes and no numbers",
            "a model with weights",
            "make it on 'cpu' or 'cuda', or load its weights first",
        )
    with peeking(exp):
        _pair("train", exp.train)
        held = None if exp.val is None else _pair("val", exp.val)
        if exp.step is not None:
            if asks_for_loss(exp.optimizer):
                _closed(exp)
            return
        _trained(facts)
        if held is None or exp.evaluate is not None:
            return
        facts.passes += 1
        X, y = (moved(part, exp.device) for part in held)
        exp.model.eval()
        try:
            with torch.no_grad():
                said = call(exp.model, X)
        except Exception as error:
            raise _of_inputs(exp, "val", X, error) from error
        _through_loss(exp, "val", said, y)


def _closed(exp: Experiment) -> None:
    """Raise where a step of the user's own does not give the loss to an optimizer that needs it."""
    with untouched(exp):
        try:
            for xb, yb in islice(batches(exp, 0), 1):
                take_step(exp, xb, yb)
        except TypeError as error:
            if "closure" in str(error):
                kind = type(exp.optimizer).__name__
                raise ConfigError(
                    f"the step calls {kind}.step() without the function that returns the loss",
                    "optimizer.step(closure): it evaluates the loss several times a step",
                    "leave step out, or within it: def closure(): optimizer.zero_grad(); loss = "
                    "...; loss.backward(); return loss",
                ) from error
        except Exception:  # noqa: BLE001, S110  what else such a step makes of a batch is its own
            pass


def _trained(facts: Facts) -> None:
    """Raise where the first training batch does not pass."""
    exp, (X, y) = facts.exp, facts.batch
    try:
        said = facts.tape.outputs
    except Exception as error:  # noqa: BLE001  what a step makes of the batch decides
        xb, y = next(iter(batches(exp, 0)))  # whole, transformed, in training mode
        exp.model.train()
        try:
            said = call(exp.model, xb if exp.transform is None else exp.transform(xb))
        except Exception:  # noqa: BLE001
            raise _of_inputs(exp, "train", X, error) from error
    _through_loss(exp, "train", said, y)


def _pair(name: str, data: Any) -> tuple[Any, Any] | None:
    """Return the first rows of a split; raise where it brings no pairs, or nothing to train on."""
    pair = tensors(data)
    if pair is not None:
        return pair[0][:FEW], pair[1][:FEW]
    try:
        batch = next(islice(iter(data), 1), None)
    except TypeError as error:
        raise DataError(f"{name} is a {type(data).__name__}", PAIR, "give one of these") from error
    if batch is None:
        if name == "val":
            return None  # such as a loader that drops its last batch, which is its first
        raise DataError(f"{name} has no batches", "rows", "check how the rows were divided")
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        found = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise DataError(
            f"{name}: a batch is {found}",
            PAIR,
            "write a small generator class or collate_fn that gives (xb, yb)",
        )
    if isinstance(batch[1], Tensor) and not batch[1].ndim:
        raise DataError(
            f"{name}: its first item is one row, not a batch",
            "batches",
            "torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)",
        )
    return batch[0], batch[1]


def _through_loss(exp: Experiment, name: str, said: Any, y: Any) -> None:
    """Raise where the loss cannot compare outputs with targets, or gives no single number.

    Whether it can, torch says: by the loss, and by its gradient at the outputs. Only classes that
    its own modules do not know are counted first, since a device that meets one is lost.
    """
    most = _largest(exp, said, y)
    if most is not None and most >= said.shape[1]:
        raise _beyond(name, most, said.shape[1])
    leaves: list[Tensor] = []
    try:
        with hushed(), torch.enable_grad():
            value = exp.loss(_cut_off(said, leaves), y)
            if isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad and leaves:
                torch.autograd.grad(value.reshape(()), leaves, allow_unused=True)
    except GipiError:
        raise
    except Exception as error:
        raise _of_targets(exp, name, said, y, error) from error
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"the loss gives a {type(value).__name__}",
            "a tensor with one number, which gradients can be taken of",
            "return the loss itself, without .item(), float() or numpy",
        )
    if value.numel() != 1:
        raise ConfigError(
            f"the loss gives a tensor of shape {tuple(value.shape)}",
            "one number for the batch",
            "reduction='mean', or .mean() at its end",
        )


def _cut_off(said: Any, leaves: list[Tensor]) -> Any:
    """Return outputs that no graph leads to, and note those that a gradient can be taken at."""
    if isinstance(said, Tensor):
        alone = said.detach()
        if not alone.is_floating_point():
            return alone
        leaves.append(alone.requires_grad_())
        return alone.clone()  # a loss may change it in place
    if type(said) in (tuple, list):
        return type(said)(_cut_off(s, leaves) for s in said)
    if type(said) is dict:
        return {k: _cut_off(v, leaves) for k, v in said.items()}
    return said


def _largest(exp: Experiment, said: Any, y: Any) -> int | None:
    """Return the largest class that one of torch's own modules of classes is to look up."""
    if MODULES.get(type(exp.loss)) not in ("cross_entropy", "nll") or not _classes(said, y):
        return None
    known = y[y != getattr(exp.loss, "ignore_index", -100)]
    return int(known.max()) if known.numel() else None


def _classes(said: Any, y: Any) -> bool:
    """Whether outputs and targets have the shapes of scores and of classes."""
    tensor = isinstance(said, Tensor) and isinstance(y, Tensor)
    return tensor and not y.is_floating_point() and said.ndim == y.ndim + 1 and said.ndim > 1


def _beyond(name: str, largest: int, width: int) -> DataError:
    return DataError(
        f"{name}: a target is class {largest}, and the model has {width} outputs",
        f"classes 0 to {width - 1}, or {largest + 1} outputs",
        "count the classes from 0, or make the last layer as wide as there are classes",
    )


def _of_inputs(exp: Experiment, name: str, X: Any, error: Exception) -> GipiError:
    """Return the error of a batch that the model does not take."""
    if isinstance(error, GipiError):
        return error
    first = next(((n, m) for n, m in exp.model.named_modules() if isinstance(m, LAYERS)), None)
    found = f"{name}: the model does not take {_words(X)}"
    said = f"torch says: {_line(error)}"
    if not isinstance(X, Tensor) or first is None:
        return ModelError(f"{found}; {said}", "a batch that model(xb) takes",
                          "call model(xb) with the first batch yourself")  # fmt: skip
    layer, module = first
    weight = next(module.parameters(), torch.zeros(()))
    if isinstance(module, WEIGHED) and X.dtype != weight.dtype:
        return DataError(
            f"{found}; the weights of its first layer {place_of(layer)} are {_type(weight)}",
            f"inputs of type {_type(weight)}",
            "X.float()" if weight.dtype == torch.float32 else f"X.to({weight.dtype})",
        )
    if isinstance(module, nn.Embedding):
        if X.is_floating_point():
            return DataError(
                found, f"whole numbers for the embedding {place_of(layer)}", "X.long()"
            )
        if X.numel() and (int(X.max()) >= module.num_embeddings or int(X.min()) < 0):
            return DataError(
                f"{name}: token ids reach from {int(X.min())} to {int(X.max())}, and the embedding "
                f"{place_of(layer)} has {module.num_embeddings} rows",
                f"ids from 0 to {module.num_embeddings - 1}",
                "make the embedding as large as the vocabulary",
            )
    takes = _takes(module)
    has = X.shape[-1] if not isinstance(module, nn.modules.conv._ConvNd) else (  # noqa: SLF001
        X.shape[1] if X.ndim > 1 else 0)  # fmt: skip
    if takes and takes != has:
        return DataError(
            f"{found}: its first layer {place_of(layer)} takes {takes} features or channels, and "
            f"there are {has}",
            f"rows with {takes}",
            f"{type(module).__name__}({has}, ...), or the columns that are missing or too many",
        )
    failed = f"{name}: the model fails on {_words(X)}; {said}"
    return ModelError(failed, "layers that fit each other",
                      "call model(xb) with the first batch and read where it fails")  # fmt: skip


def _takes(module: nn.Module) -> int:
    for name in ("in_features", "in_channels", "input_size"):
        found = getattr(module, name, None)
        if isinstance(found, int):
            return found
    return 0


def _of_targets(exp: Experiment, name: str, said: Any, y: Any, error: Exception) -> GipiError:
    """Return the error of outputs and targets that the loss does not compare."""
    loss = getattr(exp.loss, "__name__", type(exp.loss).__name__)
    found = f"{name}: {loss} does not compare outputs {_words(said)} with targets {_words(y)}"
    general = DataError(f"{found}; torch says: {_line(error)}", "targets as the loss wants them",
                        "call loss(model(xb), yb) with the first batch yourself")  # fmt: skip
    if not isinstance(said, Tensor) or not isinstance(y, Tensor):
        return general
    if isinstance(error, IndexError) and _classes(said, y) and int(y.max()) >= said.shape[1]:
        return _beyond(name, int(y.max()), said.shape[1])
    kind = MODULES.get(type(exp.loss), {"cross_entropy": "cross_entropy", "nll_loss": "nll"}.get(
        loss, ""))  # fmt: skip
    if kind in ("cross_entropy", "nll"):
        column = y.ndim == said.ndim and y.shape[1:2] == (1,) and said.shape[1] != 1
        if y.dtype != torch.int64 and (column or y.ndim == said.ndim - 1):
            return DataError(found, "a class from 0 on for each row, of type int64, (N,)",
                             "y.squeeze(1).long()" if column else
                             "y.long(); for numbers that are no classes another loss, "
                             "such as nn.MSELoss()")  # fmt: skip
        if column:
            return DataError(found, "targets of shape (N,)", "y.squeeze(1)")
    elif not y.is_floating_point() and said.is_floating_point():
        return DataError(found, f"targets of type {_type(said)}, shaped as the outputs",
                         "y.float()" if y.shape == said.shape or y.ndim == said.ndim else
                         "y.float().unsqueeze(1); for classes nn.CrossEntropyLoss()")  # fmt: skip
    elif y.shape != said.shape:
        return DataError(found, "outputs and targets of the same shape",
                         "y.unsqueeze(1)" if y.ndim == said.ndim - 1 else
                         "reshape one of them")  # fmt: skip
    return general


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{_type(value)} {tuple(value.shape)}"
    return type(value).__name__


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
