"""Models from a folder in Hugging Face form and back, without the package they came from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, is_dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ModelError, did_you_mean
from gipi.models import bert, distilbert, gpt2, llama, marian, roberta, t5
from gipi.models.family import Fields
from gipi.models.hub_folder import (
    CONFIG,
    GENERATION,
    SHARD_BYTES,
    make_folder,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from gipi.models.weights import LoadReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from gipi.models.family import Entry, Family

FAMILIES = (
    bert.FAMILY, roberta.FAMILY, roberta.XLM_FAMILY, distilbert.FAMILY, gpt2.FAMILY,
    llama.FAMILY, t5.FAMILY, marian.FAMILY,
)  # fmt: skip
TABLE = re.compile(r"embed|shared|wte|wpe")  # in the name of a table of tokens or positions
SHOWN = 4  # names of one kind in an error
OLD_NAMES = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
             (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A model and what came with it.

    model       the module; `model.config` is its frozen config
    config      config.json as it was read, or as it will be written
    family      which family it is; None makes no folder
    report      what became of every tensor; None for a model that was not read
    generation  generation_config.json, empty where there is none
    """

    model: nn.Module
    config: dict[str, Any]
    family: Family
    report: LoadReport | None = None
    generation: dict[str, Any] = field(default_factory=dict)


def family_of(model_type: str, *, where: str = "the request") -> Family:
    """Return the family called `model_type`; raise `ModelError` with the nearest name."""
    for family in FAMILIES:
        if family.name == model_type:
            return family
    known = [family.name for family in FAMILIES]
    raise ModelError(f"model_type '{model_type}' in {where}, a family that is not known here",
                     f"one of: {', '.join(known)}", did_you_mean(model_type, known))  # fmt: skip


def load_folder(
    path: str | Path, *, head: str | None = None, outputs: int | None = None, seed: int = 0
) -> Loaded:
    """Build the model of a folder in Hugging Face form and fill it; account for every tensor.

    path     with config.json and model.safetensors, or its parts and their index
    head     none, words, pretrain, classify, tag or answer; None: what `architectures` says. What
             the file lacks of a head asked for is drawn from `seed`, in the type of the body, and
             listed as missing in the report; what it has of other heads is listed as unexpected.
    outputs  classes of a head asked for; None: as the config says

    The weights keep the type that they have in the file. Raises `ModelError`, and leaves nothing
    behind, for an unknown family or head, a config value that is not implemented, a damaged or
    missing file, and tensors that are missing, unexpected or of another shape.
    """
    folder = Path(path)
    raw = read_json(folder / CONFIG)
    where = str(folder / CONFIG)
    if not isinstance(raw.get("model_type"), str):
        raise ModelError(f"no 'model_type' in {where}",
                         f"one of: {', '.join(f.name for f in FAMILIES)}",
                         "use a config.json as transformers writes it")  # fmt: skip
    family = family_of(raw["model_type"], where=where)
    own_head = _head_of(family, raw, where, asked=head is not None)
    wanted = _known_head(family, head or own_head or "")
    generation = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    state, source = read_tensors(folder)
    state, renamed = _present_names(family, state)

    asked = wanted != own_head or outputs is not None
    if outputs is not None:
        raw = {**raw, "id2label": {str(i): f"LABEL_{i}" for i in range(outputs)},
               "label2id": {f"LABEL_{i}": i for i in range(outputs)}}  # fmt: skip
    fields = Fields(raw, where)
    config = family.read(fields, wanted, state)
    with torch.device("meta"):
        model = family.build(config)
    filled, report = _match(family, model, state, source=source, asked=asked)
    filled |= _draw(model, report.missing, seed, dtype=next(iter(filled.values())).dtype)
    model.load_state_dict(filled, strict=True, assign=True)
    unread = tuple(f"key {key} of {CONFIG}" for key in fields.unread())
    report = LoadReport(
        report.path, report.loaded, missing=report.missing, unexpected=report.unexpected,
        renamed=renamed, beside=report.beside + unread,
    )  # fmt: skip
    if wanted != own_head:
        raw = {**raw, "architectures": [family.architecture(wanted)]}
    return Loaded(model.eval(), raw, family, report, generation)


def save_folder(path: str | Path, loaded: Loaded, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder that `load_folder` and transformers open with the same logits.

    The config is written as it was read, with the type of the weights. A tied tensor is stored
    once. The tokenizer's files are not written here. Raises `StorageError` where the disk refuses.
    """
    folder = Path(path)
    make_folder(folder)
    model, family = loaded.model, loaded.family
    tensors = file_tensors(family, model)
    common = Counter(t.dtype for t in tensors.values() if t.is_floating_point()).most_common(1)
    kind = "dtype" if "torch_dtype" not in loaded.config else "torch_dtype"
    config = {**loaded.config, kind: str(common[0][0]).removeprefix("torch.")}
    config.setdefault("architectures", [family.architecture(_config(model).head)])
    write_tensors(folder, tensors, shard_bytes=shard_bytes)
    if loaded.generation:
        write_json(folder / GENERATION, loaded.generation)
    write_json(folder / CONFIG, config)  # last: a folder without it is not taken for a model


def describe(model: nn.Module, family: Family) -> Loaded:
    """Return a model that was built here as `save_folder` takes it, with a config.json of its own.

    The config.json is read again, and `ModelError` is raised where that gives another model: the
    family's format has no word for what this one is.
    """
    config = _config(model)
    raw = {**family.write(config), "architectures": [family.architecture(config.head)]}
    outputs = getattr(config, "outputs", 0)
    if outputs:
        raw["id2label"] = {str(i): f"LABEL_{i}" for i in range(outputs)}
        raw["label2id"] = {f"LABEL_{i}": i for i in range(outputs)}
    odd = {entry.ours for entry in family.entries(config)} ^ set(model.state_dict())
    state = {} if odd else _present_names(family, file_tensors(family, model))[0]
    again = family.read(Fields(raw, CONFIG), config.head, state)
    lost = [*_differences(config, again), *(f"tensor {name} is in one alone" for name in odd)]
    if lost:
        raise ModelError(
            f"a model that config.json of the family {family.name} cannot describe: "
            + ", ".join(lost[:SHOWN]),
            "what the published family can be",
            "save it as a folder of gipi, or build it as the family is",
        )
    return Loaded(model, raw, family)


def _differences(config: Any, again: Any, at: str = "") -> Iterator[str]:
    """Yield in words every field in which two frozen configs differ."""
    for one in fields_of(config):
        mine, other = getattr(config, one.name), getattr(again, one.name)
        if mine == other:
            continue
        if is_dataclass(mine) and is_dataclass(other):
            yield from _differences(mine, other, f"{at}{one.name}.")
        else:
            yield f"{at}{one.name} is {mine!r}, would be read as {other!r}"


def file_tensors(family: Family, model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module by their names in the family's files, on the CPU."""
    own, config = model.state_dict(), _config(model)
    found: dict[str, Tensor] = {}
    for entry in family.entries(config):
        tensor = own.pop(entry.ours).detach().cpu()
        parts = tensor.split(entry.rows) if len(entry.theirs) > 1 else (tensor,)
        for name, part in zip(entry.theirs, parts, strict=True):
            shaped = part.T if entry.transposed else part[None] if entry.row else part
            found[name] = shaped.clone(memory_format=torch.contiguous_format)
    assert not own, f"tensors that {family.name} does not name: {sorted(own)}"
    if config.head == "none":
        found = {name.removeprefix(family.prefix): tensor for name, tensor in found.items()}
    return found


# ------------------------------------------------------------------------ reading


def _config(model: nn.Module) -> Any:
    return model.config


def _head_of(family: Family, raw: Mapping[str, Any], where: str, *, asked: bool) -> str | None:
    """Return the head that `architectures` names; that for words where it names none.

    asked  another head is asked for: None for one that is not known here, else it is refused
    """
    names = raw.get("architectures") or []
    if not names:
        return "words"
    if asked and names[0] not in family.heads:
        return None
    if names[0] not in family.heads:
        raise ModelError(f"architecture '{names[0]}' in {where}",
                         f"one of: {', '.join(family.heads)}",
                         "ask for a head by head=...: the body is used, and of this head what fits"
                         )  # fmt: skip
    return family.heads[names[0]]


def _known_head(family: Family, head: str) -> str:
    known = list(dict.fromkeys(family.heads.values()))
    if head not in known:
        raise ModelError(f"head '{head}' for the family {family.name}",
                         f"one of: {', '.join(known)}", did_you_mean(head, known))  # fmt: skip
    return head


def _present_names(
    family: Family, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors by the names of today, with the body's prefix, and what was renamed."""
    renamed: list[str] = []
    named: dict[str, Tensor] = {}
    bare = bool(family.prefix) and not any(name.startswith(family.prefix) for name in state)
    for old, tensor in state.items():
        new = old
        for pattern, text in OLD_NAMES:
            new = pattern.sub(text, new)
        if new != old:
            renamed.append(old)
        named[family.prefix + new if bare else new] = tensor
    return named, tuple(renamed)


def _match(
    family: Family, model: nn.Module, state: Mapping[str, Tensor], *, source: str, asked: bool
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the module's tensors made of the file's, and the report; raise where they differ.

    asked  the head is not the file's own: it may be missing or of another size
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    filled: dict[str, Tensor] = {}
    missing: list[str] = []
    fresh: list[str] = []
    resized: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    used: set[str] = set()
    for entry in family.entries(_config(model)):
        absent = [name for name in entry.theirs if name not in state]
        if absent and entry.fresh and asked:
            fresh.append(entry.ours)
            continue
        used.update(entry.theirs)
        if absent:
            missing += absent
            continue
        tensor, wrong = _made(entry, state, shapes[entry.ours])
        if wrong and entry.fresh and asked:
            fresh.append(entry.ours)
        elif wrong:
            resized.append(wrong)
        else:
            filled[entry.ours] = tensor
    spare = [name for name in state if name not in used]
    copies = family.copies or {}
    untied = not getattr(_config(model), "tied", True)  # the head that is not asked for is its own
    tied = [n for n in spare if n in copies and copies[n] in used]
    copied = [n for n in tied if _same(state, n, copies)]
    apart = [n for n in tied if n not in copied and not (untied and _is_one_of(n, family.other))]
    rest = [n for n in spare if n not in copied and n not in apart]
    buffers = [n for n in rest if _is_one_of(n, family.buffers)]
    others = [n for n in rest if n not in buffers and _is_one_of(n, family.other)]
    unexpected = [n for n in rest if n not in buffers and n not in others]
    if missing or unexpected or resized or apart:
        raise _refusal(source, missing, unexpected, resized, apart)
    return filled, LoadReport(
        source, tuple(filled), missing=tuple(fresh), unexpected=tuple(others),
        beside=tuple(copied) + tuple(buffers),
    )  # fmt: skip


def _made(
    entry: Entry, state: Mapping[str, Tensor], shape: tuple[int, ...]
) -> tuple[Tensor, tuple[str, tuple[int, ...], tuple[int, ...]] | None]:
    """Return one tensor of ours, and what is wrong with it: (name, shape in file, shape needed)."""
    heights = entry.rows or (shape[0],)
    parts = []
    for name, rows in zip(entry.theirs, heights, strict=True):
        needed = (rows, *shape[1:])
        if entry.transposed:
            needed = needed[::-1]
        if entry.row:
            needed = (1, *needed)
        part = state[name]
        if tuple(part.shape) != needed:
            return part, (name, tuple(part.shape), needed)
        parts.append(part.T if entry.transposed else part)
    whole = torch.cat(parts) if len(parts) > 1 else parts[0]
    # A copy: what was read may still lie in the file, which others may replace.
    return whole.reshape(shape).clone(memory_format=torch.contiguous_format), None


def _is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _same(state: Mapping[str, Tensor], name: str, copies: Mapping[str, str]) -> bool:
    return torch.equal(state[name], state[copies[name]])


def _draw(
    model: nn.Module, names: tuple[str, ...], seed: int, *, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return first values of a head that the file does not have, in the type of the body."""
    generator = torch.Generator().manual_seed(seed)
    shapes = model.state_dict()
    drawn = {}
    for name in names:
        shape = shapes[name].shape
        if name.endswith("bias"):
            drawn[name] = torch.zeros(shape)
        elif len(shape) == 1:
            drawn[name] = torch.ones(shape)
        else:
            drawn[name] = torch.empty(shape).normal_(0.0, 0.02, generator=generator)
    return {name: tensor.to(dtype) for name, tensor in drawn.items()}


def _refusal(
    source: str,
    missing: list[str],
    unexpected: list[str],
    resized: list[tuple[str, tuple[int, ...], tuple[int, ...]]],
    apart: list[str],
) -> ModelError:
    """Return the error for tensors that do not fit, with the first names of each kind."""
    # A vocabulary of another size changes the table and what is as long as it, nothing else.
    tables = [one for one in resized if TABLE.search(one[0]) and one[1][1:] == one[2][1:]]
    heights = {(file[0], needed[0]) for _, file, needed in resized if file}
    if tables and len(heights) == 1 and not missing and not unexpected:
        name, file, needed = tables[0]
        return ModelError(
            f"{name} in {source} has {file[0]} rows, config.json says {needed[0]}",
            "a vocabulary, or a number of positions, of the same size in both",
            "use the config.json that belongs to the weights",
        )
    kinds = {
        "missing": missing, "unexpected": unexpected,
        "of another shape": [f"{n} {list(f)}, needed {list(o)}" for n, f, o in resized],
        "different from what they are tied to": apart,
    }  # fmt: skip
    found = "\n    ".join(
        f"{kind}: {', '.join(names[:SHOWN])}"
        + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        for kind, names in kinds.items() if names
    )  # fmt: skip
    return ModelError(
        f"the tensors in {source} do not fit config.json:\n    {found}",
        "exactly the tensors that the config implies",
        "use the files that belong together; another head is asked for by head=...",
    )
