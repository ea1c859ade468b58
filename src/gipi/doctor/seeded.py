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
    with unmoved(exp):
        if exp.device.type == "cpu":  # `torch.manual_seed` asks every other device too, at length
            torch.default_generator.manual_seed(exp.seed)
        else:
            torch.manual_seed(exp.seed)
        random.seed(exp.seed)
        np.random.seed(exp.seed % 2**32)  # noqa: NPY002
        yield


@contextmanager
def unmoved(exp: Experiment) -> Iterator[None]:
    """Draw within from where generators stand, and put all of them back there afterwards."""
    own = [(g, g.get_state()) for g in _of_loaders(exp)]
    old = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [exp.device] if exp.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(old[0])
            np.random.set_state(old[1])  # noqa: NPY002
            for generator, state in own:
                generator.set_state(state)


def _of_loaders(exp: Experiment) -> list[torch.Generator]:
    """Return the generators that loaders, or their samplers, were given."""
    holders = [h for data in (exp.train, exp.val) for h in (data, getattr(data, "sampler", None))]
    found = [getattr(h, "generator", None) for h in holders]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
