"""The files of a model folder in Hugging Face form: config.json and safetensors, whole or in parts.

    config.json                    sizes and choices; `model_type` names the family
    generation_config.json         how it is usually sampled from; optional
    model.safetensors              all tensors, or
    model.safetensors.index.json   name -> file, and the files model-00001-of-0000N.safetensors
    tokenizer.json, ...            not read here

Nothing in here runs code of the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from gipi.core.atomic import storage_error, write_file
from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CONFIG, GENERATION = "config.json", "generation_config.json"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raise `ModelError` where there is none."""
    needed = "a JSON object, as transformers writes it"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"no {path.name} in {path.parent}",
                         "a model folder in Hugging Face form: config.json and model.safetensors",
                         "give the folder that holds both") from error  # fmt: skip
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {str(error)[:120]}", needed,
                         "fetch the file again") from error  # fmt: skip
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}", needed,
                         "fetch the file again")  # fmt: skip
    return content


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a folder by name, and the path that they were found at.

    Raises `ModelError` for a folder without safetensors, a file that is damaged, and a part that
    the index names and that is missing or lacks a tensor.
    """
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file():
        return _load(whole), str(whole)
    if not index.is_file():
        found = "only pytorch_model.bin" if (folder / "pytorch_model.bin").is_file() else "no"
        raise ModelError(f"{found} {WHOLE} or {INDEX} in {folder}" if found == "no"
                         else f"{found}, no {WHOLE}, in {folder}",
                         "the weights as safetensors",
                         "save them with safe_serialization, or fetch that file too")  # fmt: skip
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(
        # A part lies in this folder: what an index says is data, not a way to other files.
        isinstance(name, str) and Path(name).name == name
        for name in places.values()
    ):
        raise ModelError(f"{index} has no weight_map of tensor names to files of this folder",
                         "an index as transformers writes it", "fetch the file again")  # fmt: skip
    state: dict[str, Tensor] = {}
    for part in sorted(set(places.values())):
        if not (folder / part).is_file():
            lost = sum(place == part for place in places.values())
            raise ModelError(f"{part} is missing in {folder}; {lost} tensors are in it",
                             f"every file that {INDEX} names", "fetch that file too")  # fmt: skip
        state |= _load(folder / part)
    absent = [name for name in places if name not in state]
    if absent:
        raise ModelError(f"{len(absent)} tensors that {INDEX} names are in no file of {folder}, "
                         f"such as {absent[0]}", "index and files of the same model",
                         "fetch the folder again")  # fmt: skip
    return state, str(index)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {str(error)[:120]}", "a whole safetensors file",
                         "fetch the file again") from error  # fmt: skip


def make_folder(folder: Path) -> None:
    """Make a folder where there is none; raise `StorageError` where the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as transformers does: sorted keys, two spaces, a last newline."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    write_file(path, text + "\n")


def write_tensors(
    folder: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write the tensors in one file, or in parts of up to `shard_bytes` bytes and an index.

    What an earlier write left is taken away last. Raises `StorageError` where the disk refuses.
    """
    parts: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if parts[-1] and size > room:
            parts.append({})
            room = shard_bytes
        parts[-1][name] = tensor
        room -= size
    names = [WHOLE]
    if len(parts) > 1:
        names = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        write_file(folder / name, save(part, metadata={"format": "pt"}))
    if len(parts) > 1:
        places = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        names.append(INDEX)
    # A folder written before may have been cut differently, and its files would be read as well.
    # They go last: a write that fails half way leaves a model behind.
    for old in [*folder.glob("model-*-of-*.safetensors"), folder / INDEX, folder / WHOLE]:
        if old.name not in names:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, old) from error
