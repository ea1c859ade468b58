"""New weights where signals die or explode: drawn anew, and scaled by what passes through them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.experiment import call, whole
from gipi.doctor.finding import CannotRepair
from gipi.doctor.own_draw import Scaled, drawn_anew, own_layers
from gipi.doctor.seeded import seeded
from gipi.doctor.spoken import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gipi.doctor.experiment import Experiment

ROWS = 256
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LARGE = 4_000_000
"""Weights of a matrix beyond which it is drawn from a normal distribution: QR would take long."""
LOUD = 2.0
"""Spread of what inputs bring into a recurrent cell beyond which its input weights are scaled: with
Glorot's rule inputs of size one bring in less than 1.42."""
HEAD = 0.5
"""Spread of the outputs of the last layer: small against what the loss compares."""


def renew(exp: Experiment) -> str:
    """Draw linear, convolution and recurrent weights anew, layer by layer, and return what was.

    Matrices are orthogonal; in one forward pass of up to `ROWS` training rows each layer is scaled
    so that its outputs have standard deviation 1, and its bias is set so that every unit has mean
    0: the slope of a sigmoid is then not small anywhere, and half of all ReLUs are open. Recurrent
    matrices are orthogonal with bias 0, the forget gate 1; input weights are only scaled where what
    comes in is so large that a tanh would be flat.

    Matrices that modules of the user's own multiply by are drawn so too. What is frozen or tied to
    an embedding stays. Raises `CannotRepair` where no layer is left.
    Saxe et al. 2014, arXiv:1312.6120; Mishkin and Matas 2016 (LSUV), arXiv:1511.06422; Krähenbühl
    et al. 2016, arXiv:1511.06856 (biases by data). Differs: one pass, spread 0.5 for the head.
    """
    layers = _layers(exp.model)
    cells = [m for m in exp.model.modules() if isinstance(m, RECURRENT) and _free(m)]
    rows = whole(exp.train, ROWS, exp.device)
    own, head = own_layers(exp, rows[0]) if rows is not None else ([], "")
    if rows is None or not (layers or cells or own):
        message = "no linear, convolution or recurrent layer can be drawn anew"
        raise CannotRepair(message)
    order = _order(exp, rows[0])
    last = order[-1] if order and not head else None
    with seeded(exp), torch.no_grad():
        for cell in cells:
            _recurrent(cell)
        for module in exp.model.modules():
            if isinstance(module, nn.MultiheadAttention) and _free(module):
                module._reset_parameters()  # noqa: SLF001
        for layer in layers:
            _drawn(layer.weight)
            if layer.bias is not None and (layer is not last or not _numbers(rows[1])):
                layer.bias.zero_()
        drawn_anew(exp, own)
        with Scaled(exp.model, own, head=head, spread=HEAD) if own else nullcontext():
            _scaled(exp, layers, cells, last, rows[0])
    for param in exp.model.parameters():
        exp.optimizer.state.pop(param, None)
        if not bool(torch.isfinite(param).all()):
            message = "what passes through the net is not finite"
            raise CannotRepair(message)
    many = len(layers) + len(cells) + len(own)
    through = "it" if many == 1 else "them"
    return f"{counted(many, 'layer')} drawn anew, scaled by what passes through {through}"


def _numbers(y: Any) -> bool:
    """Whether targets are numbers: the head's bias may then stand at their mean, as was meant."""
    return isinstance(y, Tensor) and y.is_floating_point() and not bool(((y == 0) | (y == 1)).all())


def _free(module: nn.Module) -> bool:
    return all(p.requires_grad for p in module.parameters(recurse=False))


def _layers(model: nn.Module) -> list[Any]:
    """Return the layers that may be drawn anew, each once: nothing frozen, tied or attention's."""
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    inner = {
        id(m) for a in model.modules() if isinstance(a, nn.MultiheadAttention) for m in a.modules()
    }
    seen: set[int] = set()
    found = []
    for m in model.modules():
        if not isinstance(m, LAYERS) or id(m) in inner or id(m.weight) in tied | seen:
            continue
        if isinstance(m.weight, nn.Parameter) and _free(m):
            seen.add(id(m.weight))
            found.append(m)
    return found


def _order(exp: Experiment, X: Any) -> list[nn.Module]:
    """Return the layers in the order of their calls."""
    called: list[nn.Module] = []
    hooks = [m.register_forward_hook(lambda m, *_: called.append(m)) for m in _layers(exp.model)]
    mode = exp.model.training
    try:
        exp.model.eval()
        with torch.no_grad():
            call(exp.model, X)
    finally:
        exp.model.train(mode)
        for hook in hooks:
            hook.remove()
    return called


def _drawn(weight: Tensor) -> None:
    flat = weight.reshape(len(weight), -1)
    if weight.numel() > LARGE:
        weight.normal_(0, flat.shape[1] ** -0.5)
    else:
        nn.init.orthogonal_(weight)


def _recurrent(cell: nn.Module) -> None:
    gates = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}.get(type(cell).__name__, 1)
    for name, p in cell.named_parameters(recurse=False):
        if p.ndim == 2:
            for part in p.chunk(gates):
                (nn.init.orthogonal_ if "hh" in name else nn.init.xavier_uniform_)(part)
        else:
            p.zero_()
            if gates == 4 and "bias_ih" in name:
                p[len(p) // 4 : len(p) // 2] = 1.0


def _scaled(
    exp: Experiment, layers: list[Any], cells: Sequence[nn.Module], last: nn.Module | None, X: Any
) -> None:
    """Scale every layer in one pass: hooks change its weights and hand on what it now says."""
    done: set[int] = set()

    def hook(layer: Any, _: Any, said: Any) -> Any:
        if id(layer) in done or not isinstance(said, Tensor) or not said.numel():
            return said
        done.add(id(layer))
        channel = said.ndim - 1 if isinstance(layer, nn.Linear) else said.ndim - 1 - _spatial(layer)
        others = [d for d in range(said.ndim) if d != channel]
        mean = said.mean(others, keepdim=True)
        std = float((said - mean).std()) if said.numel() > said.shape[channel] else 0.0
        if std <= 0 or std != std:  # noqa: PLR0124  NaN: nothing to scale by
            return said
        gain = (HEAD if layer is last else 1.0) / std
        layer.weight.mul_(gain)
        if layer.bias is None:
            return said * gain
        bias = _bias(layer).clone()
        if len(said) == 1:
            return (said - bias) * gain + bias
        # Every unit has its bias as mean, the head too: what comes in has a mean of its own, half
        # of a sigmoid's range, that would grow by the gain.
        layer.bias.sub_((mean.flatten() - layer.bias) * gain)
        return (said - mean) * gain + bias

    handles = [layer.register_forward_hook(hook) for layer in layers]
    handles += [cell.register_forward_pre_hook(_quieted) for cell in cells]
    mode = exp.model.training
    try:
        exp.model.train()
        call(exp.model, X)
    finally:
        exp.model.train(mode)
        for handle in handles:
            handle.remove()


def _quieted(cell: nn.Module, given: tuple[Any, ...]) -> None:
    """Scale the input weights of a recurrent cell's first layer by what comes in, if that is loud.

    It is quiet afterwards: a cell that is called at every place is scaled at the first.
    """
    x = (
        getattr(given[0], "data", given[0]) if given else None
    )  # packed rows have their numbers there
    for name, weight in cell.named_parameters(recurse=False):
        if not name.startswith("weight_ih") or name[9:] not in ("", "_l0", "_l0_reverse"):
            continue
        if isinstance(x, Tensor) and x.shape[-1] == weight.shape[1]:
            spread = float((x.to(weight) @ weight.T).square().mean().sqrt())
            if spread > LOUD:
                weight.div_(spread)


def _spatial(layer: Any) -> int:
    return len(layer.kernel_size)


def _bias(layer: Any) -> Tensor:
    """Return the bias in a shape that can be added to the layer's outputs."""
    spatial = 0 if isinstance(layer, nn.Linear) else _spatial(layer)
    bias: Tensor = layer.bias.reshape(-1, *[1] * spatial)
    return bias if spatial else bias.flatten()


SWAPPED = (nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Softsign, nn.LogSigmoid)


def rectified(exp: Experiment, *, make: Callable[[], nn.Module] = nn.ReLU) -> str:
    """Put a ReLU in the place of every sigmoid and tanh module but the last, and renew weights.

    Raises `CannotRepair` where they are called as functions.
    """
    rows = whole(exp.train, 2, exp.device)
    last: list[nn.Module] = []
    if rows is not None:
        hooks = [m.register_forward_hook(lambda m, *_: last.append(m))
                 for m in exp.model.modules() if isinstance(m, (*LAYERS, *SWAPPED))]  # fmt: skip
        mode = exp.model.training
        exp.model.eval()
        with torch.no_grad():
            call(exp.model, rows[0])
        exp.model.train(mode)
        for hook in hooks:
            hook.remove()
    end = last[-1] if last else None
    changed = []
    for parent in list(exp.model.modules()):
        for leaf, child in list(parent.named_children()):
            if isinstance(child, SWAPPED) and child is not end:
                setattr(parent, leaf, make())
                changed.append(type(child).__name__)
    if not changed:
        message = "the activations are called as functions within forward"
        raise CannotRepair(message)
    renew(exp)
    return f"{len(changed)} of {', '.join(sorted(set(changed)))} became ReLU; weights drawn anew"
