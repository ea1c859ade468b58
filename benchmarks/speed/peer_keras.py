"""Keras 3 at its best on the backend that KERAS_BACKEND names (torch or jax).

The same networks in Keras layers, float32 or mixed bfloat16 as `PRECISION` says, each the faster of
the two; on JAX jit-compiled with many steps an execution, on torch eager (its `jit_compile` is
torch.compile: a loss at these sizes). Weights are Keras' own (Glorot), so accuracies differ a little.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import handwritten
import keras
import numpy as np
from keras import layers

if TYPE_CHECKING:
    from contender import Clock
    from works import Data, Work

BACKEND = os.environ.get("KERAS_BACKEND", "torch")
PRECISION = {
    "torch": {"mlp": "mixed_bfloat16", "lenet": "float32", "tiny": "float32",
              "resnet": "mixed_bfloat16"},
    "jax": {"mlp": "float32", "lenet": "float32", "tiny": "float32", "resnet": "float32"},
}  # fmt: skip
LAYOUT = {"torch": "channels_first", "jax": "channels_last"}


class Mark(keras.callbacks.Callback):
    """Marks the clock after each epoch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Mark the end of the epoch."""
        self.clock.mark()


def _block(x: Any, width: int, stride: int) -> Any:
    axis = 1 if LAYOUT[BACKEND] == "channels_first" else -1
    y = layers.Conv2D(width, 3, stride, "same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization(axis=axis)(y))
    y = layers.BatchNormalization(axis=axis)(layers.Conv2D(width, 3, 1, "same", use_bias=False)(y))
    if stride != 1 or x.shape[axis] != width:
        x = layers.Conv2D(width, 1, stride, use_bias=False)(x)
        x = layers.BatchNormalization(axis=axis)(x)
    return layers.ReLU()(layers.Add()([y, x]))


def network(work: Work) -> Any:
    """Return the work's network in Keras layers."""
    keras.config.set_image_data_format(LAYOUT[BACKEND])
    shape = work.shape
    if len(shape) == 3 and LAYOUT[BACKEND] == "channels_last":
        shape = (*shape[1:], shape[0])
    x = entry = keras.Input(shape)
    if work.name == "mlp":
        for width in (512, 256):
            x = layers.Dense(width, activation="relu")(x)
    elif work.name == "tiny":
        x = layers.Dense(32, activation="relu")(x)
    elif work.name == "lenet":
        x = layers.MaxPooling2D(2)(layers.Conv2D(6, 5, padding="same", activation="relu")(x))
        x = layers.MaxPooling2D(2)(layers.Conv2D(16, 5, activation="relu")(x))
        x = layers.Flatten()(x)
        for width in (120, 84):
            x = layers.Dense(width, activation="relu")(x)
    else:
        axis = 1 if LAYOUT[BACKEND] == "channels_first" else -1
        x = layers.Conv2D(64, 3, 1, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(axis=axis)(x))
        for width in (64, 128, 256, 512):
            x = _block(x, width, 1 if width == 64 else 2)
            x = _block(x, width, 1)
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(entry, layers.Dense(10, dtype="float32")(x))


def _rows(x: Any) -> np.ndarray:
    rows = x.numpy()
    if rows.ndim == 4 and LAYOUT[BACKEND] == "channels_last":
        rows = np.ascontiguousarray(rows.transpose(0, 2, 3, 1))
    return rows


def train(work: Work, data: Data, epochs: int, clock: Clock, seed: int) -> float:
    """Train by `Model.fit`."""
    keras.utils.set_random_seed(seed)
    precision = os.environ.get("KERAS_PRECISION", PRECISION[BACKEND][work.name])
    keras.config.set_dtype_policy(precision)
    if BACKEND == "torch":
        import torch

        torch.set_num_threads(handwritten.BEST[work.name].threads)
        keras.src.backend.common.global_state.set_global_attribute("torch_device", "cpu")
    model = network(work)
    if work.optimizer == "nesterov":
        optimizer = keras.optimizers.SGD(
            work.lr, momentum=work.momentum, nesterov=True, weight_decay=work.weight_decay
        )
    else:
        optimizer = keras.optimizers.Adam(work.lr)
    many = {"steps_per_execution": min(50, work.steps)} if BACKEND == "jax" else {}
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=BACKEND == "jax", **many,
    )  # fmt: skip
    model.fit(
        _rows(data.x), data.y.numpy(), batch_size=work.batch_size, epochs=epochs, verbose=0,
        shuffle=True, callbacks=[Mark(clock)],
    )  # fmt: skip
    clock.settings = f"{BACKEND}, {precision}, {LAYOUT[BACKEND]}, {many or 'eager'}"
    answers = model.predict(_rows(data.x_val), batch_size=256, verbose=0).argmax(1)
    return float((answers == data.y_val.numpy()).mean())
