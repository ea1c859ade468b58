"""Which parameters are trained, and which of them are decayed.

Weight decay pulls a weight towards zero. That is a prior on the strength of connections; biases,
the gains of normalisation layers and embedding rows are not connections, so they are left alone.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from gipi.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch.nn import Parameter

NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._BatchNorm,  # noqa: SLF001  the only common base that torch offers
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)
UNDECAYED: tuple[type[nn.Module], ...] = (*NORMS, nn.Embedding, nn.EmbeddingBag)


def named_owners(model: nn.Module) -> Iterator[tuple[str, Parameter, nn.Module]]:
    """Yield (name, parameter, module that holds it); a shared parameter once, by its first name."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{key}" if prefix else key), parameter, module


def is_decayed(parameter: Parameter, owner: nn.Module) -> bool:
    """Return whether weight decay applies: a matrix or kernel that is no norm and no embedding.

    A module can exempt its own parameters with a true attribute `no_decay`.
    """
    return (
        parameter.ndim >= 2
        and not isinstance(owner, UNDECAYED)
        and not getattr(owner, "no_decay", False)
    )


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Stop the gradient of every parameter that a pattern matches; return their names.

    A pattern is a shell pattern ("features.*") or the name of a module, which means all of it.
    Raises `ConfigError` for a pattern that matches nothing and where nothing would be left.
    """
    names = [name for name, _, _ in named_owners(model)]
    frozen: set[str] = set()
    for pattern in patterns:
        frozen |= _matching(names, pattern, "freeze")
    for name, parameter, _ in named_owners(model):
        if name in frozen:
            parameter.requires_grad = False
    return [n for n in names if n in frozen]


def parameter_groups(
    model: nn.Module,
    *,
    pattern: str = "*",
    freeze_patterns: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return torch parameter groups: decayed weights, then the rest; empty groups are left out.

    pattern          shell pattern of the names of the parameters to take
    freeze_patterns  see `freeze`
    rates            pattern, as for `freeze` -> factor on the learning rate of what it matches; of
                     several that match the last one counts

    Each group is {"params": [(name, parameter), ...], "decay": bool}: named, so that a saved
    optimizer says which state belongs to which parameter. Where a factor is not 1 it is the group's
    "lr_scale", and each factor has groups of its own (discriminative rates: Howard and Ruder 2018,
    "Universal language model fine-tuning", arXiv:1801.06146).
    """
    freeze(model, freeze_patterns)
    factor = _factors(model, rates or {})
    found: dict[tuple[float, bool], list[tuple[str, Parameter]]] = {}
    for name, parameter, owner in named_owners(model):
        if parameter.requires_grad and fnmatchcase(name, pattern):
            kind = (factor.get(name, 1.0), is_decayed(parameter, owner))
            found.setdefault(kind, []).append((name, parameter))
    if not found:
        raise ConfigError(
            "the model has no trainable parameter"
            + ("" if pattern == "*" else f" that matches '{pattern}'"),
            "at least one parameter that requires a gradient",
            "freeze fewer of them" if pattern == "*" else "correct the pattern, or freeze fewer",
        )
    groups: list[dict[str, Any]] = []
    for scale in dict.fromkeys(scale for scale, _ in found):
        for decay in (True, False):
            if (scale, decay) in found:
                more = {} if scale == 1.0 else {"lr_scale": scale}
                groups.append({"params": found[scale, decay], "decay": decay, **more})
    return groups


def _factors(model: nn.Module, rates: Mapping[str, float]) -> dict[str, float]:
    """Return name -> factor on the learning rate; raise for a pattern that matches nothing."""
    names = [name for name, _, _ in named_owners(model)]
    found: dict[str, float] = {}
    for pattern, factor in rates.items():
        if not 0 < factor < math.inf:
            raise ConfigError(
                f"rates: {factor} for '{pattern}'",
                "a factor above 0 on the learning rate",
                "freeze what is not to be trained",
            )
        found |= dict.fromkeys(_matching(names, pattern, "rates"), factor)
    return found


def _matching(names: Sequence[str], pattern: str, what: str) -> set[str]:
    """Return the names that a shell pattern or the name of a module means; raise for none."""
    hit = {n for n in names if fnmatchcase(n, pattern) or n.startswith(f"{pattern}.")}
    if not hit:
        raise ConfigError(
            f"{what}='{pattern}' matches no parameter",
            "a parameter, a module or a shell pattern such as 'layers.0.*'",
            did_you_mean(pattern, names),
        )
    return hit


def parameters(groups: Iterable[dict[str, Any]], *, decayed_only: bool = False) -> list[Parameter]:
    """Return the parameters of an optimizer's groups, or only of the decayed ones."""
    return [
        p for group in groups if group.get("decay", True) or not decayed_only
        for p in group["params"]
    ]  # fmt: skip
