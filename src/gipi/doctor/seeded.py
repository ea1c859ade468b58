"""Random numbers of an experiment: drawn from its own seed, whoever draws them."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.doctor.numpys import numpy_unmoved

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
    old = random.getstate()
    device = exp.device
    with numpy_unmoved(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(old)
            for generator, state in own:
                generator.set_state(state)


def _of_loaders(exp: Experiment) -> list[torch.Generator]:
    """Return the generators that loaders, or their samplers, were given."""
    holders = [h for data in (exp.train, exp.val) for h in (data, getattr(data, "sampler", None))]
    found = [getattr(h, "generator", None) for h in holders]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
