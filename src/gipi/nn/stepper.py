"""One way to ask any model for the next token: from prompts to a state, from a state onwards.

B rows, N new tokens, T tokens so far, V tokens of the vocabulary.

A `Stepper` is what decoding, beam search and scoring call. Models differ in what they remember; the
kinds of this package stand in `steppers`, another kind brings a class with the same methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from gipi.core.errors import ConfigError, DataError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


class Stepper(Protocol):
    """What can be asked for next tokens. A state belongs to its stepper and may change in place."""

    @property
    def context(self) -> int | None:
        """The most tokens of a row, those of the prompt included; None: no limit is known."""

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:
        """Read the prompts; return the logits (B, V) of what follows each, and the state.

        room  how many tokens a row may still get; memory for them is taken at once
        """

    def step(self, tokens_BN: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read N further tokens a row, all real; return the logits (B, N, V) after each."""

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Return the state whose row i is row index[i] of `state`; rows may repeat or be left out.

        index  (B',) int64
        """

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the tokens of each row that count as already said."""

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits (B, T, V) after each token of whole texts, padded on the right."""


def padded(rows: Sequence[Sequence[int]], *, left: bool, device: torch.device | str = "cpu",
           fill: int = 0) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return ids (B, T) int64 and their mask (B, T) bool, padded with `fill` on one side.

    >>> ids, mask = padded([[5, 6, 7], [8]], left=True)
    >>> ids.tolist(), mask.int().tolist()
    ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    """
    width = max((len(row) for row in rows), default=0)
    gaps = [[fill] * (width - len(row)) for row in rows]
    off = [[0] * len(gap) for gap in gaps]
    ids = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)]
    on = [
        [*gap, *[1] * len(row)] if left else [*[1] * len(row), *gap]
        for row, gap in zip(rows, off, strict=True)
    ]
    shape = (len(rows), width)
    return (
        torch.tensor(ids, dtype=torch.int64, device=device).reshape(shape),
        torch.tensor(on, dtype=torch.bool, device=device).reshape(shape),
    )


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters of a model lie; the processor where it has none."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def refuse_empty(rows: Sequence[Sequence[int]], what: str = "prompt") -> None:
    """Raise the `DataError` of the first row without a token."""
    empty = [i for i, row in enumerate(rows) if not len(row)]
    if empty:
        raise DataError(f"{what} {empty[0]} has no token", "at least one token",
                        "begin with the id that starts a text, or leave it out")  # fmt: skip


def nothing_left(logits: Tensor, *, prompt: int, step: int) -> Exception:
    """Return the error for a prompt that can say nothing: its logits are spoilt, or all ruled out.

    logits  before any limit
    step    new tokens that were said before
    """
    if not logits.amax().isfinite():
        return NonFiniteError(
            f"the logits of prompt {prompt} after {step} new tokens are not finite",
            "finite numbers",
            "the weights are damaged, or overflow in this precision: generate in fp32",
        )
    return ConfigError(
        f"after {step} new tokens prompt {prompt} has no token left that may be said",
        "limits that leave at least one token",
        "forbid fewer ids, or a longer n-gram than that of no_repeat_ngram",
    )
