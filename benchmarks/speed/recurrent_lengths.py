"""Rows of unequal length through a recurrent layer: packed, or run padded and masked afterwards.

    python benchmarks/speed/recurrent_lengths.py [--device cuda] [--rounds 15]

Both give the same outputs (checked here). Packed: `pack_padded_sequence`, which sorts the rows and
computes only what is no padding. Padded: all positions are computed; the second direction is a
layer of its own on rows that were turned round within their length. The ways take turns, so that a
busy machine slows both; the table shows medians and the spread between quartiles, of forward and
backward together.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
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
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            way().sum().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    return float(lengths.float().mean() / longest), seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor()
    print(f"torch {torch.__version__}, {given.device} {where}, one thread, {given.rounds} rounds")
    print(
        "| cell | directions | B, T, D, H | lengths | tokens | packed ms | padded ms | padded / packed |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for cell in ("lstm", "gru"):
        for directions in (1, 2):
            for shape in SHAPES:
                for kind in ("text", "bucket", "equal"):
                    share, seconds = measure(
                        cell, directions, shape, kind, given.device, given.rounds
                    )
                    ms = {}
                    for name, values in seconds.items():
                        low, middle, high = statistics.quantiles(values, n=4)
                        ms[name] = middle * 1e3, (high - low) * 1e3
                    ratio = ms["padded"][0] / ms["packed"][0]
                    words = [f"{m:.2f} ± {s:.2f}" for m, s in ms.values()]
                    print(f"| {cell} | {directions} | {', '.join(map(str, shape))} | {kind} | "
                          f"{share:.0%} | {words[0]} | {words[1]} | {ratio:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
