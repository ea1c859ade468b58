"""The typed configuration: how to train (`Recipe`) and what on (`Config`).

One YAML file mirrors it key by key. A value comes from the defaults, the recipe chosen for the
data, a file or a flag, in rising order of precedence; `Resolved` keeps the origin of each.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Switch = Literal["auto", "on", "off"]


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
        False, description="allow micro-batches although the model mixes rows (batch norm)"
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
    augment: tuple[str | dict[str, Any], ...] | None = Field(
        None, description="batch augmentations, from `gipi list augmentations`"
    )

    eval_every: float = Field(1.0, gt=0, description="epochs between validations")
    log_every: int | None = Field(None, gt=0, description="steps between rows; None: chosen")
    save_every: int | None = Field(None, gt=0, description="steps between checkpoints; None: chosen")
    keep: int = Field(2, ge=1, description="newest checkpoints kept, beside the best")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="arithmetic")
    compile: Switch = Field("auto", description="torch.compile")
    layout: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="images")
    threads: int | Literal["auto"] = Field("auto", description="threads within an operation")
    gemm: Literal["auto", "native", "onednn"] = Field("auto", description="fp32 matrix products")
    deterministic: bool = Field(False, description="bit-identical resume on CUDA, slower")
