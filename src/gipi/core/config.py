"""The typed configuration: how to train (`Recipe`) and what on (`Config`).

One YAML file mirrors it key by key. A value comes from the defaults, the recipe chosen for the
data, a file or a flag, in rising order of precedence; `core.resolve` merges them and keeps the
origin of each.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gipi.core.errors import did_you_mean
from gipi.core.schema import KINDS, ROLES

Switch = Literal["auto", "on", "off"]
BUDGETS = ("epochs", "steps", "time")
SIDES = (4, 4096)


class Recipe(BaseModel):
    """How to train: everything the loop needs beside a model, a task and a stream.

    Exactly one of `epochs`, `steps`, `time` is the budget (`time` in seconds here; the command
    line also reads "10m"). `batch_size` is rows per optimizer step over all ranks and
    micro-batches; the string "full" means all training rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    epochs: float | None = Field(None, gt=0, description="budget in passes over the training rows")
    steps: int | None = Field(None, gt=0, description="budget in optimizer steps")
    time: float | None = Field(None, gt=0, description="budget in seconds, process start to exit")
    batch_size: int | Literal["full"] = Field(128, description="rows per optimizer step, or 'full'")
    micro_batch: int | None = Field(None, gt=0, description="rows per forward pass")
    accept_mixing: bool = Field(
        default=False, description="allow micro-batches although the model mixes rows (batch norm)"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, order and augmentation")

    optimizer: str = Field("adamw", description="name from `gipi list optimizers`")
    optimizer_options: dict[str, Any] = Field(default_factory=dict, description="its own options")
    lr: float = Field(1e-3, gt=0, lt=1e3, description="initial learning rate")
    momentum: float | None = Field(None, ge=0, lt=1, description="momentum of sgd, nesterov, muon")
    weight_decay: float = Field(0.0, ge=0, description="decay of weights; not norms and biases")
    l1: float = Field(0.0, ge=0, description="L1 penalty on the decayed weights")
    l2: float = Field(0.0, ge=0, description="L2 penalty (in the gradient) on the decayed weights")
    schedule: str = Field("one-cycle", description="name from `gipi list schedules`")
    schedule_options: dict[str, Any] = Field(default_factory=dict, description="its own options")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the run with rising lr")
    clip_norm: float | None = Field(None, gt=0, description="largest global gradient norm")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights")
    swa: float | None = Field(None, gt=0, lt=1, description="start of averaging, share of the run")
    patience: int | None = Field(None, gt=0, description="evaluations without gain before stopping")
    freeze: tuple[str, ...] = Field((), description="patterns of parameters that stay fixed")
    thaw: float | None = Field(
        None, gt=0, lt=1, description="share of the run after which `freeze` ends"
    )
    rates: dict[str, float] = Field(
        default_factory=dict, description="pattern of parameters -> factor on their lr"
    )
    augment: tuple[str | dict[str, Any], ...] | None = Field(
        None, description="batch augmentations, from `gipi list augmentations`"
    )

    eval_every: float = Field(1.0, gt=0, description="epochs between validations")
    log_every: int | None = Field(None, gt=0, description="steps between rows; None: chosen")
    save_every: int | None = Field(
        None, gt=0, description="steps between checkpoints; None: chosen"
    )
    keep: int = Field(2, ge=1, description="newest checkpoints kept, beside the best")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="arithmetic")
    compile: Switch = Field("auto", description="torch.compile")
    layout: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="images")
    threads: int | Literal["auto"] = Field("auto", description="threads within an operation")
    gemm: Literal["auto", "native", "onednn"] = Field("auto", description="fp32 matrix products")
    deterministic: bool = Field(default=False, description="bit-identical resume on CUDA, slower")


class Config(Recipe):
    """A whole run: what to learn from, what to learn with, how (`Recipe`) and where to.

    None means "inferred" for `target`, `task` and `model`; the choice is printed with its reason.
    `*_options` hold what is written `model.widths=[256, 128]`, `task.label_smoothing=0.1`,
    `optimizer.eps=1e-6`, `schedule.peak=0.2`, `tokenizer.vocab=8000`; `schema_overrides` holds
    `schema.age=number`.
    """

    model_config = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)

    data: str = Field("digits", min_length=1, description="name, file or folder to learn from")
    target: str | None = Field(None, min_length=1, description="column to predict")
    task: str | None = Field(None, description="name from `gipi list tasks`; None: inferred")
    task_options: dict[str, Any] = Field(default_factory=dict, description="its own options")
    model: str | None = Field(None, description="name from `gipi list models`; None: chosen")
    model_options: dict[str, Any] = Field(default_factory=dict, description="its own options")
    schema_overrides: dict[str, str] = Field(
        default_factory=dict,
        description="kind (or 'ignored') of a column, against what is inferred",
    )

    pretrained: str | None = Field(
        None, min_length=1, description="folder of a trained encoder, or a run, to start from"
    )
    transfer: Literal["frozen", "full", "gradual"] | None = Field(
        None, description="what becomes of the pre-trained part; None: chosen"
    )
    body_lr: float | None = Field(
        None, gt=0, lt=1e3, description="initial lr of the pre-trained part; None: chosen"
    )

    teacher: str | None = Field(
        None, min_length=1, description="run of pre-training, or folder, whose student the model is"
    )

    group: str | None = Field(None, min_length=1, description="rows of a group stay in one split")
    time_column: str | None = Field(None, min_length=1, description="split by time: newest is test")
    split_column: str | None = Field(
        None, min_length=1, description="column that says train, val or test"
    )
    weight: str | None = Field(None, min_length=1, description="column of row weights")
    val: float | None = Field(None, ge=0, lt=1, description="share of rows for validation")
    test: float | None = Field(
        None, ge=0, lt=1, description="share of rows for the final test; 0: given ones neither"
    )  # fmt: skip

    image_size: int | tuple[int, int] | None = Field(
        None,
        description="pixels of a side, or [height, width]; of annotated pictures the longer side",
    )
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="kind (bpe, unigram, wordpiece, word, char) or a tokenizer.json; None: chosen",
    )
    tokenizer_options: dict[str, Any] = Field(default_factory=dict, description="its own options")
    max_length: int | None = Field(
        None, ge=4, le=16384, description="tokens of a text at most; None: from the training rows"
    )
    normalise: str | None = Field(None, description="'imagenet', 'none' or None: from the data")
    bad_rows: Literal["refuse", "skip", "fill"] = Field(
        "refuse",
        description="unusable rows (pictures, annotations, gaps of a series): refuse, skip, fill",
    )
    horizon: int | None = Field(
        None, gt=0, description="forecast: steps ahead; None: one season, or the set's own"
    )
    lookback: int | None = Field(
        None, gt=0, description="forecast: steps that the model sees; None: chosen"
    )
    season: int | None = Field(
        None, gt=0, description="forecast: steps of a season; None: from the dates"
    )
    carry: bool = Field(
        default=False,
        description="running text: a recurrent net's state goes on from batch to batch",
    )
    stream: Literal["auto", "resident", "mapped", "streaming"] = Field(
        "auto", description="where batches come from"
    )
    workers: int = Field(0, ge=0, le=256, description="processes that decode")
    cache: str | None = Field(None, min_length=1, description="folder of decoded data")
    cache_budget: int | None = Field(None, gt=0, description="largest size of the cache in bytes")

    device: str = Field("auto", min_length=1, description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")
    out: str | None = Field(None, min_length=1, description="run folder; None: runs/NAME-DATE")
    doctor: Literal["off", "advise", "repair"] = Field(
        "repair", description="problems: not looked for, said, or repaired where that is proven"
    )
    apply: bool = Field(
        default=False, description="the doctor may also change what was given by flag or file"
    )
    samples: bool = Field(default=True, description="show data rows in the report")
    tensorboard: bool = Field(
        default=False, description="also write the rows for TensorBoard (extra `track`)"
    )

    @field_validator("batch_size", "threads")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("it must be at least 1")
        return value

    @field_validator("image_size")
    @classmethod
    def _pixels(cls, value: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        sides = (value,) if isinstance(value, int) else value or ()
        if any(not SIDES[0] <= side <= SIDES[1] for side in sides):
            raise ValueError(f"a side has {SIDES[0]} to {SIDES[1]} pixels")
        return value

    @field_validator("schema_overrides")
    @classmethod
    def _kinds(cls, value: dict[str, str]) -> dict[str, str]:
        for column, kind in value.items():
            if kind not in KINDS and kind not in ROLES:
                hint = did_you_mean(kind[:40], (*KINDS, *ROLES))
                raise ValueError(f"schema.{column[:40]}={kind[:40]}: {hint}")
        return value

    @model_validator(mode="after")
    def _together(self) -> Config:
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise ValueError(f"only one budget can hold, not {' and '.join(budgets)}")
        if (self.val or 0.0) + (self.test or 0.0) >= 1:
            raise ValueError("val + test must leave rows to train on")
        if self.ema is not None and self.swa is not None:
            raise ValueError("ema and swa both average the weights; choose one")
        if self.pretrained is None and (self.transfer or self.body_lr):
            raise ValueError("transfer and body_lr are for a run that starts from pretrained=...")
        return self
