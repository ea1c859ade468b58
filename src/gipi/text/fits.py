"""Whether a tokenizer and a model belong together, asked before the first batch and not after.

An id that an embedding does not have ends in an index error deep inside, or on a GPU in a dead
process; a wrong padding id ends in nothing at all but a worse model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.text.tokenizer import Tokenizer


def check_fit(tokenizer: Tokenizer, vocab: int, *, special: Mapping[str, int | None]) -> None:
    """Raise `ModelError` unless every id of the tokenizer means the same to the model.

    vocab    rows of the model's embedding; more than the tokenizer has ids is allowed, as
             embeddings are often padded to a round number
    special  role ("pad", "bos", "eos", ...) -> the id that the model takes for it; None where the
             model does not say
    """
    if tokenizer.vocab_size > vocab:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's embedding {vocab} rows",
            "an embedding with a row for each id",
            "take the tokenizer that the model was trained with, or build the model with "
            f"vocab={tokenizer.vocab_size}",
        )
    for role, wanted in special.items():
        found = getattr(tokenizer, role)
        if wanted is None or found is None or wanted == found:
            continue
        raise ModelError(
            f"to the tokenizer the {role} token is {found} ({tokenizer.roles[role]}), "
            f"to the model it is {wanted}",
            "the same special ids on both sides",
            "take tokenizer and model of the same folder, or correct the model's configuration",
        )
