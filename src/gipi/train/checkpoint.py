"""Checkpoints that survive `kill -9`, a full disk and a flipped bit.

`checkpoints/step-N/` holds `state.safetensors`, `state.json` and a manifest of their SHA-256, all
written into a temporary folder, flushed and renamed. The one before is kept until the new one has
been read back; old ones are renamed before they are deleted, so that no half-deleted folder ever
carries a checkpoint's name.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from gipi.core.atomic import read_folder, storage_error, write_folder
from gipi.core.errors import CheckpointError
from gipi.core.rundir import CHECKPOINTS
from gipi.train.state import State, from_tree, to_tree
from gipi.train.tree import pack, stored_once, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

TENSORS, TREE = "state.safetensors", "state.json"
FORMAT_VERSION = 1
_NAME = re.compile(r"^step-(\d+)$")
_ASIDE = re.compile(r"^\.(step-\d+)\.\d+\.old$")


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoint folders of a run, newest first."""
    folder = run / CHECKPOINTS
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    found = {folder / name for name in names if _NAME.match(name)}
    # killed while a step was written a second time: the first copy lies beside its place
    found |= {folder / m[1] for name in names if (m := _ASIDE.match(name))}
    return sorted(found, key=lambda p: int(p.name[5:]), reverse=True)


def save(run: Path, state: State, *, keep: int = 2) -> Path:
    """Write a checkpoint of `state`, read it back, then delete all but the newest `keep`.

    Raises `StorageError` (disk full, no permission); earlier checkpoints are then untouched.
    """
    path = run / CHECKPOINTS / f"step-{state.step}"
    tensors: dict[str, Tensor] = {}
    tree = pack(to_tree(state), "state", tensors)
    kept, alias = stored_once(tensors)
    header = {"format_version": FORMAT_VERSION, "tree": tree, "alias": alias}
    write_folder(path, {TENSORS: save_tensors(kept), TREE: json.dumps(header).encode()})
    read_folder(path)  # verified before anything older goes
    prune(run, keep, newest=state.step)
    return path


def prune(run: Path, keep: int, *, newest: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints, and what interrupted writes left behind.

    newest  step of the one just written: later ones are damaged or were rolled back, and go too
    """
    folder = run / CHECKPOINTS
    try:
        saved = [p for p in list_checkpoints(run) if p.exists()]
        valid = [p for p in saved if newest is None or int(p.name[5:]) <= newest]
        for old in [p for p in saved if p not in valid[:keep]]:
            old.rename(old.with_name(f".{old.name}.deleted"))
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)
    except OSError as error:
        raise storage_error(error, folder) from error


def newest_good(run: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """Return the newest undamaged checkpoint: its folder, its tree, and what was wrong with others.

    Raises `CheckpointError` when there is none; a run never starts afresh silently.
    """
    damage: list[str] = []
    for path in list_checkpoints(run):
        try:
            return path, read(path), damage
        except CheckpointError as error:
            damage.append(error.found)
    raise CheckpointError(
        "; ".join(damage) if damage else f"{run} holds no checkpoint",
        "at least one undamaged checkpoint to go on from",
        "start the run again with `gipi train`",
    )


def read(path: Path) -> dict[str, Any]:
    """Return the tree of one checkpoint; raise `CheckpointError` that names what is damaged."""
    files = read_folder(path)
    if set(files) != {TENSORS, TREE}:
        raise CheckpointError(
            f"{path} holds {sorted(files)}", f"exactly {TENSORS} and {TREE}", "use an earlier one"
        )
    header = json.loads(files[TREE])
    if header["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {header['format_version']}",
            f"at most {FORMAT_VERSION}, which this gipi writes",
            "pip install --upgrade gipi",
        )
    tensors = load_tensors(files[TENSORS])
    tensors.update({name: tensors[kept] for name, kept in header["alias"].items()})
    tree: dict[str, Any] = unpack(header["tree"], tensors)
    return tree


def load(run: Path, state: State) -> list[str]:
    """Restore the newest good checkpoint into `state`; return the damage met on the way.

    Raises `CheckpointError` when none is good or when it belongs to another model.
    """
    path, tree, damage = newest_good(run)
    try:
        from_tree(state, tree)
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not fit the model: {str(error).splitlines()[0]}",
            "the model, optimizer and settings that the run was started with",
            "resume with the same objects, or start a new run",
        ) from error
    return damage
