"""The functions that a forward pass calls, in order, whether as modules or by name.

A `torch.overrides.TorchFunctionMode` sees `F.relu(x)`, `x.softmax(-1)` and `nn.ReLU()(x)` alike;
hooks on the modules say where each call stands. Both are on for one forward pass and then gone.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gipi.doctor.experiment import Experiment, call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAMES = {"softmax": "softmax", "log_softmax": "log_softmax", "sigmoid": "sigmoid", "tanh": "tanh",
         "relu": "relu", "relu_": "relu", "sigmoid_": "sigmoid", "tanh_": "tanh",
         "leaky_relu": "leaky_relu", "gelu": "gelu", "silu": "silu", "elu": "elu", "selu": "selu",
         "celu": "elu", "softplus": "softplus", "hardtanh": "hardtanh", "relu6": "relu6",
         "hardsigmoid": "hardsigmoid", "logsigmoid": "logsigmoid", "mish": "silu", "prelu": "prelu",
         "linear": "linear", "conv1d": "conv", "conv2d": "conv", "conv3d": "conv",
         "conv_transpose2d": "conv", "batch_norm": "batch_norm", "layer_norm": "layer_norm",
         "group_norm": "group_norm", "instance_norm": "instance_norm", "rms_norm": "rms_norm",
         "embedding": "embedding", "dropout": "dropout", "dropout2d": "dropout",
         "scaled_dot_product_attention": "attention", "multi_head_attention_forward": "attention",
         "lstm": "lstm", "gru": "gru", "rnn_tanh": "rnn", "rnn_relu": "rnn", "matmul": "matmul",
         "bmm": "matmul", "__matmul__": "matmul", "cat": "cat", "add": "add", "__add__": "add",
         "__mul__": "mul", "mul": "mul", "max_pool2d": "pool", "avg_pool1d": "mean",
         "avg_pool2d": "mean", "adaptive_avg_pool1d": "mean", "adaptive_avg_pool2d": "mean",
         "mean": "mean", "flatten": "reshape", "view": "reshape",
         "reshape": "reshape", "detach": "detach", "clamp": "clamp", "exp": "exp", "log": "log",
         "sqrt": "sqrt", "div": "div", "__truediv__": "div", "cross_entropy": "cross_entropy",
         "masked_fill": "mask", "masked_fill_": "mask", "squeeze": "view", "unsqueeze": "view",
         "transpose": "view", "permute": "view", "contiguous": "view", "einsum": "matmul",
         "conv_transpose1d": "conv", "conv_transpose3d": "conv", "sub": "add", "__sub__": "add",
         "nll_loss": "nll", "kl_div": "kl", "mse_loss": "mse", "l1_loss": "mae",
         "smooth_l1_loss": "huber", "huber_loss": "huber", "binary_cross_entropy": "bce",
         "binary_cross_entropy_with_logits": "bce_logits"}  # fmt: skip
"""What a torch function is called here."""

ACTIVATIONS = frozenset(
    ("relu", "sigmoid", "tanh", "leaky_relu", "gelu", "silu", "elu", "selu", "softplus",
     "hardtanh", "relu6", "hardsigmoid", "logsigmoid", "prelu")
)  # fmt: skip
WEIGHTED = frozenset(("linear", "conv", "embedding", "lstm", "gru", "rnn", "attention"))
NORMS = frozenset(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"))
VIEWS = frozenset(("view", "reshape"))
"""Calls that hand the same numbers on."""
HANDED_ON = frozenset(("__getitem__", "__get__", "split", "chunk", "unbind", "select", "narrow"))
"""Calls that take a part, whatever they take it of."""
LOSSES = frozenset(("cross_entropy", "nll", "mse", "mae", "huber", "bce", "bce_logits"))


@dataclass(frozen=True)
class Op:
    """One call: its kind, the module within which it happened, what went in and came out.

    place   the module's name and, where it calls the kind more than once, its number: "body.2#1"
    args, named  what it was called with, by position and by name
    """

    kind: str
    module: str
    place: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def given(self, name: str, *, at: int | None = None) -> Any:
        """Return an argument by its name, or by its place where it was given so; else None."""
        if name in self.named:
            return self.named[name]
        return self.args[at] if at is not None and len(self.args) > at else None


@dataclass(frozen=True)
class Unnamed:
    """A call that has no name in `NAMES`: nobody looks at it, but it has its price.

    numbers  of the larger of what went in and came out; width: the last size of what went in
    rows, weights  places and numbers of the matrices where it is a cell of a recurrent net
    """

    function: str
    numbers: int
    width: int
    rows: int = 0
    weights: int = 0


@dataclass
class Tape:
    """The calls of one forward pass, in order, and its outputs; beside them those of no name."""

    ops: list[Op] = field(default_factory=list)
    outputs: Any = None
    unnamed: list[Unnamed] = field(default_factory=list)

    def of(self, kinds: frozenset[str] | set[str]) -> list[Op]:
        """Return the calls of some kinds."""
        return [op for op in self.ops if op.kind in kinds]

    def maker_of(self, value: Tensor) -> Op | None:
        """Return the call whose output is `value` (same tensor, or a view of its storage)."""
        for op in reversed(self.ops):
            if op.output is value or (
                op.output.shape == value.shape
                and op.output.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()
            ):
                return op
        return None

    def source_of(self, value: Tensor, *, before: Op | None = None) -> Op | None:
        """Return the call that computed the numbers of `value`, seen through changes of shape.

        before  only calls ahead of this one: one that does nothing hands on what it was given
        """
        ahead = self.ops
        if before is not None:
            ahead = ahead[: next(i for i, op in enumerate(ahead) if op is before)]
        for op in reversed(ahead):
            if not same_numbers(op.output, value):
                continue
            if op.kind not in VIEWS or not op.inputs:
                return op
            value = op.inputs[0]
        return None


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, or views of all of one storage."""
    return one is other or (
        one.numel() == other.numel()
        and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
        and one.storage_offset() == other.storage_offset()
    )


class _Recorder(TorchFunctionMode):
    def __init__(self, tape: Tape, stack: list[str]) -> None:
        super().__init__()
        self.tape, self.stack, self.counts = tape, stack, dict[tuple[str, str], int]()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        kind = NAMES.get(name)
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if not isinstance(first, Tensor):
            return result
        given = [*args, *(kwargs or {}).values()]
        flat = [x for a in given for x in (a if isinstance(a, (tuple, list)) else [a])]
        ins = tuple(a for a in flat if isinstance(a, Tensor))
        if kind is None:
            self.tape.unnamed.append(_unnamed(name, ins, result))
        else:
            module = self.stack[-1] if self.stack else ""
            nth = self.counts.get((module, kind), 0)
            self.counts[module, kind] = nth + 1
            place = f"{module}#{nth}" if nth else (module or kind)
            self.tape.ops.append(
                Op(kind, module, place, ins, first, tuple(args), dict(kwargs or {}))
            )
        return result


def _unnamed(function: str, ins: tuple[Tensor, ...], result: Any) -> Unnamed:
    outs = result if isinstance(result, (tuple, list)) else (result,)
    put_out = sum(x.numel() for x in outs if isinstance(x, Tensor))
    first = ins[0] if ins else None
    width = first.shape[-1] if first is not None and first.ndim else 1
    if not function.endswith("_cell") or first is None:
        taken = 0 if function in HANDED_ON else max((x.numel() for x in ins), default=0)
        return Unnamed(function, max(put_out, taken), width)
    matrices = sum(w.numel() for w in ins[1:] if w.ndim == 2 and isinstance(w, nn.Parameter))
    return Unnamed(function, put_out, width, len(first) if first.ndim > 1 else 1, matrices)


@contextmanager
def recording(model: nn.Module) -> Iterator[Tape]:
    """Record what forward passes of `model` within call."""
    tape, stack = Tape(), list[str]()
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(entered(stack, name)))
        handles.append(module.register_forward_hook(left(stack), always_call=True))
    try:
        with _Recorder(tape, stack):
            yield tape
    finally:
        for handle in handles:
            handle.remove()


def entered(stack: list[str], name: str) -> Callable[..., None]:
    """Return the hook that notes that a module is entered."""

    def hook(*_: Any) -> None:
        stack.append(name)

    return hook


def left(stack: list[str]) -> Callable[..., None]:
    """Return the hook that notes that it is left again."""

    def hook(*_: Any) -> None:
        if stack:
            stack.pop()

    return hook


def taped(exp: Experiment, xb: Any) -> Tape:
    """Return the tape of one forward pass in the model's present mode, with gradients."""
    with recording(exp.model) as tape:
        tape.outputs = call(exp.model, xb)
    return tape


def heard(function: Callable[..., Any], *given: Any) -> Tape:
    """Return the tape of any function, such as a loss; its value is in `outputs`."""
    tape = Tape()
    with _Recorder(tape, []):
        tape.outputs = function(*given)
    return tape
