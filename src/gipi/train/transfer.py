"""Transfer: a run that starts from weights which were trained on something else.

Three ways, by one word:
    frozen   the pre-trained part is a fixed function; only the new head learns
    full     everything learns, the pre-trained part at a far lower rate
    gradual  frozen while the new head is still random, then full

All three are said in plainer keys, which any run may use: `freeze` names what does not move,
`thaw` ends that, `rates` slows parts down.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi.core import dist
from gipi.core.errors import ConfigError, ModelError, RequestError
from gipi.core.rundir import HUB, resolve_run
from gipi.core.schema import PAIRED, PRETEXT
from gipi.data.tokens import MULTIPLE
from gipi.models import Start, fill_from, read_start
from gipi.text import Tokenizer, check_fit
from gipi.train.mode import train_mode
from gipi.train.text_recipes import HEADS, Pace, sized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from gipi.core.config import Config, Recipe

FEW = 300  # training rows below which a whole encoder would learn them by heart
BODY_LR = 5e-5  # of a pre-trained Transformer under Adam: Devlin et al. 2019 tried 2e-5 .. 5e-5
SHARE = 0.1  # of the head's rate for the body, under other optimizers
THAW = 0.3  # share of a gradual run in which the head learns alone
ADAMS = ("adam", "adamw", "nadam", "radam", "adamax")
HEAD_ALONE = Pace(2e-3, steps=2500, least=4, most=30, clip=1.0)
WHOLE = Pace(5e-4, steps=1000, least=2, most=10, clip=1.0)
PAIRS = Pace(5e-5, steps=500, least=1, most=10, clip=1.0)
BATCH, PAIRS_BATCH = 32, 64


@dataclass(frozen=True)
class Begun:
    """Weights to start from, and the tokenizer's file or folder."""

    start: Start
    place: Path

    @property
    def longest(self) -> int | None:
        """Tokens of a row at most: a batch is padded to a multiple, and that must fit too."""
        most = self.start.longest
        return (max(most - most % MULTIPLE, 1) if most >= MULTIPLE else most) or None

    def options(self, given: Mapping[str, Any], task: str) -> dict[str, Any]:
        """Return the options of the model that stands on these weights."""
        head = "none" if task in PAIRED else HEADS.get(task, "classify")
        return {"pooling": self.start.pooling, "head": head, **given, "config": self.start.config}


@dataclass(frozen=True)
class Way:
    """One of the three ways, why, and what it sets.

    values  keys of the recipe
    """

    word: str
    why: str
    values: dict[str, Any]


def start_of(config: Config) -> Begun | None:
    """Return what `config.pretrained` names; None where nothing is asked for.

    Raises `ModelError` for a folder that is no encoder's, or whose tokenizer does not fit it;
    `ConfigError` for a model or a length that does not go with it.
    """
    if config.pretrained is None:
        return None
    if config.task in PRETEXT:
        raise ConfigError(
            f"pretrained={config.pretrained} with the task {config.task}",
            "a task with answers to learn from: pre-training begins with new weights here",
            "leave pretrained out, or name it as teacher=...",
        )
    if config.model not in (None, "pretrained"):
        raise ConfigError(
            f"model={config.model} with pretrained={config.pretrained}",
            "the encoder of the folder as the model",
            "leave --model out, or leave pretrained out",
        )
    start = read_start(folder_of(config.pretrained))
    given = config.tokenizer
    place = start.folder if given is None else Path(given).expanduser()
    tokenizer = Tokenizer.from_file(place)
    check_fit(tokenizer, start.vocab, special=start.special)
    if tokenizer.pad is None:
        raise ModelError(
            f"the tokenizer of {start.folder} has no padding token",
            "an id that stands behind the end of a text",
            "name it in special_tokens_map.json",
        )
    begun = Begun(start, place)
    if begun.longest and (config.max_length or 0) > begun.longest:
        raise ConfigError(
            f"max_length={config.max_length} for an encoder of {start.longest} positions",
            f"at most {begun.longest} tokens",
            f"set max_length={begun.longest}, or leave it out",
        )
    return begun


def folder_of(name: str) -> Path:
    """Return the folder that `pretrained` names: itself, or what a run of pre-training left."""
    place = Path(name).expanduser()
    if (place / "config.json").is_file() or not (place.exists() or name.startswith("runs")):
        return place
    try:
        run = resolve_run(name)
    except RequestError as error:
        raise RequestError(
            f"pretrained={name}: {error.found}",
            "a folder in Hugging Face form (config.json, model.safetensors, tokenizer.json), or "
            "a run",
            error.do if not place.exists() else "name the folder that holds config.json, or a run",
        ) from error
    return run / HUB if (run / HUB).is_dir() else place


def way_of(config: Config, rows: int, *, task: str = "classify") -> Way:
    """Return the way that was asked for, or the one for so many training rows.

    Raises `ConfigError` where nothing would learn: vectors come from the encoder itself.
    """
    if task in PAIRED:
        if config.transfer not in (None, "full"):
            raise ConfigError(
                f"transfer={config.transfer} with the task {task}",
                "an encoder that learns: there is no new head above it",
                "leave transfer out",
            )
        values = {**sized(PAIRS, rows, most_batch=PAIRS_BATCH), "transfer": "full"}
        return Way("full", "there is no new head", values)
    word, why = config.transfer, "as asked"
    if word is None:
        word, why = ("frozen", f"{rows} training rows") if rows < FEW else ("full", "")
        why = why or f"{rows:,} training rows are enough to move the whole encoder"
        if word == "frozen":
            why += ": a whole encoder would learn them by heart"
    values = sized(HEAD_ALONE if word == "frozen" else WHOLE, rows, most_batch=BATCH)
    values["transfer"] = word
    if word == "gradual":
        values["thaw"] = THAW
    return Way(word, why, values)


def filled(
    config: Config, model: nn.Module, begun: Begun, way: Way
) -> tuple[Config, tuple[str, ...]]:
    """Put the weights in place; return the config with what `way` means for them, and sentences."""
    body, report = fill_from(model, begun.start)
    names = [name for name, _ in model.named_parameters()]
    new = [n for n in names if not any(n.startswith(f"{part}.") for part in body)]
    values, said = settled(config, way, body)
    held = f"start: {len(names) - len(new)} tensors of {report.path}"
    held += f"; new: {', '.join(new)}" if new else ""
    return config.model_copy(update=values), (held, said)


def settled(config: Config, way: Way, body: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Return freeze, rates and body_lr for the pre-trained modules `body`, and a sentence."""
    lr = config.lr
    if way.word == "frozen":
        frozen = {"freeze": tuple(dict.fromkeys((*config.freeze, *body))), "thaw": None}
        return frozen, f"transfer: frozen ({way.why}): the encoder stays, the head learns at {lr:g}"
    usual = min(BODY_LR, lr) if config.optimizer in ADAMS else SHARE * lr
    slow = config.body_lr or usual
    values: dict[str, Any] = {
        "rates": {**dict.fromkeys(body, slow / lr), **config.rates}, "body_lr": slow,
    }  # fmt: skip
    said = f"the encoder learns at {slow:g}, the head at {lr:g}: what it knows is not to be lost"
    if slow == lr:
        said = f"all of it learns at {lr:g}"
    if way.word == "gradual":
        values["freeze"] = tuple(dict.fromkeys((*config.freeze, *body)))
        share = config.thaw or THAW
        values["thaw"] = share
        said = f"the head alone for the first {share:.0%} of the run, then {said}"
    return values, f"transfer: {way.word} ({way.why}): {said}"


class Thaw:
    """Keep `recipe.freeze` fixed until `recipe.thaw` of the run is done: a function of progress."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.model, self.share = model, recipe.thaw
        self.open = True
        self.held: list[nn.Parameter] = []
        if self.share is None:
            return
        if not recipe.freeze:
            raise ConfigError(
                f"thaw={self.share} without freeze", "something that is frozen until then",
                "name it: freeze=...",
            )  # fmt: skip
        if dist.world() > 1:
            raise ConfigError(
                f"thaw={self.share} on {dist.world()} ranks",
                "parameters that all ranks exchange from the start",
                "train in one process, or freeze nothing",
            )
        for pattern in recipe.freeze:
            hit = [p for n, p in model.named_parameters()
                   if fnmatchcase(n, pattern) or n.startswith(f"{pattern}.")]  # fmt: skip
            if not hit:
                raise ConfigError(
                    f"freeze='{pattern}' matches no parameter",
                    "a parameter, a module or a shell pattern such as 'layers.0.*'",
                    "correct the pattern",
                )
            self.held += hit

    def __call__(self, progress: float) -> None:
        """Freeze or free what is held, where that changes at this point of the run."""
        if self.share is None or (progress >= self.share) == self.open:
            return
        self.open = progress >= self.share
        for p in self.held:
            p.requires_grad = self.open
            if not self.open:
                p.grad = None
        if self.model.training:
            train_mode(self.model)
