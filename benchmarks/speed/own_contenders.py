"""The three contenders that need only torch and the library: textbook, hand-written, `gipi.fit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import handwritten
import textbook
import torch
from works import Data, Work, make_model

if TYPE_CHECKING:
    from contender import Clock
    from torch import nn


def textbook_loop(work: Work, data: Data, epochs: int, clock: Clock, seed: int) -> float:
    """Train by the textbook loop; torch's settings are left alone."""
    model = make_model(work, seed=seed)
    loop = textbook.steps(work, data, model, seed=seed)
    for _ in range(epochs):
        for _ in range(work.steps):
            next(loop)
        clock.mark()
    clock.settings = "as shipped"
    return textbook.accuracy(data, model)


def handwritten_loop(work: Work, data: Data, epochs: int, clock: Clock, seed: int) -> float:
    """Train by the frozen hand-written loop with the settings it found best."""
    settings = handwritten.BEST[work.name]
    model = make_model(work, seed=seed)
    with handwritten.settings_of(settings):
        loop = handwritten.steps(work, data, model, settings, seed=seed)
        for _ in range(epochs):
            for _ in range(work.steps):
                next(loop)
            clock.mark()
        clock.settings = str(settings)
        return handwritten.accuracy(data, model, settings)


class _Marked:
    """The library's training stream; the clock is marked when an epoch after the first begins."""

    can_store = True

    def __init__(self, inner: Any, clock: Clock, val: Any) -> None:
        self.inner, self.clock, self.val, self.seen = inner, clock, val, 0
        self.store = inner.store
        self.rows, self.batch_size, self.steps = inner.rows, inner.batch_size, inner.steps

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Any]:
        """Yield the batches of the library's stream."""
        self.seen += 1
        if self.seen > 2:  # the first reading is one batch for the trial
            self.clock.paused = self.val.seconds
            self.clock.mark()
        yield from self.inner.epoch(epoch, skip)


def gipi_fit(work: Work, data: Data, epochs: int, clock: Clock, seed: int) -> float:
    """Train by `gipi.fit`, observed as users run it; evaluations are timed apart."""
    from library import Evaluated, fit_work, recipe_of, stream_of

    model = make_model(work, seed=seed)
    val = Evaluated(stream_of(work, data.x_val, data.y_val, train=False))
    train = _Marked(stream_of(work, data.x, data.y, train=True, seed=seed), clock, val)
    state = fit_work(work, data, model, train, recipe_of(work, epochs=epochs), val=val)
    clock.paused = val.seconds
    clock.mark()
    clock.settings = f"{state.setup}; {val.times} evaluations took {val.seconds:.3f} s"
    return _accuracy(model, data)


@torch.inference_mode()
def _accuracy(model: nn.Module, data: Data) -> float:
    """Return the share of validation rows named rightly, in fp32."""
    model.eval()
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(data.x_val.split(256), data.y_val.split(256), strict=True)
    )
    return right / len(data.y_val)
