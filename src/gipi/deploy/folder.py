"""The model folder: weights and everything that prediction needs, without a line of code in it.

    weights.safetensors   every tensor of the state dict once (tied ones by a map)
    model.json            format_version, versions, model, signature, schema, task
    manifest.json         SHA-256 of the two, checked when the folder is read

Nothing is pickled. A model from the registry is rebuilt from its name, options and signature; a
module of the user's own is filled again when it is passed to `load_model_folder`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from gipi import models, tasks
from gipi.core.atomic import read_folder, write_folder
from gipi.core.errors import CheckpointError, ConfigError, ModelError
from gipi.core.schema import Schema, Signature

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gipi.tasks import Task

FORMAT_VERSION = 1
WEIGHTS = "weights.safetensors"
MODEL_JSON = "model.json"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that has been read: the module with its weights, and what it was made for.

    task is None where the task was built around a function of the user's own.
    """

    model: nn.Module
    model_name: str | None
    options: dict[str, Any]
    signature: Signature
    schema: Schema
    task: Task | None
    weights_sha256: str
    extra: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile's and DistributedDataParallel's wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 over name, dtype, shape and bytes of every tensor, state-dict order."""
    total = hashlib.sha256()
    for name, tensor in _tensors(model).items():
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """Return a hash of what a module is, not of its values: class name, tensor names and shapes."""
    model = unwrapped(model)
    shapes = [f"{n}|{t.dtype}|{tuple(t.shape)}" for n, t in _tensors(model).items()]
    return hashlib.sha256("\n".join([type(model).__qualname__, *shapes]).encode()).hexdigest()


# ---------------------------------------------------------------------------- save


def save_model_folder(
    path: Path,
    *,
    model: nn.Module,
    model_name: str | None,
    options: Mapping[str, Any],
    signature: Signature,
    schema: Schema,
    task_spec: tuple[str, Mapping[str, Any]],
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Write a model folder in one step and return the SHA-256 of the weights.

    model_name  name in `models.MODELS`, or None for a module of the user's own
    options     what `models.build` was given beside the signature
    extra       JSON-able facts that travel along (preparation, licence, scores)

    Raises `ModelError` for state that is no plain tensor, `StorageError` for a disk that fails.
    """
    model = unwrapped(model)
    state = _tensors(model)
    stored, tied, complex_names = _stored(state)
    sha = weights_sha256(model)
    about = {
        "format_version": FORMAT_VERSION,
        "versions": {"gipi": _version(), "torch": torch.__version__},
        "model": {
            "name": model_name,
            "options": dict(options),
            "class": type(model).__qualname__,
            "module": type(model).__module__,
            "fingerprint": fingerprint(model),
        },
        "signature": asdict(signature),
        "schema": schema.to_dict(),
        "task": {"name": task_spec[0], "options": dict(task_spec[1])},
        "tensors": {"order": list(state), "tied": tied, "complex": complex_names},
        "weights_sha256": sha,
        "extra": dict(extra or {}),
    }
    try:
        text = json.dumps(about, indent=1, ensure_ascii=False, default=_plain)
    except TypeError as error:
        raise ModelError(
            f"the description of the model cannot be written: {error}",
            "options, statistics and extra facts made of numbers, text, lists and mappings",
            "pass such values",
        ) from error
    files = {WEIGHTS: save_tensors(stored, {"format": "pt"}), MODEL_JSON: text.encode()}
    write_folder(path, files)
    return sha


def _version() -> str:
    try:
        return version("gipi")
    except PackageNotFoundError:  # a copy of the sources that was never installed
        return "unknown"


def _plain(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict; raise `ModelError` where something in it is no plain tensor."""
    state = unwrapped(model).state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
            kind = type(value).__name__ if not isinstance(value, Tensor) else "sparse or quantized"
            raise ModelError(
                f"the model's state '{name}' is no plain tensor ({kind})",
                "dense tensors: nothing is ever pickled",
                "register it as a buffer, or keep it out of the state dict",
            )
        if value.is_meta:
            raise ModelError(
                f"the tensor '{name}' is on the meta device and has no values",
                "a model whose weights exist",
                "materialise it with .to_empty() and load its weights",
            )
    return state


def _stored(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Return (tensors to store, alias -> name of the stored one, names stored as real pairs).

    Tensors are tied when they are the very same memory seen the same way. Others that merely share
    storage (a slice of a flat buffer) are stored as copies of their own.
    """
    stored: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    complex_names = []
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and key in seen:
            tied[name] = seen[key]
            continue
        seen[key] = name
        plain = tensor.detach().cpu()
        if plain.is_complex():
            complex_names.append(name)
            plain = torch.view_as_real(plain.resolve_conj())
        stored[name] = plain.contiguous().clone()  # safetensors refuses shared storage
    return stored, tied, complex_names


# ---------------------------------------------------------------------------- load


def load_model_folder(
    path: Path, *, module: nn.Module | None = None, device: torch.device | str | None = None
) -> ModelFolder:
    """Read a model folder: hashes checked, model rebuilt, weights in place, in evaluation mode.

    module  the module to fill; needed when the model was not built by name, and allowed else
    device  where the weights go (default: the CPU)

    Raises `CheckpointError` for damage or a newer format, `ModelError` where the module does not
    fit the weights.
    """
    about, tensors = _read(path)
    try:
        described = about["model"]
        name, options = described["name"], dict(described["options"])
        signature = _signature(about["signature"])
        schema = Schema.from_dict(about["schema"])
        task_name, task_options = about["task"]["name"], dict(about["task"]["options"])
        state = _restored(tensors, about["tensors"])
        sha, class_name = str(about["weights_sha256"]), str(described["class"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path / MODEL_JSON} lacks or garbles {error}",
            f"a description of format_version {FORMAT_VERSION}",
            "write the folder again with gipi",
        ) from error
    if module is not None:
        model = unwrapped(module)
    elif name is not None:
        model = models.build(name, signature, seed=0, options=options)
        for key, tensor in (*model.named_parameters(), *model.named_buffers()):
            if key in state:
                tensor.data = tensor.data.to(state[key].dtype)
    else:
        raise ModelError(
            f"{path} holds the weights of a module of your own ({class_name})",
            "that module, built as it was for training",
            f"pass it: load(..., module={class_name}(...))",
        )
    differences = _differences(model, state)
    if name is None and not differences and type(model).__qualname__ != class_name:
        differences = [f"it is a {type(model).__qualname__}, they were trained in a {class_name}"]
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise ModelError(
            f"the module does not fit the weights in {path}: {'; '.join(differences[:3])}{more}",
            "the module with which they were trained",
            "build it with the same options as for training",
        )
    model.load_state_dict(state)
    model.eval()
    if device is not None:
        model.to(device)
    task = tasks.build(task_name, task_options) if task_name in tasks.TASKS else None
    return ModelFolder(
        model, name, options, signature, schema, task,
        sha, dict(about.get("extra", {})), dict(about.get("versions", {})),
    )  # fmt: skip


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return model.json and the stored tensors of a folder whose hashes are intact."""
    if not path.is_dir():
        raise ConfigError(
            f"there is no model folder {path}", "the model/ of a run", "name a run or its model/"
        )
    try:
        files = read_folder(path)
    except CheckpointError as error:
        raise CheckpointError(
            error.found, error.needed, "copy the folder again, or write it again with `gipi resume`"
        ) from error
    missing = [name for name in (WEIGHTS, MODEL_JSON) if name not in files]
    if missing:
        raise CheckpointError(
            f"{path} is no model folder: {missing[0]} is missing",
            f"a folder with {WEIGHTS} and {MODEL_JSON}",
            "name a run or its model/",
        )
    try:
        about = json.loads(files[MODEL_JSON])
        found = int(about["format_version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path / MODEL_JSON} is not a model's description",
            "JSON with a format_version",
            "write the folder again with gipi",
        ) from error
    if found > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {found}",
            f"at most {FORMAT_VERSION}, which this gipi ({_version()}) reads",
            "upgrade gipi",
        )
    try:
        return about, load_tensors(files[WEIGHTS])
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path / WEIGHTS} is no safetensors file ({error})",
            "the weights as gipi wrote them",
            "write the folder again with gipi",
        ) from error


def _signature(data: dict[str, Any]) -> Signature:
    image = data["image"]
    if image is not None:
        channels, height, width = image
        image = (int(channels), int(height), int(width))
    # Folders from before there were texts and series say nothing about them.
    later = {key: int(data.get(key, 0)) for key in ("vocab", "length", "pad", "horizon")}
    return Signature(
        image=image, numbers=int(data["numbers"]), outputs=int(data["outputs"]),
        cardinalities=tuple(map(int, data["cardinalities"])), **later,
        per=str(data.get("per", "row")), parts=tuple(map(int, data.get("parts", ()))),
    )  # fmt: skip


def _restored(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Tensor]:
    """Return the state dict in its own order: ties and complex numbers undone."""
    for name in about["complex"]:
        tensors[name] = torch.view_as_complex(tensors[name])
    return {name: tensors[about["tied"].get(name, name)] for name in about["order"]}


def _differences(model: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Say where a module and the weights differ in names, shapes or dtypes."""
    own = _tensors(model)
    found = [f"'{n}' is not in the weights" for n in own if n not in state]
    found += [f"'{n}' is not in the module" for n in state if n not in own]
    for name, theirs in state.items():
        mine = own.get(name)
        if mine is not None and (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
            found.append(f"'{name}' is {_kind(mine)} in the module and {_kind(theirs)} in them")
    return found


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def is_model_folder(path: Path) -> bool:
    """Return whether `path` looks like a model folder (its content is not checked)."""
    return (path / MODEL_JSON).is_file()
