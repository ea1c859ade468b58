"""Writing a text for a text, token by token: translations and summaries.

Shapes: B rows, S source tokens, T target tokens, N predicted tokens of a batch, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi import losses, metrics
from gipi.core.errors import ConfigError, ModelError, did_you_mean
from gipi.core.schema import IGNORED_TOKEN
from gipi.data import tokenizer_of
from gipi.nn.beam import beam_search
from gipi.nn.decode import decode as decode_rows
from gipi.nn.sampling import Limits
from gipi.nn.steppers import stepper
from gipi.tasks.task import Loss, LossFunction, Phase, Task, call_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema
    from gipi.nn.stepper import Stepper

METRICS = ("token_accuracy", "loss")
WORDS = ("13a", "char", "none")
TOGETHER = 64  # rows answered at once: the keys and values of their beams stay in the cache
WRONG = -1  # the guess at a token that is not the likeliest


@dataclass(frozen=True)
class _Search:
    """How an answer is looked for: see `translate`."""

    beams: int
    length_penalty: float
    max_new_tokens: int | None


def translate(
    *,
    label_smoothing: float = 0.1,
    beams: int = 4,
    length_penalty: float = 1.0,
    max_new_tokens: int | None = None,
    metric: str = "token_accuracy",
    words: str = "13a",
) -> Task:
    """Return the task of translating: the text of each row becomes another, token by token.

        p(y | x) = Π_t p(y_t | y_<t, x),   l = -Σ_t log p(y_t | y_<t, x)

    In training the model sees the right tokens before each place (teacher forcing) and the loss has
    label smoothing; in an evaluation it is the plain -log p of a target token. Answers are made by
    beam search from the source alone, and scored by corpus BLEU against the texts of the data.

    label_smoothing  ε of the training loss (Szegedy et al. 2016, arXiv:1512.00567)
    beams            beginnings that are followed side by side; 1: greedy
    length_penalty   α: answers are compared by Σ log p / length^α
    max_new_tokens   of an answer; None: the length of the longest training target
    metric           what decides which weights are best: `METRICS`
    words            how BLEU cuts a text into words: 13a, char, or none (at spaces)

    Sutskever, Vinyals and Le 2014, arXiv:1409.3215. Raises `ConfigError` for values that are out of
    range.
    """
    if words not in WORDS:
        raise ConfigError(f"task.words={words!r}", "one of " + ", ".join(WORDS),
                          did_you_mean(words, WORDS))  # fmt: skip
    search = _Search(beams, length_penalty, max_new_tokens)
    spec = {"label_smoothing": label_smoothing, "beams": beams, "length_penalty": length_penalty,
            "max_new_tokens": max_new_tokens, "metric": metric, "words": words}  # fmt: skip
    judges = (metrics.build_text("bleu", options={"words": words}),)
    return _writing("translate", spec, label_smoothing, search, metric, judges)


def summarise(
    *,
    label_smoothing: float = 0.1,
    beams: int = 4,
    length_penalty: float = 1.0,
    max_new_tokens: int | None = None,
    metric: str = "token_accuracy",
) -> Task:
    """Return the task of summarising: `translate` into a shorter text, scored by ROUGE-L.

    Arguments as of `translate`. Rush, Chopra and Weston 2015, arXiv:1509.00685 (a neural net that
    writes summaries). Raises `ConfigError` for values that are out of range.
    """
    search = _Search(beams, length_penalty, max_new_tokens)
    spec = {"label_smoothing": label_smoothing, "beams": beams, "length_penalty": length_penalty,
            "max_new_tokens": max_new_tokens, "metric": metric}  # fmt: skip
    judges = (metrics.build_text("rouge_l"), metrics.build_text("bleu"))
    return _writing("summarise", spec, label_smoothing, search, metric, judges)


def _writing(
    name: str, spec: dict[str, Any], smoothing: float, search: _Search, metric: str,
    judges: Sequence[metrics.TextMetric],
) -> Task:  # fmt: skip
    _check(smoothing, search, metric)

    def measured(schema: Schema | None) -> list[metrics.Metric]:  # noqa: ARG001
        return [metrics.build("token_accuracy")]

    def predict(model: nn.Module, batch: Batch, schema: Schema, *, quick: bool = False) -> Tensor:
        return _answers(model, batch, schema, search, beams=1 if quick else search.beams)

    return Task(
        name=name,
        spec=(name, spec),
        outputs=_vocabulary,
        phases=(Phase(name, _loss(smoothing)),),
        forward=call_model,
        units=_units,
        metrics=measured,
        decode=_decode,
        primary=metric,
        predict=predict,
        judges=tuple(judges),
    )


def _check(smoothing: float, search: _Search, metric: str) -> None:
    if not 0 <= smoothing < 1:
        raise ConfigError(f"task.label_smoothing={smoothing}", "a number in [0, 1)",
                          "0.1 is usual")  # fmt: skip
    if search.beams < 1:
        raise ConfigError(f"task.beams={search.beams}", "a whole number from 1 up",
                          "1 is greedy, 4 is usual")  # fmt: skip
    if search.max_new_tokens is not None and search.max_new_tokens < 1:
        raise ConfigError(f"task.max_new_tokens={search.max_new_tokens}", "at least 1",
                          "leave it out for the length of the longest target")  # fmt: skip
    if metric not in METRICS:
        raise ConfigError(
            f"task.metric={metric!r} cannot decide which weights are best",
            "one of " + ", ".join(METRICS) + ", which every validation row is scored by",
            did_you_mean(metric, METRICS),
        )


def _vocabulary(schema: Schema) -> int:
    """Return the width of the head: the ids that source and target share."""
    return int(schema.of("input", "text")[0].stats["vocab"])


# ------------------------------------------------------------------ the loss


def _loss(smoothing: float) -> LossFunction:
    """Return the loss of a batch; its outputs are (B, T) int64 guesses.

    The likeliest token costs a pass over all logits that is many times slower than their maximum,
    so a guess is the target where no logit is larger than its own, else `WRONG`.
    """

    def loss(model: nn.Module, batch: Batch) -> Loss:
        target_BT = batch.target
        assert target_BT is not None
        epsilon = smoothing if model.training else 0.0
        places, labels, weight = None, target_BT, batch.weight
        if _picks(model) and target_BT.device.type == "cpu":  # elsewhere the number would be waited
            places = (target_BT != IGNORED_TOKEN).flatten().nonzero()[:, 0]
            labels = target_BT.flatten()[places]
            weight = None if weight is None else weight[places // target_BT.shape[1]]
            logits = model(*batch.inputs.values(), places=places)
        else:
            logits = model(*batch.inputs.values())
        total, count = losses.token_cross_entropy(logits, labels, weight, label_smoothing=epsilon)
        seen = _guesses(logits.detach(), labels)
        if places is not None:
            whole = seen.new_full(target_BT.shape, WRONG)
            whole.view(-1)[places] = seen
            seen = whole
        # A reciprocal of whole numbers would be float32, whatever the model is.
        return Loss(total, count.to(total.dtype), seen)

    return loss


def _guesses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (...) int64: the label where no logit (..., V) is above its own, else `WRONG`."""
    known = labels.clamp_min(0)
    own = logits.gather(-1, known[..., None])[..., 0]
    return torch.where(own >= logits.amax(-1), known, WRONG)


def _picks(model: nn.Module) -> bool:
    """Whether a model can be asked for the logits of some places alone."""
    return bool(getattr(_bare(model), "picks_places", False))


def _bare(model: nn.Module) -> nn.Module:
    """Return the module inside the wrapper of several ranks, and that of compilation."""
    inner = getattr(model, "module", model)
    bare: nn.Module = getattr(inner, "_orig_mod", inner)
    return bare


def _units(outputs: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return outputs.long(), target


# ------------------------------------------------------------------ answers


def _answers(
    model: nn.Module, batch: Batch, schema: Schema, search: _Search, *, beams: int
) -> Tensor:
    """Return (B, L) int64 ids that are written for the sources of a batch, filled up with padding.

    Row for row they do not depend on the batch. Always in float32: a search compares sums of many
    log-probabilities.
    """
    read, written = schema.of("input", "text")[0].stats, schema.of("target", "text")[0].stats
    begin, end, pad = int(read["begin"]), int(read["end"]), int(read["pad"])
    most = search.max_new_tokens or int(written["length"])
    limits = Limits(forbidden=tuple({pad, begin} - {end}))
    source = next(iter(batch.inputs.values()))
    asked = _asked(_bare(model), begin, pad)
    rows = [[i for i in row if i != pad] for row in source.tolist()]  # sync
    said: list[Sequence[int]] = []
    with torch.autocast(source.device.type, enabled=False):
        for first in range(0, len(rows), TOGETHER):
            part = rows[first : first + TOGETHER]
            if beams == 1:
                found = decode_rows(asked, part, max_new_tokens=most, stop=(end,), limits=limits)
                said += [answer.tokens for answer in found]
            else:
                best = beam_search(asked, part, beams=beams, max_new_tokens=most, stop=(end,),
                                   length_penalty=search.length_penalty, limits=limits)  # fmt: skip
                said += [hypotheses[0].tokens for hypotheses in best]
    width = max(1, *map(len, said))
    filled = [[*row, *[pad] * (width - len(row))] for row in said]
    return torch.tensor(filled, device=source.device)


def _asked(model: nn.Module, begin: int, pad: int) -> Stepper:
    """Return what gives the next token; raise `ModelError` for a model that cannot be asked."""
    body = getattr(model, "body", model)
    steps = all(callable(getattr(model, name, None)) for name in ("start", "step", "reorder"))
    if not steps and not callable(getattr(body, "new_cache", None)):
        raise ModelError(
            f"the model {type(model).__name__} cannot be asked for one token after the other",
            "the methods start(source), step(tokens, state) and reorder(state, index), or a cache",
            "add them as in gipi.nn.steppers.RecurrentAnswer, or use the model 'transformer'",
        )
    return stepper(model, start_ids=(begin,), pad=pad)


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:
    """Return ``text``: what the ids of each row say."""
    tokenizer = tokenizer_of(schema)
    pad, size = int(schema.of("input", "text")[0].stats["pad"]), tokenizer.vocab_size
    out = np.empty(len(outputs), dtype=object)
    for row, ids in enumerate(outputs.long().tolist()):
        out[row] = tokenizer.decode([i for i in ids if i != pad and 0 <= i < size]).strip()
    return {"text": out}
