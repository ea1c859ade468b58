"""No compiler is imported where nothing is compiled."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
