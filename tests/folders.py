"""A tiny random encoder in a folder as Hugging Face writes it, with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gipi.models import bert, describe, save_folder
from gipi.models.encoder import EncoderConfig, EncoderModel
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig, draw_weights
from gipi.text import train_tokenizer
from tests.data.texts import reviews

if TYPE_CHECKING:
    from gipi.text import Tokenizer

WIDTH, LAYERS, POSITIONS = 16, 2, 32


def tiny_tokenizer(texts: list[str] | None = None) -> Tokenizer:
    """Return word pieces of the reviews, or of other texts, with [CLS] and [SEP] around a text."""
    learnt = [t for t, _ in reviews(200)] if texts is None else texts
    return train_tokenizer(learnt, kind="wordpiece", vocab=160,
                           special=("pad", "unk", "cls", "sep", "mask"))  # fmt: skip


def tiny_folder(
    path: Path, *, seed: int = 0, pad: int | None = None, texts: list[str] | None = None,
    positions: int = POSITIONS,
) -> Path:  # fmt: skip
    """Write the folder of a BERT of two blocks, 16 wide, and return it."""
    tokenizer = tiny_tokenizer(texts)
    assert tokenizer.pad is not None
    body = EncoderModel(EncoderConfig(
        EmbedConfig(tokenizer.vocab_size, WIDTH, positions=positions, segments=2, norm=True,
                    pad=tokenizer.pad if pad is None else pad, dropout=0.1),
        StackConfig(WIDTH, LAYERS, 2, 2 * WIDTH, eps=1e-12, dropout=0.1, attention_dropout=0.1),
        head="none", pool=True, head_dropout=0.1,
    ))  # fmt: skip
    draw_weights(body, torch.Generator().manual_seed(seed), std=0.3)
    save_folder(path, describe(body, bert.FAMILY))
    tokenizer.save(path)
    return path
