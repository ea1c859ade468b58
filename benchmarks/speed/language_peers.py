"""The small GPT of language_loop.py in the Hugging Face Trainer and in Keras 3, each as fast as we could.

Same shape, rows, optimizer, schedule and number of steps. transformers' GPT-2 keeps its biases, Keras its
own initial weights, so losses differ a little. Batches reach the Trainer by one gather in the collator
(no loop over rows in Python), fused AdamW, one log row at the end, nothing saved. Keras gets all its
windows made beforehand, outside the clock; on JAX it is compiled with 50 steps an execution, on torch
it is eager. Tokens/s leave out the first tenth of the steps, in which things are compiled.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import language_loop as loop
import numpy as np
import torch
from stats import versions

PARTS = 10
NAMES = ("hf", "hf-bf16", "keras-torch", "keras-jax")


def train(contender: str, steps: int, *, seed: int, threads: int) -> dict[str, Any]:
    """Train once; return tokens/s after the first tenth of the steps, and the validation loss."""
    if threads:
        torch.set_num_threads(threads)
    if contender.startswith("keras"):
        os.environ["KERAS_BACKEND"] = contender.partition("-")[2]
        marks, val, precision = _keras(steps, seed)
    else:
        precision = "bf16" if contender.endswith("bf16") else "fp32"
        marks, val = _trainer(steps, seed, precision)
    later = steps - steps // PARTS
    seconds = marks[-1] - marks[1]
    return {
        "tokens_per_s": later * loop.BATCH * loop.CONTEXT / seconds, "val": val, "own": val,
        "steps": steps, "seconds": marks[-1] - marks[0], "precision": precision,
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "numpy", *(
            ("keras", "jax") if contender.startswith("keras") else ("transformers", "accelerate")
        )),
    }  # fmt: skip


def _windows(ids: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    at = torch.randint(len(ids) - loop.CONTEXT, (count, 1)) + torch.arange(loop.CONTEXT)
    return ids[at], ids[at + 1]


def _trainer(steps: int, seed: int, precision: str) -> tuple[list[float], float]:
    import transformers as hf

    hf.set_seed(seed)
    train_ids, val_ids, vocab = loop.read(Path(os.environ["GIPI_DATA"]))
    shape = hf.GPT2Config(
        vocab_size=vocab, n_positions=loop.CONTEXT, n_embd=loop.WIDTH, n_layer=loop.LAYERS,
        n_head=loop.HEADS, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0,
        eos_token_id=0, use_cache=False,
    )  # fmt: skip
    model = hf.GPT2LMHeadModel(shape)
    marks: list[float] = []
    first = steps // PARTS

    class Clock(hf.TrainerCallback):
        """Notes the beginning, the end of the first tenth, and the end."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (first, steps):
                marks.append(time.perf_counter())

    def collate(rows: list[int]) -> dict[str, torch.Tensor]:
        x, y = _windows(train_ids, len(rows))
        return {"input_ids": x, "labels": y, "shift_labels": y}

    with tempfile.TemporaryDirectory() as folder:
        asked = hf.TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=loop.BATCH,
            learning_rate=loop.LR, weight_decay=loop.DECAY, adam_beta2=0.99,
            max_grad_norm=loop.CLIP, lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr": loop.LEAST_LR},
            warmup_steps=min(loop.WARMUP, steps // 2), logging_steps=steps, save_strategy="no",
            report_to="none", optim="adamw_torch_fused", use_cpu=True, bf16=precision == "bf16",
            seed=seed, disable_tqdm=True,
        )  # fmt: skip
        hf.Trainer(model, asked, train_dataset=range(steps * loop.BATCH), data_collator=collate,
                   callbacks=[Clock()]).train()  # fmt: skip

    class Plain(torch.nn.Module):
        """Logits alone, as the judge takes them."""

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return model(ids).logits

    return marks, loop.judge(Plain(), val_ids)


def _keras(steps: int, seed: int) -> tuple[list[float], float, str]:
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(seed)
    on_jax = keras.backend.backend() == "jax"
    if not on_jax:
        keras.src.backend.common.global_state.set_global_attribute("torch_device", "cpu")
    train_ids, val_ids, vocab = loop.read(Path(os.environ["GIPI_DATA"]))
    torch.manual_seed(seed)
    x, y = (t.numpy().astype("int32") for t in _windows(train_ids, steps * loop.BATCH))

    class Ends(layers.Layer):
        """Tokens and places at the entry; the table of tokens once more as the head."""

        def build(self, _: Any) -> None:
            make = {"initializer": keras.initializers.RandomNormal(stddev=0.02)}
            self.tokens = self.add_weight(shape=(vocab, loop.WIDTH), **make)
            self.places = self.add_weight(shape=(loop.CONTEXT, loop.WIDTH), **make)

        def call(self, ids: Any, *, hidden: Any = None) -> Any:
            if hidden is not None:
                return ops.matmul(hidden, ops.transpose(self.tokens))
            return ops.take(self.tokens, ids, axis=0) + self.places

    entry = keras.Input((loop.CONTEXT,), dtype="int32")
    ends = Ends()
    h = ends(entry)
    for _ in range(loop.LAYERS):
        n = layers.LayerNormalization(epsilon=1e-5)(h)
        attend = layers.MultiHeadAttention(loop.HEADS, loop.WIDTH // loop.HEADS, use_bias=False)
        h = h + attend(n, n, use_causal_mask=True)
        n = layers.LayerNormalization(epsilon=1e-5)(h)
        n = layers.Dense(4 * loop.WIDTH, use_bias=False)(n)
        h = h + layers.Dense(loop.WIDTH, use_bias=False)(ops.gelu(n, approximate=True))
    model = keras.Model(entry, ends(entry, hidden=layers.LayerNormalization(epsilon=1e-5)(h)))
    warmup = min(loop.WARMUP, steps // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, alpha=loop.LEAST_LR / loop.LR, warmup_target=loop.LR,
        warmup_steps=warmup,
    )  # fmt: skip
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=loop.DECAY, beta_2=0.99, global_clipnorm=loop.CLIP, epsilon=1e-8
    )
    marks: list[float] = []

    class Clock(keras.callbacks.Callback):
        """Notes the beginning and the end of each tenth."""

        def on_train_begin(self, logs: Any = None) -> None:
            marks.append(time.perf_counter())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            marks.append(time.perf_counter())

    part = steps // PARTS
    many = {"steps_per_execution": math.gcd(50, part)} if on_jax else {}
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  jit_compile=on_jax, **many)  # fmt: skip
    rows = (np.split(a[: part * PARTS * loop.BATCH], PARTS) for a in (x, y))
    model.fit(_tenths(*rows, batch=loop.BATCH), epochs=PARTS, steps_per_epoch=part, verbose=0,
              shuffle=False, callbacks=[Clock()])  # fmt: skip
    whole = (len(val_ids) - 1) // loop.CONTEXT
    at, after = (val_ids[i : i + whole * loop.CONTEXT].numpy().reshape(whole, -1) for i in (0, 1))
    logits = torch.from_numpy(np.array(model.predict(at.astype("int32"), batch_size=64, verbose=0)))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1),
                                             torch.from_numpy(after).flatten())  # fmt: skip
    return marks, float(loss), "fp32"


def _tenths(x: list[np.ndarray], y: list[np.ndarray], *, batch: int) -> Any:
    """Yield batch after batch, one tenth after the other."""
    for xs, ys in zip(x, y, strict=True):
        for at in range(0, len(xs), batch):
            yield xs[at : at + batch], ys[at : at + batch]
