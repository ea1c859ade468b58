"""The best hand-written loop for each work: what `gipi.fit` is measured against. FROZEN.

One loop for all works, with the settings that won for each (`BEST`). It knows everything in
advance: rows are stored in the precision and layout that the model wants, gathered once per epoch
and handed out as views; gradients are dropped by assignment; the optimizer is torch's fused
kernel, called directly on lists made once (`optimizer.step()` collects them anew in each call);
the loss is read once in `READ_EVERY` steps. It has no metric, no rows, no checkpoint, no guard
against non-finite values, and evaluates only when asked.

What was tried (two cores of an AMD EPYC with AVX-512 and bf16, torch 2.13.0 CPU, 2026-11-20;
chunks of 0.05-0.2 s in turn, 7-31 rounds, medians of ms per step; the machine was shared, so only
figures of one line compare with each other):

    mlp     bf16, rows stored bf16, 2 threads                    1.07   fused kernel called directly
            the same with optimizer.step()                       1.19
            the same with a bf16 model and fp32 masters          1.05   not taken: 2 %, within the
                                                                        spread, and no use for
                                                                        layers that need fp32
            gathered in blocks of 16 batches / per step / epoch  1.06 / 1.08 / 1.09
            rows stored fp32                                     1.21
            fp32 by oneDNN / as shipped / unfused Adam           1.46 / 2.45 / 3.8
            fp32 with MKL told that it is on an Intel chip       1.4-2.2
            1 thread, bf16                                       1.65
            torch.compile, bf16 / fp32 by oneDNN                 1.34 / 1.72 (bf16 eager then 1.18)
    lenet   bf16, channels-last, rows stored bf16, 2 threads     4.58
            gathered in blocks of 16 / per step                  4.57 / 4.56
            rows stored fp32 / fp32 channels-last                4.71 / 5.42
            fp32 as shipped / bf16 without channels-last         6.08 / 7.8 (bf16 best then 4.8)
            1 thread, bf16 channels-last                         7.6
            torch.compile, bf16 / fp32                           13.0 / 18.9 (bf16 eager then 8.6)
    tiny    fp32, 1 thread, fused kernel called directly         0.081
            the same with optimizer.step()                       0.122
            and with zero_grad() / and per-step gather           0.14 / 0.15
            2 threads / oneDNN / bf16 / torch.compile            0.15 / 0.24 / 0.27 / 0.24
    resnet  bf16, channels-last, rows stored bf16, 2 threads     672
            rows stored fp32 / bf16 without channels-last        710 / 760
            fp32 channels-last, oneDNN products / as shipped     1469 / 1643
            fp32 as shipped                                      2101
            torch.compile of the first                           674 (eager then 718; compiling 20 s)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter as now

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from works import Data, Work

READ_EVERY = 100


@dataclass(frozen=True)
class Settings:
    """How the loop computes: arithmetic, memory format, threads within an operation."""

    bf16: bool
    channels_last: bool
    threads: int


BEST = {
    "mlp": Settings(bf16=True, channels_last=False, threads=2),
    "lenet": Settings(bf16=True, channels_last=True, threads=2),
    "tiny": Settings(bf16=False, channels_last=False, threads=1),
    "resnet": Settings(bf16=True, channels_last=True, threads=2),
}


def fused_step(work: Work, params: list[Tensor]) -> Callable[[list[Tensor | None]], None]:
    """Return `step(gradients)`: torch's fused Adam or Nesterov kernel on lists made once."""
    first = [torch.zeros_like(p) for p in params]
    if work.optimizer == "nesterov":

        def step(gradients: list[Tensor | None]) -> None:
            torch._fused_sgd_(
                params, gradients, first, weight_decay=work.weight_decay, momentum=work.momentum,
                lr=work.lr, dampening=0.0, nesterov=True, maximize=False, is_first_step=False,
            )  # fmt: skip

        return step
    second = [torch.zeros_like(p) for p in params]
    counters = torch.zeros(len(params))
    counts = list(counters.unbind())

    def step(gradients: list[Tensor | None]) -> None:
        counters.add_(1)
        torch._fused_adam_(
            params, gradients, first, second, [], counts, lr=work.lr, beta1=0.9, beta2=0.999,
            weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip

    return step


def prepare(x: Tensor, settings: Settings) -> Tensor:
    """Return rows as the model wants them in memory."""
    x = x.bfloat16() if settings.bf16 else x
    return x.contiguous(memory_format=torch.channels_last) if settings.channels_last else x


def steps(
    work: Work, data: Data, model: nn.Module, settings: Settings, *, seed: int = 0
) -> Iterator[float]:
    """Train `model` for ever; yield the wall-clock seconds of each step.

    The gather of an epoch is part of its first step. Nothing runs between two steps, so another
    loop may have its turn there.
    """
    with settings_of(settings):
        x_all, y_all = prepare(data.x, settings), data.y
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    params = list(model.parameters())
    step = fused_step(work, params)
    generator = torch.Generator().manual_seed(seed)
    done = 0
    model.train()
    begin = now()
    while True:
        order = torch.randperm(work.rows, generator=generator)
        x_epoch = gather(x_all, order, channels_last=settings.channels_last)
        y_epoch = y_all.index_select(0, order)
        for x, y in zip(
            x_epoch.split(work.batch_size), y_epoch.split(work.batch_size), strict=True
        ):
            with precision(settings):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            with torch.no_grad():
                step([p.grad for p in params])
            for p in params:
                p.grad = None
            done += 1
            if done % READ_EVERY == 0 and not loss.isfinite():  # sync
                raise FloatingPointError(f"{work.name}: loss {float(loss)} at step {done}")
            yield now() - begin
            begin = now()


def gather(x: Tensor, order: Tensor, *, channels_last: bool) -> Tensor:
    """Return the rows of `x` in this order, one copy; channels-last rows stay so."""
    if channels_last:
        return x.permute(0, 2, 3, 1).index_select(0, order).permute(0, 3, 1, 2)
    return x.index_select(0, order)


def precision(settings: Settings) -> AbstractContextManager[object]:
    """Return the context of the forward pass."""
    return torch.autocast("cpu", torch.bfloat16) if settings.bf16 else nullcontext()


class settings_of:  # noqa: N801  used as a context manager
    """Set the process to these settings inside the block, and back to what it was after it."""

    def __init__(self, settings: Settings) -> None:
        self.threads = settings.threads

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        if self.before != self.threads:
            torch.set_num_threads(self.threads)

    def __exit__(self, *_: object) -> None:
        if self.before != self.threads:
            torch.set_num_threads(self.before)


@torch.inference_mode()
def accuracy(data: Data, model: nn.Module, settings: Settings, *, batch: int = 256) -> float:
    """Return the share of validation rows that `model` names rightly."""
    model.eval()
    right = 0
    for x, y in zip(data.x_val.split(batch), data.y_val.split(batch), strict=True):
        with precision(settings):
            right += int((model(prepare(x, settings)).argmax(1) == y).sum())
    model.train()
    return right / len(data.y_val)
