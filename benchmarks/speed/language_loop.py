"""The hand-written loop for a small GPT on characters, in the style of nanoGPT; nothing of gipi.

    GIPI_DATA=folder python language_loop.py [--steps 2000] [--precision fp32|bf16] [--seed 0]

4 layers, 4 heads, 128 wide, context 64, batch 12, no dropout, no biases, fused AdamW (0.9, 0.99)
with decay 0.1 on matrices, clipping at 1, 100 steps of warm-up and a cosine from 1e-3 to 1e-4: the
settings that nanoGPT's page gives for a processor. Fused qkv and attention, set_to_none, batches
gathered by index from one tensor; what was tried and lost: torch.compile for so few steps.
Prints one line of JSON. The validation loss is of windows side by side, in nats a character.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import math
import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
LR, LEAST_LR, WARMUP, DECAY, CLIP = 1e-3, 1e-4, 100, 0.1, 1.0


class Block(nn.Module):
    """Attention and a dense part, a norm before each."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, _ = x.shape
        q, k, v = (
            p.view(B, T, HEADS, WIDTH // HEADS).transpose(1, 2)
            for p in self.qkv(self.norm1(x)).split(WIDTH, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Tokens and places, blocks, a norm, and the table of tokens once more as the head."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                small = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * LAYERS) if small else 0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


def text_of(folder: Path) -> str:
    """Return the text of a folder of data sets, where its file may be packed."""
    for name, read_in in (("input.txt", open), ("input.txt.gz", gzip.open),
                          ("input.txt.xz", lzma.open)):  # fmt: skip
        path = folder / "tinyshakespeare" / name
        if path.exists():
            with read_in(path, "rt", encoding="utf-8") as file:
                return file.read()
    raise SystemExit(f"no tinyshakespeare/input.txt in {folder}: set GIPI_DATA")


def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return training ids, validation ids and the size of the vocabulary."""
    text = text_of(folder)
    letters = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[c] for c in text])
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(letters)


def lr_at(step: int, steps: int) -> float:
    """Return the learning rate of a step."""
    warmup = min(WARMUP, steps // 2)
    if step < warmup:
        return LR * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, steps - warmup)
    return LEAST_LR + 0.5 * (1 + math.cos(math.pi * share)) * (LR - LEAST_LR)


def train(steps: int, *, seed: int = 0, precision: str = "fp32", threads: int = 0) -> dict:
    """Train once; return seconds of the loop, tokens/s and the validation loss."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train_ids, val_ids, vocab = read(Path(os.environ["GIPI_DATA"]))
    model = GPT(vocab)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=LR, betas=(0.9, 0.99), fused=True,
    )  # fmt: skip
    context = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    offsets = torch.arange(CONTEXT)
    began, cpu = time.perf_counter(), time.process_time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, steps)
        at = torch.randint(len(train_ids) - CONTEXT, (BATCH, 1)) + offsets
        with context:
            logits = model(train_ids[at])
            loss = F.cross_entropy(logits.float().flatten(0, 1), train_ids[at + 1].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "seconds": seconds, "cpu_s": cpu, "steps": steps, "tokens": steps * BATCH * CONTEXT,
        "tokens_per_s": steps * BATCH * CONTEXT / seconds, "val": judge(model, val_ids),
        "precision": precision, "threads": torch.get_num_threads(),
    }  # fmt: skip


@torch.inference_mode()
def judge(model: nn.Module, ids: torch.Tensor, *, context: int = CONTEXT) -> float:
    """Return the mean loss of every token but the first, in windows side by side."""
    total, whole = 0.0, (len(ids) - 1) // context
    windows = ids[: whole * context].view(whole, context)
    targets = ids[1 : whole * context + 1].view(whole, context)
    for x, y in zip(windows.split(64), targets.split(64), strict=True):
        logits = model(x)
        total += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum"))
    return total / (whole * context)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    done = train(asked.steps, seed=asked.seed, precision=asked.precision, threads=asked.threads)
    print(json.dumps(done))
