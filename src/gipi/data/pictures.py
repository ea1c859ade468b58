"""A column of pictures between the decoder and the model: raw pixels and how to normalise them.

Pixels are kept as uint8 (or float32) rows (C, H, W), in memory, memory-mapped, or still as files;
`normalise` turns them into the float32 values that the model sees, with one subtraction and one
product per value, so that every stream mode gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.data.decode import Decoder, decode_files
from gipi.data.source import ImageFiles

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_BLOCK = 4096  # rows converted at a time, so that the peak stays near the result's size


@dataclass(frozen=True)
class Pictures:
    """Pixels of N pictures and their normalisation (x - shift) * scale per channel.

    pixels   (N, C, H, W) uint8 or float32 (in memory or memory-mapped), or the files themselves
    decoder  how files become (C, H, W) uint8
    shift    C values in the unit of the pixels
    scale    C values, 1 / spread in the unit of the pixels
    """

    pixels: np.ndarray | ImageFiles
    decoder: Decoder
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one picture."""
        return self.decoder.shape

    @property
    def files(self) -> ImageFiles | None:
        """The files, where nothing is decoded yet; else None."""
        return self.pixels if isinstance(self.pixels, ImageFiles) else None

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Return the raw pixels (n, C, H, W) of these rows in this order, decoding where needed."""
        if isinstance(self.pixels, ImageFiles):
            return decode_files(self.pixels, rows, self.decoder)
        return self.pixels.take(rows, axis=0)

    def constants(self, device: torch.device, *, channels_last: bool) -> tuple[Tensor, Tensor]:
        """Return shift and scale as float32 tensors that broadcast over a batch of pixels."""
        view = (-1,) if channels_last else (-1, 1, 1)
        shift = torch.tensor(self.shift, dtype=torch.float32, device=device).view(view)
        return shift, torch.tensor(self.scale, dtype=torch.float32, device=device).view(view)


def normalise(raw: Tensor, shift: Tensor, scale: Tensor, *, out: Tensor) -> Tensor:
    """Write float32 (raw - shift) * scale to `out` and return it; each step rounds on its own."""
    return out.copy_(raw).sub_(shift).mul_(scale)


def resident(
    pictures: Pictures, rows: np.ndarray, *, device: torch.device, channels_last: bool
) -> Tensor:
    """Return normalised float32 pixels of `rows` on the device, (n, C, H, W) or (n, H, W, C)."""
    c, h, w = pictures.shape
    shape = (len(rows), h, w, c) if channels_last else (len(rows), c, h, w)
    out = torch.empty(shape, dtype=torch.float32, device=device)
    shift, scale = pictures.constants(device, channels_last=channels_last)
    for start in range(0, len(rows), _BLOCK):
        raw = torch.from_numpy(pictures.fetch(rows[start : start + _BLOCK])).to(device)
        block = out[start : start + len(raw)]
        normalise(raw.permute(0, 2, 3, 1) if channels_last else raw, shift, scale, out=block)
    return out
