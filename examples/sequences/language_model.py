"""A language model learns a text in pieces: the state goes on from one to the next.

The gradient does not: truncated back-propagation through time, in a loop of one's own.
"""

from __future__ import annotations

import sys

import torch
from torch.nn import functional as F

from gipi import models
from gipi.core.schema import Signature
from gipi.nn import detached

QUICK = "--quick" in sys.argv
VERSE = (
    "this is the house that jack built. this is the malt that lay in the house that jack built. "
    "this is the rat that ate the malt that lay in the house that jack built. "
)
LETTERS = sorted(set(VERSE))
ROWS, PIECE = 4, 16


def main() -> None:
    """Read the verse over and over in four places at once, then write it on from its beginning."""
    text = torch.tensor([LETTERS.index(c) for c in VERSE * 40])
    text = text[: len(text) // ROWS * ROWS].view(ROWS, -1)
    net = models.build(
        "lstm", Signature(vocab=len(LETTERS) + 1, pad=len(LETTERS), outputs=len(LETTERS) + 1),
        options={"topology": "language-model", "width": 64, "embedding": 64, "tied": True},
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for epoch in range(3 if QUICK else 10):
        state, total = net.begin(ROWS), 0.0
        starts = range(0, text.shape[1] - PIECE, PIECE)
        for at in starts:
            scores, state = net.advance(text[:, at : at + PIECE], detached(state))
            loss = F.cross_entropy(scores.flatten(0, 1), text[:, at + 1 : at + PIECE + 1].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}: loss {total / len(starts):.3f}")
    with torch.no_grad():
        prompt = torch.tensor([[LETTERS.index(c) for c in "this is the"]])
        state, token, written = net.eval().start(prompt[:, :-1]), prompt[:, -1], "this is the"
        for _ in range(60):
            scores, state = net.step(token, state)
            token = scores.argmax(1)
            written += LETTERS[int(token)]
    print(written)


if __name__ == "__main__":
    main()
