"""Deploying: model folders, prediction, and the evaluation that a report reads."""

from __future__ import annotations

from gipi.deploy.folder import (
    FORMAT_VERSION,
    ModelFolder,
    load_model_folder,
    save_model_folder,
    weights_sha256,
)

__all__ = [
    "FORMAT_VERSION",
    "ModelFolder",
    "load_model_folder",
    "save_model_folder",
    "weights_sha256",
]
