"""Encoder and decoder: read a word, write it backwards, and look at the letter that is due.

Two inputs need a stream of named columns; the net is called with them in their order.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch.nn import functional as F

import gipi
from gipi import models
from gipi.core.schema import Signature
from gipi.data.stream import Columns, RowStream

QUICK = "--quick" in sys.argv
PAD, BEGIN, LETTERS, LONGEST, VOCAB = 0, 1, "abcdefghij", 7, 12


def words(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random words (B, S), right-padded, and the same backwards."""
    generator = torch.Generator().manual_seed(rows)
    word = torch.randint(2, VOCAB, (rows, LONGEST), generator=generator)
    length = torch.randint(2, LONGEST + 1, (rows, 1), generator=generator)
    turn = (length - 1 - torch.arange(LONGEST)).clamp(min=0)
    inside = torch.arange(LONGEST) < length
    return word.where(inside, PAD), word.gather(1, turn).where(inside, PAD)


def loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of each row's letters, (B,)."""
    each = F.cross_entropy(scores.transpose(1, 2), target, ignore_index=PAD, reduction="none")
    return each.sum(1) / (target != PAD).sum(1)


def main() -> None:
    """Train on random words; print one, and what the decoder looked at for every letter."""
    word, back = words(3000 if QUICK else 10000)
    columns = Columns({"source": word, "target_in": F.pad(back, (1, -1), value=BEGIN)}, back)
    options = {"topology": "encoder-decoder", "width": 32, "embedding": 16}
    net = models.build("gru", Signature(vocab=VOCAB, pad=PAD, outputs=VOCAB), options=options)
    stream = RowStream(columns, np.arange(len(word)), batch_size=64)
    gipi.fit(net, loss, stream, gipi.Recipe(epochs=6 if QUICK else 10, lr=0.01, clip_norm=1.0))
    word, back = words(200)
    state, token, written = net.eval().start(word), torch.full((200,), BEGIN), []
    for _ in range(LONGEST):
        scores, state = net.step(token, state)
        written.append(token := scores.argmax(1))
    right = (torch.stack(written, 1) == back)[back != PAD].float().mean()
    print(f"{float(right):.3f} of the letters are right")
    looked = net.alignment(word, F.pad(back, (1, -1), value=BEGIN))[0].argmax(1).tolist()
    for t, place in enumerate(looked[: int((word[0] != PAD).sum())]):
        print(f"wrote {LETTERS[written[t][0] - 2]}, looked at letter {place + 1}")


if __name__ == "__main__":
    main()
