"""Random numbers of an experiment: drawn from its own seed, whoever draws them."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment


@contextmanager
def seeded(exp: Experiment) -> Iterator[None]:
    """Draw within from the experiment's seed; all generators are afterwards what they were."""
    own = getattr(exp.train, "generator", None)
    mine = own if isinstance(own, torch.Generator) else None
    order = mine.get_state() if mine is not None else None
    old = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [exp.device] if exp.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if exp.device.type == "cpu":  # `torch.manual_seed` asks every other device too, at length
            torch.default_generator.manual_seed(exp.seed)
        else:
            torch.manual_seed(exp.seed)
        random.seed(exp.seed)
        np.random.seed(exp.seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(old[0])
            np.random.set_state(old[1])  # noqa: NPY002
            if mine is not None and order is not None:
                mine.set_state(order)
