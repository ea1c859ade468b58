"""Tasks made of running text: hidden tokens and cut-out spans, with a teacher or without one.

Shapes: B rows, M tokens asked for in a row, N of them in a batch, V ids, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from gipi import losses, metrics
from gipi.core.errors import ConfigError
from gipi.core.schema import IGNORED_TOKEN
from gipi.tasks.task import Loss, Phase, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema


def masked(
    *, share: float = 0.15, whole_words: bool = False, next_sentence: bool = False
) -> Task:  # fmt: skip
    """Return the task of naming hidden tokens, and with `next_sentence` whether two texts follow.

        l = -Σ log p(x_t | what is left), over hidden t, divided by their number (nats per token)
        with next_sentence: + -log p(follows or not), the mean over rows

    The head for words runs at hidden places alone. With `next_sentence` a row's answer is weighed
    with M, the number of tokens that a full row is asked for: the sum of two means, as in the
    paper, and still a sum over rows, whatever the micro-batch.

    share          of the tokens that is hidden: 80 % as [MASK], 10 % as another, 10 % as it is
    whole_words    all pieces of a word are hidden together

    Devlin, Chang, Lee and Toutanova 2019, "BERT", arXiv:1810.04805. Raises `ConfigError` for a
    share that is none.
    """
    if not 0 < share < 1:
        raise ConfigError(f"task.share={share}", "above 0 and below 1", "0.15 is usual")
    if whole_words and next_sentence:
        raise ConfigError(
            "task.whole_words and task.next_sentence", "one of them", "leave one of them out"
        )
    spec = {"share": share, "whole_words": whole_words, "next_sentence": next_sentence}

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        out = model(*batch.inputs.values())
        if not next_sentence:
            return _words(out.logits, batch.target, batch.weight)
        found = _words(out.logits, batch.target[:, :-1], batch.weight)
        label = batch.target[:, -1]
        each = F.cross_entropy(out.relation.float(), label, reduction="none")
        w = torch.ones_like(each) if batch.weight is None else batch.weight
        follows = (each * w).sum()
        right = (out.relation.argmax(1) == label).to(found.outputs.dtype)
        sums = torch.cat([found.outputs[:, :3], right[:, None]], 1)
        logs = {"words": found.total.detach(), "follows": follows.detach()}
        most = batch.target.shape[1] - 1
        return Loss(found.total + follows * most, found.count, sums, logs)

    return _task("masked", spec, loss, follows=next_sentence)


def spans(*, density: float = 0.15, mean_span: float = 3.0) -> Task:
    """Return the task of writing the spans that were cut out of a text, in order.

        l = -Σ log p(y_t | what is left, y_1 .. y_(t-1)), divided by the number of tokens y

    density    share of the tokens that is cut out
    mean_span  mean length of a span

    Raffel et al. 2020, "T5", arXiv:1910.10683. Raises `ConfigError` for values out of range.
    """
    if not 0 < density < 1:
        raise ConfigError(f"task.density={density}", "above 0 and below 1", "0.15 is usual")
    if mean_span < 1:
        raise ConfigError(f"task.mean_span={mean_span}", "at least 1", "3 is usual")

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        return _words(model(*batch.inputs.values()), batch.target, batch.weight)

    return _task("spans", {"density": density, "mean_span": mean_span}, loss, follows=False)


def taught(task: Task, teacher: nn.Module, *, temperature: float = 2.0) -> Task:
    """Return the task `masked` with a teacher: soft targets, hidden tokens, direction of hidden.

        5 · τ² KL(teacher ‖ student) + 2 · (-log p(x_t)) + 1 · (1 - cos(h, h'))    at hidden t

    teacher  answers as the student does; it is not trained, and not kept with the student

    What is measured stays the loss of hidden tokens, so that scores compare with those of a model
    without a teacher. Sanh, Debut, Chaumond and Wolf 2019, "DistilBERT", arXiv:1910.01108, of which
    it differs in taking all three parts at hidden places alone. Raises `ConfigError` for another
    task, and for a teacher of another width or vocabulary.
    """
    if task.name != "masked" or task.spec[1]["next_sentence"]:
        raise ConfigError(
            f"a teacher for the task {task.name}", "the task masked, without next_sentence",
            "use --task masked",
        )  # fmt: skip
    teacher.eval().requires_grad_(requires_grad=False)

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        out = model(*batch.inputs.values())
        plain = _words(out.logits, batch.target, batch.weight)
        if not model.training:
            return plain
        device = batch.target.device
        if next(teacher.parameters()).device != device:
            teacher.to(device)
        with torch.no_grad():
            said = teacher(*batch.inputs.values())
        asked = batch.target != IGNORED_TOKEN
        weight = None if batch.weight is None else batch.weight[:, None].expand_as(asked)[asked]
        total, _ = losses.distil_triple(
            out.logits[asked], batch.target[asked], weight, teacher=said.logits[asked],
            hidden=out.hidden[asked], teacher_hidden=said.hidden[asked], temperature=temperature,
        )  # fmt: skip
        return Loss(total, plain.count, plain.outputs)

    return replace(task, phases=(Phase("masked", loss),))


def _task(
    name: str, spec: dict[str, Any], loss: Callable[[nn.Module, Batch], Loss], *, follows: bool
) -> Task:
    def measured(schema: Schema | None) -> list[metrics.Metric]:  # noqa: ARG001
        found = [metrics.hidden_accuracy(), metrics.hidden_perplexity()]
        return [*found, metrics.follows_accuracy()] if follows else found

    return Task(
        name=name,
        spec=(name, spec),
        outputs=_outputs,
        phases=(Phase(name, loss),),
        forward=_forward,
        units=_as_they_are,
        metrics=measured,
        decode=_decode,
        primary="hidden_perplexity",
    )


def _words(logits: Tensor, target: Tensor, weight: Tensor | None) -> Loss:
    """Return the loss of the tokens asked for, with the sums of each row as outputs."""
    shape = target.shape
    each = F.cross_entropy(
        logits.float().flatten(0, 1), target.flatten(), ignore_index=IGNORED_TOKEN,
        reduction="none",
    ).view(shape)  # fmt: skip
    asked = target != IGNORED_TOKEN
    right = (logits.detach().argmax(-1) == target) & asked
    row = each.detach().sum(1)
    sums = torch.stack([row, right.sum(1), asked.sum(1), torch.full_like(row, torch.nan)], 1)
    if weight is None:
        return Loss(each.sum(), asked.sum(), sums)
    w = weight[:, None]
    return Loss((each * w).sum(), (asked * w).sum(), sums)


def _forward(model: nn.Module, batch: Batch) -> Tensor:
    out = model(*batch.inputs.values())
    logits: Tensor = out if torch.is_tensor(out) else out.logits
    return logits


def _outputs(schema: Schema) -> int:
    text = schema.of("input", "text")
    if len(text) != 1:
        raise ConfigError(
            f"{len(text)} columns of text for a task made of running text", "one column of it",
            "name a text file, a folder of them, or the column with --target",
        )  # fmt: skip
    return int(text[0].stats["vocab"])


def _as_they_are(
    outputs: Tensor, target: Tensor, schema: Schema | None  # noqa: ARG001
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return outputs, target


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:  # noqa: ARG001
    """Return ``index``: the likeliest token at each place asked for; of sums, nothing."""
    if outputs.ndim == 3:
        return {"index": outputs.argmax(-1).cpu().numpy()}
    return {}
