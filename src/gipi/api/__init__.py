"""The functions of the README: train, resume, evaluate, load, open, model, fit.

Wherever a name is accepted the object is accepted too: data may be a frame, arrays or a torch
Dataset, a model any `nn.Module`, a task a `Task`. Nothing here trains or reads by itself; it hands
what was asked to `train`, `data`, `deploy` and `report`, in that order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi import data as data_
from gipi import models
from gipi.api.run import Run, load
from gipi.api.scoring import evaluate_layers, predict_inputs
from gipi.api.training import resume_layers, train_layers
from gipi.core import resolve
from gipi.core.errors import ConfigError
from gipi.core.schema import Signature
from gipi.deploy.language import LanguageModel, language_model, pretrained
from gipi.deploy.retrieval import rank
from gipi.deploy.retrieval import vectors as embed
from gipi.train import fit
from gipi.train.prepare import Own, data_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from gipi.core.events import Observer
    from gipi.tasks import Task

__all__ = [
    "LanguageModel", "Run", "embed", "evaluate", "evaluate_layers", "fit", "language_model", "load",
    "model", "open", "predict_inputs", "pretrained", "rank", "resume", "resume_layers", "train",
    "train_layers",
]  # fmt: skip


def train(
    data: Any = None,
    target: str | None = None,
    *,
    model: str | nn.Module | None = None,
    task: str | Task | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    time: float | str | None = None,
    batch_size: int | str | None = None,
    lr: float | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Train on `data` and return the finished run.

    data      name, path, DataFrame, (X, y) arrays or torch Dataset; None: the embedded digits
    time      budget such as "10m"; exactly one of epochs, steps, time, or none of them
    config    YAML file; settings: any key of it, such as {"model.widths": [256, 128]}
    observers further watchers of the loop, see `gipi.core.events`

    Raises `RequestError` when the request is wrong, `RunError` when training fails.
    """
    flat = {"data": data, "target": target, "model": model, "task": task, "epochs": epochs,
            "steps": steps, "time": time, "batch_size": batch_size, "lr": lr, "seed": seed,
            "out": out}  # fmt: skip
    named, own = _separate(flat)
    layers = [] if config is None else [resolve.layer_from_file(Path(config))]
    layers.append(resolve.layer_from_values(named, settings=settings))
    return train_layers(layers, own=own, observers=observers, quiet=quiet)


def resume(
    run: str | Path | Run,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    time: float | str | None = None,
    data: Any = None,
    model: nn.Module | None = None,
    task: Task | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Go on with a run from its last good checkpoint, with a new budget where one is given.

    data, model, task  the objects that the run was started with, where they had no name

    Raises `RequestError` when there is no such run or the data has changed.
    """
    budget = resolve.layer_from_values({"epochs": epochs, "steps": steps, "time": time})
    where = run.path if isinstance(run, Run) else run
    own = Own(data, model, task)
    return resume_layers(where, budget, own=own, observers=observers, quiet=quiet)


def evaluate(
    subject: str | Path | Run,
    *,
    data: Any = None,
    model: str | None = None,
    weights: str | Path | None = None,
    target: str | None = None,
    settings: Mapping[str, Any] | None = None,
    tta: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a run on its test rows or on `data`; or foreign `weights` of `model` on named data.

    subject  a run or model folder; with `weights`, the data
    tta      views of each picture whose answers are merged, such as ["flip", "zoom"]
    Returns {"data", "rows", "metrics", ...}. Raises `RequestError` where something is missing.
    """
    layer = resolve.layer_from_values({"model": model, "target": target}, settings=settings)
    where = subject.path if isinstance(subject, Run) else subject
    return evaluate_layers(where, layer, data=data, weights=weights, tta=tta)


def open(  # noqa: A001  the README's name; the built-in is not used here
    data: Any, target: str | None = None, *, settings: Mapping[str, Any] | None = None
) -> data_.Dataset:
    """Open data as `train` would: schema inferred, split, ready to stream.

    settings  any data key of the configuration, such as {"schema.age": "number", "val": 0.2}
    """
    layer = resolve.layer_from_values({"target": target}, settings=settings)
    return data_.open_data(data, data_options(resolve.resolve(layer).config))


def model(
    name: str,
    *,
    classes: int = 1,
    channels: int | None = None,
    image: tuple[int, int, int] | None = None,
    numbers: int = 0,
    cardinalities: tuple[int, ...] = (),
    vocab: int = 0,
    length: int = 0,
    horizon: int = 0,
    variant: str | None = None,
    weights: str | Path | None = None,
    partial: bool = False,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model by name for inputs of a known shape: a plain `torch.nn.Module`.

    classes  width of the head; image: (C, H, W), else the size that the net was published for with
             `channels`; numbers: float columns of a table, or series of a forecaster
    vocab    token ids of a text, id 0 is padding;  length: tokens of the longest text, or steps of
             a series that the model sees;  horizon: steps ahead
    variant  short for options={"variant": ...}
    weights  file to fill it with, see `gipi.models.load_weights`; what happened to every tensor is
             printed, and `partial` accepts differences, such as a head for other classes

    >>> type(model("lenet5", classes=10, image=(1, 28, 28))).__name__
    'LeNet5'
    """
    other = bool(numbers or cardinalities or vocab)
    _check_shape(classes, image, channels, other=other)
    shape = None if other else _picture(name, image, channels)
    chosen = {**(options or {}), **({} if variant is None else {"variant": variant})}
    signature = Signature(shape, numbers, cardinalities, classes, vocab, length, horizon=horizon)
    built = models.build(name, signature, seed=seed, options=chosen)
    if weights is not None:
        report = models.load_weights(built, weights, partial=partial)
        print("\n".join(report.lines()), flush=True)  # noqa: T201
    return built


def _check_shape(
    classes: int, image: tuple[int, int, int] | None, channels: int | None, *, other: bool
) -> None:
    """Raise for a head or a picture that no net has, and for a picture beside other inputs."""
    if not hasattr(classes, "__index__") or classes < 0:  # whole numbers of any package
        raise ConfigError(f"classes={classes!r}", "a whole number, or 0 for a net without a head",
                          "give the number of classes")  # fmt: skip
    sizes = (*((1, 1, 1) if image is None else image), 1 if channels is None else channels)
    if len(sizes) != 4 or not all(hasattr(n, "__index__") and n > 0 for n in sizes):
        given = f"image={image!r}" if image is not None else f"channels={channels!r}"
        raise ConfigError(given, "channels, height and width, each of one or more",
                          "give image=(3, 224, 224), or channels=3 alone")  # fmt: skip
    if other and (image is not None or channels is not None):
        raise ConfigError("a picture beside numbers, cardinalities or vocab", "one kind of input",
                          "leave image and channels out, or the others")  # fmt: skip


def _picture(
    name: str, image: tuple[int, int, int] | None, channels: int | None
) -> tuple[int, int, int] | None:
    """Return the shape of the picture: as given, else the one that the net was published for."""
    usual: tuple[int, int, int] | None = models.MODELS.get(name).facts.get("image")
    if image is None and usual is not None:
        return (usual[0] if channels is None else channels, *usual[1:])
    if channels is not None and (image is None or image[0] != channels):
        raise ConfigError(
            f"channels={channels} with image={image}",
            "one of them, or both in agreement",
            "give image=(channels, height, width) alone",
        )
    return image


def _separate(given: Mapping[str, Any]) -> tuple[dict[str, Any], Own]:
    """Part a call into configuration values and a user's own objects."""
    named = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    own: dict[str, Any] = {}
    for key in ("data", "model", "task"):
        if named[key] is not None and not isinstance(named[key], str):
            own[key] = named[key]
            named[key] = None
    return named, Own(**own)
