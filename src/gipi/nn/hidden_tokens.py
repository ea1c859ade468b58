"""How well a model that reads both ways guesses tokens that are hidden from it, one at a time.

B rows, T tokens, V of the vocabulary, J judged places of a text.

    PLL(x) = Σ_t log p(x_t | x without x_t)

It is no probability of the text, since its factors do not multiply to one, but it says what stands
oddly among its neighbours on both sides.

Salazar et al. 2020, "Masked language model scoring", arXiv:1910.14659.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import NonFiniteError
from gipi.nn.stepper import device_of, padded, refuse_empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

TOKENS = 1 << 13  # read at once, padding included


@torch.inference_mode()
def hidden_log_likelihoods(
    model: nn.Module,
    texts: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    mask: int,
    batch_size: int | None = None,
) -> list[Tensor]:
    """Return log p of each judged token when it alone is hidden, a (J,) float32 tensor a text.

    model       `model(input_ids=, attention_mask=)` -> an object with `.logits` (B, T, V)
    texts       ids, with what the tokenizer puts around a text
    places      which tokens of each text are judged
    mask        id that hides a token
    batch_size  copies of texts at once, each with one token hidden; None: by their lengths

    Costs a reading of the text a token. Raises `DataError` for a text without a token,
    `NonFiniteError` for scores that are no numbers.
    """
    refuse_empty(texts, "text")
    todo = [(row, i, place) for row, several in enumerate(places)
            for i, place in enumerate(several)]  # fmt: skip
    todo.sort(key=lambda item: -len(texts[item[0]]))
    out = [torch.empty(len(several)) for several in places]
    few = "at" in inspect.signature(model.forward).parameters
    device, at = device_of(model), 0
    while at < len(todo):
        rows = batch_size or max(1, TOKENS // len(texts[todo[at][0]]))
        batch, at = todo[at : at + rows], at + rows
        ids_BT, real_BT = padded([texts[row] for row, _, _ in batch], left=False, device=device)
        each_B = torch.arange(len(batch), device=device)
        place_B = torch.tensor([place for _, _, place in batch], device=device)
        wanted_B = ids_BT[each_B, place_B]
        ids_BT[each_B, place_B] = mask
        if few:  # only B of the B·T logits are looked at
            flat_B = each_B * ids_BT.shape[1] + place_B
            logits_BV = model(input_ids=ids_BT, attention_mask=real_BT, at=flat_B).logits
        else:
            logits_BV = model(input_ids=ids_BT, attention_mask=real_BT).logits[each_B, place_B]
        log_p_B = logits_BV.float().log_softmax(1).gather(1, wanted_B[:, None])[:, 0].cpu()  # sync
        for (row, i, _), log_p in zip(batch, log_p_B, strict=True):
            out[row][i] = log_p
    for row, values in enumerate(out):
        if values.isnan().any():
            raise NonFiniteError(
                f"the score of text {row} is not a number", "finite logits",
                "the weights are damaged, or overflow in this precision: score in fp32",
            )  # fmt: skip
    return out
