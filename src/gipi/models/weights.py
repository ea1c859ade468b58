"""Weights from elsewhere: read without running code, matched by name, and every difference said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")
PREFIXES = ("module.", "model.", "_orig_mod.", "state_dict.")
COUNTER = "num_batches_tracked"
SHOWN = 4  # names of one kind in an error, which stays under twelve lines


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a file and of every tensor of the model.

    path        the file
    loaded      names of the model's tensors that were filled
    missing     in the model alone: they keep their initial values
    unexpected  in the file alone: not used
    resized     (name, shape in the file, shape in the model): not used
    counters    batch counters that the file, written before torch 0.4.1, does not know; they do not
                enter what the model answers
    renamed     names of the file's tensors that had another name there, without counting prefixes
    stripped    prefixes taken off the names
    beside      what else the file holds, such as "epoch"
    """

    path: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    resized: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    counters: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    stripped: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether file and model have the same tensors."""
        return not (self.missing or self.unexpected or self.resized)

    def lines(self) -> list[str]:
        """Return the report for people: every name that matters (of the counters, how many)."""
        said = [f"weights {self.path}: {len(self.loaded)} tensors loaded"]
        notes = {
            "prefixes taken off": self.stripped,
            "renamed from an older layout": self.renamed,
            "batch counters that old files lack, left at 0": (str(len(self.counters)),)
            if self.counters
            else (),
            "beside the weights, not read": self.beside,
            "missing, initial values kept": self.missing,
            "unexpected, not used": self.unexpected,
            "of another size, not used": tuple(_shapes(one) for one in self.resized),
        }
        return said + [f"  {what}: {', '.join(names)}" for what, names in notes.items() if names]


def load_weights(module: nn.Module, path: str | Path, *, partial: bool = False) -> LoadReport:
    """Fill `module` with the weights of a file, every tensor by its name; return what happened.

    path     .safetensors, or a torch file (.pt, .pth, .th, .bin) that holds only tensors, numbers
             and texts; the mapping may lie under "state_dict", "model" and the like, and its names
             may begin with what wrappers put before them (`module.`, `model.`, `_orig_mod.`)
    partial  accept tensors that are missing, unexpected or of another size, such as a head for
             other classes: they are left as they are and listed in the report

    Raises `ModelError` for a file that cannot be read without running code, where none of its
    tensors fits, and, unless `partial`, where any tensor is missing, unexpected or resized. Then
    the module is as it was.

    >>> import tempfile
    >>> from torch import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": {"module.weight": torch.ones(1, 2)}}, f"{folder}/w.pt")
    ...     load_weights(nn.Linear(2, 1, bias=False), f"{folder}/w.pt").stripped
    ('module.',)
    """
    state, report = _matched(module, Path(path))
    if not _learnt(report) or not (partial or report.complete):
        raise _refusal(report, partial=partial)
    used = {name: state[name] for name in report.loaded}
    module.load_state_dict(used, strict=False)
    return report


def compare_weights(module: nn.Module, path: str | Path) -> LoadReport:
    """Return what `load_weights` would do, and leave the module as it is."""
    return _matched(module, Path(path))[1]


def _matched(module: nn.Module, path: Path) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the file's tensors by the names of the module, and the report about them."""
    state, beside = _read(path)
    own = module.state_dict()
    stripped = []
    while True:  # prefixes come in any order and more than once: "module._orig_mod."
        better = [p for p in PREFIXES if _hits(_strip(state, p), own) > _hits(state, own)]
        if not better:
            inner = [p for p in PREFIXES if state and all(n.startswith(p) for n in state)]
            better = [p for p in inner if not any(n.startswith(p) for n in own)]
        if not better:
            break
        state = _strip(state, better[0])
        stripped.append(better[0])
    renamed = []
    for pattern, new in getattr(module, "renamed", ()):
        names = {name: re.sub(pattern, new, name) for name in state}
        if len(set(names.values())) < len(names):  # two would meet, and one be lost
            continue
        renamed += [old for old, name in names.items() if old != name]
        state = {names[old]: tensor for old, tensor in state.items()}
    shared = [n for n in own if n in state]
    fits = [n for n in shared if state[n].shape == own[n].shape]
    absent = [n for n in own if n not in state]
    counters = [n for n in absent if n.rpartition(".")[2] == COUNTER]
    return state, LoadReport(
        str(path), tuple(fits),
        missing=tuple(n for n in absent if n not in counters),
        unexpected=tuple(n for n in state if n not in own),
        resized=tuple((n, tuple(state[n].shape), tuple(own[n].shape))
                      for n in shared if n not in set(fits)),
        counters=tuple(counters), renamed=tuple(renamed), stripped=tuple(stripped), beside=beside,
    )  # fmt: skip


def _learnt(report: LoadReport) -> bool:
    """Return whether anything but counters of batches, which fit every model, was filled."""
    return any(name.rpartition(".")[2] != COUNTER for name in report.loaded)


def _hits(state: Iterable[str], own: Mapping[str, Tensor]) -> int:
    return sum(name in own for name in state)


def _strip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return `state` with `prefix` off all names that have it; as it was where two would meet."""
    short = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return short if len(short) == len(state) else dict(state)


def _shapes(one: tuple[str, tuple[int, ...], tuple[int, ...]]) -> str:
    name, file, own = one
    return f"{name} {list(file)} in the file, {list(own)} in the model"


def _refusal(report: LoadReport, *, partial: bool) -> ModelError:
    """Return the error for a file that does not fit, with the first names of each kind."""
    parts = [
        _some("missing", report.missing, str),
        _some("unexpected", report.unexpected, str),
        _some("of another size", report.resized, _shapes),
    ]
    found = "\n    ".join(part for part in parts if part)
    cut = max(map(len, (report.missing, report.unexpected, report.resized))) > SHOWN
    rest = "; gipi.models.compare_weights lists every name" if cut else ""
    if partial or not _learnt(report):
        return ModelError(
            f"no tensor in {report.path} fits the model:\n    {found}",
            "weights of the same architecture",
            "choose the model they were made for, or its options" + rest,
        )
    heads = {name.rpartition(".")[0] for name, *_ in report.resized}
    head_only = len(heads) == 1 and not report.missing and not report.unexpected
    do = "choose the model they were made for, or its options; "
    if head_only:
        do = f"build it for as many classes as the weights have ({report.resized[-1][1][0]}); "
    return ModelError(
        f"the weights in {report.path} do not fit the model:\n    {found}",
        "exactly the model's tensors" + (" (only the head differs)" if head_only else ""),
        do + "partial=True in Python keeps what fits and lists the rest" + rest,
    )


def _some(kind: str, names: tuple[Any, ...], show: Callable[[Any], str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind}: {', '.join(show(n) for n in names[:SHOWN])}{more}" if names else ""


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the named tensors of a file, and the names of what lies beside them."""
    needed = "a safetensors file, or a torch file that holds only tensors"
    do = "save the state dict alone, best as safetensors"
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise ModelError(f"{path} cannot be read: {what}", needed, "correct the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path), ()
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged byte may end in any line of the reader
        raise ModelError(f"{path} cannot be read: {_reason(error)}", needed, do) from error
    beside: list[str] = []
    while isinstance(content, dict):
        key = next((k for k in WRAPPERS if isinstance(content.get(k), dict)), None)
        if key is None:
            break
        beside += [str(k) for k in content if k != key]
        content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and torch.is_tensor(v) for k, v in content.items()
    ):
        raise ModelError(f"{path} holds more than named tensors", needed, do)
    return dict(content), tuple(beside)


def _reason(error: Exception) -> str:
    """Return why a file could not be read; torch's own words explain its settings instead."""
    held = re.search(r"GLOBAL (\S+)", str(error))
    if held is not None:
        return f"it holds objects that are no tensors, such as {held[1]}"
    if isinstance(error, OSError | SafetensorError) and str(error):
        return str(error).splitlines()[0][:120]
    return f"damaged, or written by something else ({type(error).__name__})"
