"""No compiler is imported where nothing is compiled, and torch is its own again after a run."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

import gipi
from gipi import tasks
from gipi.core.errors import GipiError
from gipi.optim import lean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = """
import sys
import torch
from torch import nn
import gipi
from gipi.core.config import Recipe
from gipi.train import fit

x = torch.randn(64, 4)
fit(nn.Linear(4, 2), nn.functional.cross_entropy, (x, (x.sum(1) > 0).long()),
    Recipe(epochs=1, batch_size=8, lr=0.01), val=(x, (x.sum(1) > 0).long()), out=gipi_out)
print("dynamo", "torch._dynamo" in sys.modules)
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
print("after", "torch._dynamo" in sys.modules)
"""


def test_a_run_imports_no_compiler_and_leaves_torch_as_it_was(tmp_path: Path) -> None:
    script = f"from pathlib import Path; gipi_out = Path({str(tmp_path / 'run')!r})\n" + SCRIPT
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["dynamo", "False", "after", "True"]


X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.arange(40) % 3


def spared() -> list[str]:
    return [m.__name__ for m in lean._plain() if getattr(m, lean._MARK, None) is m]


@pytest.fixture(autouse=True)
def _without_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that never compiled anything."""
    before = {m: m.__dict__.get(lean._MARK) for m in lean._plain()}
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    for method in before:
        method.__dict__.pop(lean._MARK, None)
    yield
    for method, mark in before.items():
        method.__dict__.pop(lean._MARK, None)
        if mark is not None:
            setattr(method, lean._MARK, mark)


@pytest.mark.parametrize(
    ("model", "more"),
    [(nn.Linear(5, 3), {}), (nn.Linear(6, 3), {"patience": 2}), (nn.Linear(6, 3), {"time": 1e-3})],
    ids=["misfit", "nothing to judge by", "no time"],
)
def test_a_run_that_cannot_begin_leaves_torch_as_it_was(
    model: nn.Module, more: dict[str, float]
) -> None:
    budget = {} if "time" in more else {"steps": 2}
    recipe = gipi.Recipe(batch_size=8, precision="fp32", threads=1, gemm="native", **budget, **more)
    with pytest.raises(GipiError):
        gipi.fit(model, tasks.classify(), (X, Y), recipe, device="cpu")
    assert spared() == []


def test_a_run_inside_a_run_and_one_that_breaks_leave_torch_as_it_was() -> None:
    seen = []
    recipe = gipi.Recipe(steps=2, batch_size=8, precision="fp32", threads=1, gemm="native")

    def nested(step: object) -> None:
        if step.when == "start":  # type: ignore[attr-defined]
            seen.append(len(spared()))
            gipi.fit(nn.Linear(6, 3), tasks.classify(), (X, Y), recipe, device="cpu")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gipi.fit(nn.Linear(6, 3), tasks.classify(), (X, Y), recipe, device="cpu",
                 observers=[nested])  # fmt: skip
    assert seen == [len(lean._plain())]
    assert spared() == []
    assert torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1).state_dict()["param_groups"]
