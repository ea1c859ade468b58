"""Rows of unequal length through a recurrent layer: packed, or run padded and masked afterwards.

    python recurrent_lengths.py [--device cuda] [--rounds 7] [--again]

Both give the same outputs (checked here). Packed: `pack_padded_sequence`, which sorts the rows and
computes only what is no padding. Padded: all positions are computed; the second direction is a
layer of its own on rows that were turned round within their length. The two take turns; medians of
forward and backward together, on a processor its own time with one thread, so that what else runs
there counts little.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import torch
from stats import Results, versions
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SHAPES = ((32, 64, 64, 64), (64, 48, 128, 128), (128, 40, 128, 256))  # B, T, D, H


def text_lengths(rows: int, longest: int, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Return lengths as texts have them (lognormal), as buckets have them, or all the same."""
    if kind == "equal":
        return torch.full((rows,), longest)
    low = 0.8 * longest if kind == "bucket" else 1.0
    spread = torch.randn(rows, generator=generator).mul(0.7).exp() * 0.35 * longest
    if kind == "bucket":
        spread = torch.rand(rows, generator=generator) * 0.2 * longest + low
    lengths = spread.round().long().clamp(1, longest)
    lengths[0] = longest
    return lengths


def packed(layer, x, lengths):
    data = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(layer(data)[0], batch_first=True, total_length=x.shape[1])[0]


def padded(layers, x, lengths):
    steps = torch.arange(x.shape[1], device=x.device)
    mask = (steps < lengths[:, None])[..., None]
    out = layers[0](x)[0]
    if len(layers) == 2:
        turn = torch.where(mask[..., 0], lengths[:, None] - 1 - steps, steps)[..., None]
        back = layers[1](x.gather(1, turn.expand_as(x)))[0]
        out = torch.cat([out, back.gather(1, turn.expand_as(back))], 2)
    return out * mask


def measure(cell, directions, shape, kind, device, rounds):
    rows, longest, inputs, width = shape
    generator = torch.Generator().manual_seed(0)
    lengths = text_lengths(rows, longest, kind, generator).to(device)
    x = torch.randn(rows, longest, inputs, generator=generator).to(device).requires_grad_()
    both = CELLS[cell](inputs, width, batch_first=True, bidirectional=directions == 2).to(device)
    single = [CELLS[cell](inputs, width, batch_first=True).to(device) for _ in range(directions)]
    for layer, end in zip(single, ("", "_reverse"), strict=False):
        for name, weight in layer.named_parameters():
            weight.data.copy_(both.get_parameter(name + end))
    ways = {
        "packed": lambda: packed(both, x, lengths),
        "padded": lambda: padded(single, x, lengths),
    }
    torch.testing.assert_close(ways["packed"](), ways["padded"](), rtol=1e-4, atol=1e-5)
    clock = time.perf_counter if device == "cuda" else time.process_time
    ms = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if device == "cuda":
                torch.cuda.synchronize()
            began = clock()
            way().sum().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            ms[name].append((clock() - began) * 1e3)
    return float(lengths.float().mean() / longest), ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--again", action="store_true", help="measure known rows once more")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = Results("recurrent_lengths")
    print("| cell | directions | B, T, D, H | lengths | tokens | packed ms | padded ms | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for cell, directions, shape, kind in itertools.product(
        ("lstm", "gru"), (1, 2), SHAPES, ("text", "bucket", "equal")
    ):
        sizes = "x".join(map(str, shape))
        work, variant = f"{cell} x{directions} {sizes} {given.device}", kind
        if results.has(work, variant) and not given.again:
            continue
        share, ms = measure(cell, directions, shape, kind, given.device, given.rounds)
        results.add(work, variant, ms=ms, tokens=share, versions=versions("torch"))
        packed_ms, padded_ms = (statistics.median(values) for values in ms.values())
        print(f"| {cell} | {directions} | {', '.join(map(str, shape))} | {kind} | {share:.0%} "
              f"| {packed_ms:.2f} | {padded_ms:.2f} | {padded_ms / packed_ms:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
