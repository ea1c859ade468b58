"""Your own loop: the streams, models and tasks of gipi, and PyTorch for the rest."""

from __future__ import annotations

import sys

import torch

import gipi
from gipi import tasks

QUICK = "--quick" in sys.argv


def main() -> None:
    """Train an MLP on the wine table with a loop of twelve lines."""
    data = gipi.open("wine")
    task = tasks.classify(label_smoothing=0.05)
    signature = data.signature(task.outputs(data.schema))
    net = gipi.model("mlp", classes=signature.outputs, numbers=signature.numbers, seed=0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)

    stream = data.stream("train", batch_size=32, seed=0)
    for epoch in range(5 if QUICK else 40):
        total, count = 0.0, 0.0
        for batch in stream.epoch(epoch):
            loss = task.phases[0].loss(net, batch)
            optimizer.zero_grad()
            (loss.total / loss.count).backward()
            optimizer.step()
            total += float(loss.total.detach())
            count += float(loss.count)
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {total / count:.3f}")

    net.eval()
    right = rows = 0
    with torch.no_grad():
        for batch in data.stream("test", batch_size=64).epoch(0):
            answers = task.decode(task.forward(net, batch), data.schema)
            right += int((torch.as_tensor(answers["index"]) == batch.target).sum())
            rows += len(batch)
    print(f"test accuracy {right / rows:.3f} on {rows} rows")


if __name__ == "__main__":
    main()
