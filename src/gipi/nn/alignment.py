"""Attention of a decoder over what an encoder read: which source positions matter for this step.

Shapes: B rows, S source positions, T target positions, M memory width, Q query width, A energy
width.

The memory is what the encoder gave for each source position. What of it does not depend on the
query is computed once (`keys`), and used in every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from gipi.nn.init import initialise
from gipi.nn.over_time import masked_softmax

if TYPE_CHECKING:
    from torch import Generator, Tensor


class AdditiveAttention(nn.Module):
    """Weights from a small net on query and memory.

        e_ts = v · tanh(W q_t + U m_s),   a_t = softmax e_t,   context_t = Σ_s a_ts m_s

    Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
    translate", arXiv:1409.0473.
    """

    def __init__(self, query: int, memory: int, *, width: int, generator: Generator) -> None:
        super().__init__()
        self.query = nn.Linear(query, width)
        self.memory = nn.Linear(memory, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)
        for layer in (self.query, self.memory):
            initialise(layer, generator, activation="tanh")
        initialise(self.energy, generator)

    def keys(self, memory_BSM: Tensor) -> Tensor:
        """Return the part of the energies that no query changes, (B, S, A)."""
        keys: Tensor = self.memory(memory_BSM)
        return keys

    def forward(
        self, query_BTQ: Tensor, keys_BSA: Tensor, *, memory_BSM: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the contexts (B, T, M) and the weights (B, T, S), 0 where `mask_BS` is false."""
        hidden_BTSA = (self.query(query_BTQ)[:, :, None] + keys_BSA[:, None]).tanh()
        weights_BTS = masked_softmax(self.energy(hidden_BTSA)[..., 0], mask_BS[:, None])
        return weights_BTS @ memory_BSM, weights_BTS


class DotAttention(nn.Module):
    """Weights from the product of query and memory.

        e_ts = q_t · W m_s,   a_t = softmax e_t,   context_t = Σ_s a_ts m_s

    W is the identity where the widths agree ("dot" in the paper), else learned ("general").
    Luong, Pham and Manning 2015, "Effective approaches to attention-based neural machine
    translation", arXiv:1508.04025.
    """

    def __init__(self, query: int, memory: int, *, generator: Generator) -> None:
        super().__init__()
        self.memory = nn.Identity() if query == memory else nn.Linear(memory, query, bias=False)
        initialise(self.memory, generator)

    def keys(self, memory_BSM: Tensor) -> Tensor:
        """Return what the queries are multiplied with, (B, S, Q)."""
        keys: Tensor = self.memory(memory_BSM)
        return keys

    def forward(
        self, query_BTQ: Tensor, keys_BSQ: Tensor, *, memory_BSM: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the contexts (B, T, M) and the weights (B, T, S), 0 where `mask_BS` is false."""
        weights_BTS = masked_softmax(query_BTQ @ keys_BSQ.transpose(1, 2), mask_BS[:, None])
        return weights_BTS @ memory_BSM, weights_BTS
