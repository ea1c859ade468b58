"""What one pass of a run costs, counted and not measured: a busy machine does not change it.

What is looked at before the first step hangs on this price, and with it what is found. A clock
would make a verdict depend on what else the machine does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from gipi.doctor.experiment import tensors
from gipi.doctor.tape import WEIGHTED

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op, Unnamed

PRODUCT_S, NUMBER_S, CALL_S, WEIGHT_S, READ_S = 5e-11, 1e-9, 1e-5, 2e-9, 3e-8
"""Seconds of one multiply-add, number that a call puts out, call, weight that a step changes, and
number that is read from a file: those of one core of a usual processor, about."""
FORWARD_AND_BACK = 3
BATCH_FIRST_AT = 8
"""Place of this argument of torch's recurrent functions."""
OF_MATRICES = ("linalg_", "svd", "qr", "eig", "cholesky", "lu_", "inverse", "det", "lstsq", "cdist")
"""How functions begin that meet every number of a matrix with every row of it, some times over."""
DECOMPOSED, TRANSFORMED = 2.0, 0.5
"""Products a number and row of a decomposition, and a number and halving of a Fourier transform."""
ACCELERATED = 1 / 30
"""Of the products and numbers where the model is not on the CPU."""


def pass_seconds(facts: Facts) -> float:
    """Return the seconds of one training step, about, from the calls of one forward pass.

    s = 3 · (products · p + numbers · n) · rows a step / rows seen + 3 · calls · c + weights · w
    with the numbers and calls of functions that have no name on the tape, too
    """
    exp, xb = facts.exp, facts.batch[0]
    ops, unnamed = facts.tape.ops, facts.tape.unnamed
    numbers = sum(op.output.numel() for op in ops) + sum(u.numbers for u in unnamed)
    multiplied = sum(map(products, ops)) + sum(map(products_unnamed, unnamed))
    work = PRODUCT_S * multiplied + NUMBER_S * numbers
    if exp.device.type != "cpu":
        work *= ACCELERATED
    read = 0.0 if tensors(exp.train) is not None or is_stored(exp.train) else READ_S
    seen = max(1, _rows(xb))
    often = max(1.0, exp.batch_size / seen) if _rows(xb) else 1.0
    weights = sum(p.numel() for p in exp.model.parameters() if p.requires_grad)
    calls = sum(map(calls_of, ops)) + len(unnamed)
    each = FORWARD_AND_BACK * work + read * _numbers(xb)
    return each * often + FORWARD_AND_BACK * CALL_S * calls + WEIGHT_S * weights


def is_stored(data: object) -> bool:
    """Whether a stream of batches holds its rows in memory, as far as it says."""
    stream = getattr(data, "stream", data)
    return getattr(stream, "mode", "resident") == "resident"


def products(op: Op) -> float:
    """Return the multiply-adds of a call: every weight meets every place of the output once."""
    if op.kind == "embedding" or not op.inputs:
        return 0.0
    if op.kind in WEIGHTED:
        first, *others = op.inputs
        width = first.shape[-1] if first.ndim else 1
        places = first.numel() / max(width, 1)
        if op.kind == "conv" and op.output.ndim > 2:
            places = op.output.numel() / max(op.output.shape[1], 1)  # those of its picture
        flat = op.kind != "conv"
        found = places * sum(w.numel() for w in others if w.ndim == 2 or (w.ndim > 2 and not flat))
        if op.kind == "attention" and first.ndim > 1:
            found += 2.0 * first.numel() * first.shape[-2]
        return found
    if op.kind == "matmul":
        return float(op.output.numel()) * max(op.inputs[0].shape[-1:] or (1,))
    return 0.0


def products_unnamed(call: Unnamed) -> float:
    """Return the multiply-adds of a function that the tape has no name for, about."""
    if call.weights:
        return float(call.rows) * call.weights
    if call.function.startswith(OF_MATRICES):
        return DECOMPOSED * call.numbers * call.width
    if call.function.startswith("fft_") or call.function in ("stft", "istft"):
        return TRANSFORMED * call.numbers * math.log2(max(2, call.width))
    return 0.0


def calls_of(op: Op) -> int:
    """Return how many calls one is: a recurrent one goes from place to place."""
    if op.kind not in ("lstm", "gru", "rnn") or not op.inputs:
        return 1
    first = op.inputs[0]
    layers = max(1, sum(w.ndim == 2 for w in op.inputs[1:]) // 2)
    if first.ndim < 3:  # one sequence, or packed ones with the rows of each place beside them
        packed = len(op.inputs) > 1 and op.inputs[1].ndim == 1
        return layers * (len(op.inputs[1]) if packed else len(first))
    batch_first = bool(op.given("batch_first", at=BATCH_FIRST_AT))
    return layers * first.shape[1 if batch_first else 0]


def _rows(value: object) -> int:
    if isinstance(value, Tensor):
        return len(value) if value.ndim else 0
    if isinstance(value, (tuple, list)) and value:
        return _rows(value[0])
    try:
        return len(value)  # type: ignore[arg-type]
    except TypeError:
        return 0


def _numbers(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, (tuple, list)):
        return sum(map(_numbers, value))
    inputs = getattr(value, "inputs", value)
    return sum(map(_numbers, inputs.values())) if isinstance(inputs, dict) else 0


def affordable(seconds: float, facts: Facts) -> float:
    """Return how many passes take that many seconds, about."""
    each = pass_seconds(facts)
    return seconds / each if each > 0 else math.inf
