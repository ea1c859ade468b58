"""From what was asked to what can be trained: data opened, recipe chosen, task and model built."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from gipi import data as data_
from gipi import models, optim, tasks
from gipi.core import dist, resolve
from gipi.core.device import pick_device
from gipi.core.schema import PAIRED, PRETEXT, WRITTEN, TaskKind
from gipi.train import (
    budget,
    distil,
    picture_recipes,
    series_recipes,
    text_recipes,
    transfer,
)
from gipi.train.advised import advised, scale_by_data
from gipi.train.carry import check_carries
from gipi.train.clock import counted_from
from gipi.train.recipes import Suggestion, guess_model, recipe_for
from gipi.train.suits import suited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from gipi.core.config import Config
    from gipi.core.resolve import Layer
    from gipi.core.schema import Schema, Signature
    from gipi.text import Tokenizer

SHOWN = 12  # names of columns on one line
_KINDS: dict[str, TaskKind] = {kind: kind for kind in get_args(TaskKind)}
DECIDES = ("forecast", "generate", *WRITTEN, *PAIRED, *PRETEXT)
"""Tasks without which data is read in another way."""


@dataclass(frozen=True)
class Own:
    """A user's own objects, where a name would do as well; None means the name counts."""

    data: Any = None
    model: nn.Module | None = None
    task: tasks.Task | None = None


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start.

    model_name  name in the registry, or None for a module of the user's own
    choices     what was inferred or chosen, and why, in sentences
    """

    config: Config
    origins: dict[str, str]
    dataset: data_.Dataset
    task: tasks.Task
    model: nn.Module
    model_name: str | None
    signature: Signature
    choices: tuple[str, ...] = field(default=())


def data_options(config: Config) -> data_.DataOptions:
    """Return the part of a configuration that says how data is read and split."""
    return data_.DataOptions(
        target=config.target,
        task=_KINDS.get(config.task or ""),
        bad_rows=config.bad_rows,
        horizon=config.horizon,
        lookback=config.lookback,
        season=config.season,
        group=config.group,
        time_column=config.time_column,
        weight=config.weight,
        split_column=config.split_column,
        val=config.val,
        test=config.test,
        overrides=dict(config.schema_overrides),
        seed=config.seed,
        image_size=config.image_size,
        normalise=config.normalise,
        cache=None if config.cache is None else Path(config.cache),
        cache_budget_bytes=config.cache_budget,
        mode=config.stream,
        workers=config.workers,
        pretext=dict(config.task_options) if config.task in PRETEXT else {},
        tokenizer=config.tokenizer,
        tokenizer_options=dict(config.tokenizer_options),
        max_length=config.max_length,
        carry=config.carry,
        units=units(config),
    )


def units(config: Config) -> Literal["words", "pieces"]:
    """Return what a model of tagged sentences reads: whole words where it has their letters too."""
    if config.model is None:
        asked = config.tokenizer or config.tokenizer_options or config.pretrained
        return "pieces" if asked else "words"
    return "words" if "words" in models.MODELS.get(config.model).tags else "pieces"


def prepare(
    layers: Sequence[Layer], own: Own, *, again: bool = False, tokenizer: Tokenizer | None = None
) -> Prepared:
    """Open the data, fill in what was left open, and build the task and the model.

    layers     from lowest to highest precedence; the recipe goes below all of them
    again      the lowest layer is that of a run which has begun: nothing is chosen or probed anew
    tokenizer  that of the run which has begun

    Raises the `RequestError` that names what does not fit.
    """
    wanted = resolve.resolve(*layers).config
    _names_exist(wanted)
    begun = None if again or own.model is not None else transfer.start_of(wanted)
    teacher = distil.teacher_of(wanted)
    options = replace(data_options(wanted), tokenizer_kept=tokenizer)
    if begun is not None:
        options = replace(options, tokenizer=str(begun.place), longest=begun.longest)
    if teacher is not None and not again:
        options = replace(options, tokenizer=str(teacher.folder), longest=teacher.longest)
    if own.task is not None and own.task.name in DECIDES:  # it decides how rows are read
        pretext = dict(own.task.spec[1]) if own.task.name in PRETEXT else {}
        options = replace(options, task=_KINDS[own.task.name], pretext=pretext)
    dataset = data_.open_data(own.data if own.data is not None else wanted.data, options)
    schema = dataset.schema
    task_name = wanted.task or schema.task
    model_name, why = _model_name(wanted, own, schema)
    if model_name is not None:
        model_name = suited(model_name, schema)
    rows = len(dataset.splits["train"])
    planned = None if again else _for_time(wanted, own, dataset, task_name)
    if planned is not None:
        model_name, why = "fastnet", f"for {wanted.time:g} s: {planned.reason}"
    suggestion = recipe_for(
        task_name, model_name or "", schema, rows,
        optimizer=wanted.optimizer if "optimizer" in wanted.model_fields_set else None,
        loss=wanted.task_options.get("loss"), planned=planned,
    )  # fmt: skip
    deep = own.model is None and picture_recipes.is_deep(model_name or "", task_name)
    way = None if begun is None else transfer.way_of(wanted, rows, task=task_name)
    if way is not None:
        suggestion = Suggestion(way.values, dict.fromkeys(way.values, "recipe"))
    if wanted.augment is None and not again and (planned is not None or deep):
        passes = _passes(wanted, suggestion, rows) if planned is None else planned.epochs
        suggestion = _with_augmentation(suggestion, dataset, passes)
        if model_name == "fastnet":
            suggestion = _mirrored(suggestion)
    recipe = resolve.layer(
        "recipe",
        [(k, v, suggestion.reasons.get(k, "recipe")) for k, v in suggestion.values.items()],
    )
    resolved = resolve.resolve(*layers) if again else resolve.resolve(recipe, *layers)
    config = resolved.config
    task_options = dict(config.task_options)
    if task_name == "classify" and schema.target is not None and schema.target.multi:
        task_options.setdefault("multi", True)
    task = own.task or tasks.build(task_name, task_options)
    signature = dataset.signature(task.outputs(schema))
    said: tuple[str, ...] = ()
    if task_name in PRETEXT and own.model is None:
        shaped = text_recipes.pretext_options(
            model_name or "", task.spec, given=config.model_options,
            shape=None if teacher is None else teacher.shape,
        )  # fmt: skip
        config = config.model_copy(update={"model_options": shaped})
    if begun is not None:
        own_options = begun.options(config.model_options, task_name)
        config = config.model_copy(update={"model_options": own_options})
    model = own.model or models.build(
        model_name or "", signature, seed=config.seed, options=config.model_options
    )
    if config.carry:
        check_carries(model, config)
    if begun is not None and way is not None:
        config, said = transfer.filled(config, model, begun, way)
    if teacher is not None:
        task, said = distil.lesson(task, model, teacher, copy=not again)
    fresh = own.model is None and not again and begun is None and teacher is None
    scaled = scale_by_data(model, dataset, seed=config.seed) if fresh else ()
    choices = (
        *dataset.notes,
        f"split: {dataset.split_reason}",
        f"task: {task.name}" + (f" ({schema.task_reason})" if wanted.task is None else ""),
        f"model: {model_name or type(model).__name__}" + (f" ({why})" if why else ""),
        *getattr(model, "choices", ()),
        *said,
        *scaled,
        *advised(model, schema, signature, config),
        picture_recipes.honest(model_name or "", task.name, rows),
        text_recipes.honest(schema, rows) if own.model is None and begun is None else "",
    )
    choices = tuple(line for line in choices if line)
    lengths = series_recipes.lengths(dataset)
    if options.longest is not None:  # the folder that says so may be gone when the run goes on
        lengths = {"max_length": max(4, int(schema.of("input", "text")[0].stats["length"]))}
    named = config.model_copy(update={"task": task.name, "model": model_name, **lengths})
    chosen = {key: "from the data" for key in lengths if getattr(config, key) is None}
    return Prepared(
        named, {**resolved.origins, **chosen}, dataset, task, model, model_name, signature, choices
    )


def _for_time(
    wanted: Config, own: Own, dataset: data_.Dataset, task: str
) -> budget.Plan | None:  # fmt: skip
    """Return the plan of a time budget where the net is open and pictures are to be classified.

    Ranks measure different speeds: the plan of the first holds for all.
    """
    schema = dataset.schema
    fixed = own.model is not None or wanted.model not in (None, "fastnet") or wanted.model_options
    pictures = [f for f in schema.inputs if f.kind == "image"]
    if wanted.time is None or fixed or task != "classify" or len(schema.inputs) != len(pictures):
        return None
    if min(pictures[0].shape[1:]) < budget.LEAST_SIDE:
        return None
    used = time.time() - counted_from(time.time())
    seconds = max(wanted.time - used - budget.RESERVE_S, 0.25 * wanted.time)
    found = budget.plan(
        dataset.signature(len(schema.classes)), len(dataset.splits["train"]), seconds, wanted,
        device=pick_device(wanted.device),
    )  # fmt: skip
    return budget.from_text(dist.from_first(budget.to_text(found)))


def _passes(wanted: Config, suggestion: Suggestion, rows: int) -> float:
    """Return how often each row will be seen, as far as the request and the recipe say it."""
    if wanted.epochs is not None:
        return wanted.epochs
    if wanted.steps is not None:
        given = "batch_size" in wanted.model_fields_set
        size = wanted.batch_size if given else suggestion.values.get("batch_size", 128)
        return wanted.steps * (rows if size == "full" else int(size)) / max(rows, 1)
    return float(suggestion.values.get("epochs", 10))


def _with_augmentation(
    suggestion: Suggestion, dataset: data_.Dataset, epochs: float
) -> Suggestion:  # fmt: skip
    """Return the recipe with what `epochs` passes over these pictures bear."""
    train = dataset.splits["train"]
    probes = data_.probe_flips(dataset.columns, train)
    chosen = data_.default_augment(dataset.schema, len(train), epochs, probes=probes)
    return Suggestion(
        {**suggestion.values, "augment": list(chosen.steps)},
        {**suggestion.reasons, "augment": chosen.reason},
    )


def _mirrored(suggestion: Suggestion) -> Suggestion:
    """Return a recipe whose net looks at mirror images too, where these are learnt from as well.

    Jordan 2024, arXiv:2404.00498, judges so: the answers to both are worth more than one.
    """
    options = dict(suggestion.values.get("model_options", {}))
    if "flip" not in suggestion.values["augment"]:
        return suggestion
    return Suggestion(
        {**suggestion.values, "model_options": {**options, "mirror": True}}, suggestion.reasons
    )


def columns(schema: Schema) -> list[str]:
    """Return what each column is and why, one line for columns that are the same for one reason.

    >>> from gipi.core.schema import Field, Schema
    >>> both = [Field(name, "number", "input", "numbers") for name in ("a", "b")]
    >>> columns(Schema((*both, Field("id", "number", "ignored", "identifier"))))
    ["number 'a', 'b' (numbers)", "ignored 'id' (identifier)"]
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for one in schema.fields:
        what = one.kind if one.role == "input" else one.role
        groups.setdefault((what, one.reason), []).append(f"'{one.name}'")
    lines = []
    for (what, reason), names in groups.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(
            f"{what} {', '.join(names[:SHOWN])}{more}" + (f" ({reason})" if reason else "")
        )
    return lines


def _names_exist(config: Config) -> None:
    """Raise for an unknown name before the data is read."""
    optim.OPTIMIZERS.get(config.optimizer)
    optim.SCHEDULES.get(config.schedule)
    if config.model is not None:
        models.MODELS.get(config.model)
    if config.task is not None:
        tasks.TASKS.get(config.task)
    for step in config.augment or ():
        name = step if isinstance(step, str) else step.get("name", next(iter(step), ""))
        data_.AUGMENTATIONS.get(str(name))


def _model_name(wanted: Config, own: Own, schema: Schema) -> tuple[str | None, str]:
    if own.model is not None:
        return None, "given"
    if wanted.pretrained is not None:
        return "pretrained", f"the encoder of {wanted.pretrained}"
    if wanted.model is not None:
        return wanted.model, ""
    return guess_model(schema)
