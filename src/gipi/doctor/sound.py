"""What cannot be trained is said in words before anything is tried.

A batch must go through the model, and what comes out through the loss. Where torch refuses, its
words are about kernels: here it is said which of data, model and loss does not fit the others.
"""

from __future__ import annotations

import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.core.errors import ConfigError, DataError, GipiError, ModelError
from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call, tensors, whole
from gipi.doctor.facts import FEW
from gipi.doctor.losses import MODULES

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.Embedding)  # noqa: SLF001
WEIGHED = LAYERS[:-1]
OF_CLASSES = ("cross_entropy", "nll_loss")
PAIR = "pairs of inputs and targets: (X, y) tensors, a DataLoader, or a list of (xb, yb)"


def sound(facts: Facts) -> None:
    """Raise where a batch of training or validation cannot pass through model and loss.

    What a step or an evaluation of the user's own makes of a batch is left to it.
    """
    exp = facts.exp
    for name, data in (("train", exp.train), ("val", exp.val)):
        if data is not None:
            _pair(name, data)
    if next((p for p in exp.model.parameters()), torch.zeros(())).device.type == "meta":
        raise ModelError(
            "the model's weights are on the device 'meta': they have shapes and no numbers",
            "a model with weights",
            "make it on 'cpu' or 'cuda', or load its weights first",
        )
    if exp.step is not None:
        return
    try:
        said = facts.tape.outputs
    except Exception as error:
        raise _of_inputs(exp, "train", facts.batch[0], error) from error
    _through_loss(exp, "train", said, facts.batch[1])
    rows = None if exp.evaluate is not None else whole(exp.val, FEW, exp.device)
    if rows is None:
        return
    facts.passes += 1
    with peeking(exp), torch.no_grad():
        exp.model.eval()
        try:
            said = call(exp.model, rows[0])
        except Exception as error:
            raise _of_inputs(exp, "val", rows[0], error) from error
        _through_loss(exp, "val", said, rows[1])


def _pair(name: str, data: Any) -> None:
    """Raise where a split does not bring pairs, or brings nothing."""
    if tensors(data) is not None:
        return
    try:
        batch = next(islice(iter(data), 1), None)
    except TypeError as error:
        raise DataError(f"{name} is a {type(data).__name__}", PAIR, "give one of these") from error
    if batch is None:
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


def _through_loss(exp: Experiment, name: str, said: Any, y: Any) -> None:
    """Raise where the loss cannot compare outputs with targets, or gives no single number."""
    width = _width(exp, said, y)
    if width and isinstance(y, Tensor) and y.numel() and int(y.max()) >= width:
        raise _beyond(name, int(y.max()), width)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            value = exp.loss(said, y)
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
    kind = MODULES.get(type(exp.loss))
    whole_numbers = isinstance(y, Tensor) and not y.is_floating_point()
    if kind in ("mse", "mae", "huber") and whole_numbers:  # torch fails in backward
        raise _of_targets(exp, name, said, y, TypeError(f"{type(exp.loss).__name__}: not floats"))


def _width(exp: Experiment, said: Any, y: Any) -> int:
    """Return the number of classes of torch's own losses of classes; 0 for all others."""
    of_classes = MODULES.get(type(exp.loss)) in ("cross_entropy", "nll") or (
        getattr(exp.loss, "__name__", "") in OF_CLASSES
    )
    if not of_classes or not isinstance(said, Tensor) or not isinstance(y, Tensor):
        return 0
    fits = not y.is_floating_point() and said.ndim == y.ndim + 1
    return said.shape[1] if fits else 0


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
            f"{found}; the weights of its first layer '{layer}' are {_type(weight)}",
            f"inputs of type {_type(weight)}",
            "X.float()" if weight.dtype == torch.float32 else f"X.to({weight.dtype})",
        )
    if isinstance(module, nn.Embedding):
        if X.is_floating_point():
            return DataError(found, f"whole numbers for the embedding '{layer}'", "X.long()")
        if X.numel() and (int(X.max()) >= module.num_embeddings or int(X.min()) < 0):
            return DataError(
                f"{name}: token ids reach from {int(X.min())} to {int(X.max())}, and the embedding "
                f"'{layer}' has {module.num_embeddings} rows",
                f"ids from 0 to {module.num_embeddings - 1}",
                "make the embedding as large as the vocabulary",
            )
    takes = _takes(module)
    has = X.shape[-1] if not isinstance(module, nn.modules.conv._ConvNd) else (  # noqa: SLF001
        X.shape[1] if X.ndim > 1 else 0)  # fmt: skip
    if takes and takes != has:
        return DataError(
            f"{found}: its first layer '{layer}' takes {takes} features or channels, and there are "
            f"{has}",
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
