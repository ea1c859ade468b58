"""Weights from elsewhere: a safetensors file, or a torch file read without running any code."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` with the weights of a file, every tensor by its name.

    path  .safetensors, or a torch file of tensors; the mapping may lie under "state_dict" or
          "model", and names may begin with what data-parallel wrappers put before them

    Raises `ModelError` for a file that is neither, and for names or shapes that do not fit.
    """
    state = _read(path)
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): t for name, t in state.items()}
    own = model.state_dict()
    wrong = [f"'{n}' is missing" for n in own if n not in state]
    wrong += [f"'{n}' is not in the model" for n in state if n not in own]
    wrong += [
        f"'{n}' is {tuple(state[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(
            f"the weights in {path} do not fit the model: {', '.join(wrong[:3])}{more}",
            "weights of the same architecture",
            "choose the model they were made for, or its options with --set model.X=...",
        )
    model.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    needed, do = "a safetensors file, or a torch file that holds only tensors", "export the weights"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read: {reason}", needed, do) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise ModelError(f"{path} holds more than named tensors", needed, do)
    return dict(content)
