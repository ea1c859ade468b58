"""Law 2: the same seed and batch size give the same weights, however the work is divided."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.laws.equivalence_work import train

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
WORK = Path(__file__).with_name("equivalence_work.py")


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference between two weight vectors."""
    return float((a - b).abs().max())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_micro_batches_do_not_change_the_weights(kind: str, dtype: str, weighted: bool) -> None:
    whole = train(kind, dtype, weighted=weighted)
    assert torch.isfinite(whole).all()
    for micro in (1, 5, 16, 31):
        assert (
            distance(whole, train(kind, dtype, weighted=weighted, micro=micro)) < TOLERANCE[dtype]
        )


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "rmsprop"])
def test_other_optimizers_and_clipping(optimizer: str) -> None:
    whole = train("mlp", "float64", weighted=True, optimizer=optimizer, clip=0.1)
    parts = train("mlp", "float64", weighted=True, optimizer=optimizer, clip=0.1, micro=7)
    assert distance(whole, parts) < TOLERANCE["float64"]


def test_training_moves_the_weights() -> None:
    from tests.laws.equivalence_work import DTYPES, net

    start = torch.cat([p.detach().reshape(-1) for p in net("mlp", DTYPES["float64"]).parameters()])
    assert distance(train("mlp", "float64", weighted=False), start) > 1e-2


def ranks(tmp_path: Path, kind: str, dtype: str, *, weighted: bool, plant: bool, micro: int = 0):
    """Weights after the same work on two gloo ranks through plain DDP."""
    out = tmp_path / f"{kind}-{dtype}-{weighted}-{plant}-{micro}.pt"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(WORK), str(out), kind, dtype, str(int(weighted)), str(int(plant)), str(micro)],
        capture_output=True, text=True, timeout=300, check=False, cwd=WORK.parents[2],
        env={**__import__("os").environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize(
    ("kind", "dtype", "weighted", "micro"),
    [("mlp", "float64", True, 0), ("conv", "float64", False, 5), ("mlp", "float32", True, 3)],
)
def test_two_ranks(tmp_path: Path, kind: str, dtype: str, weighted: bool, micro: int) -> None:
    alone = train(kind, dtype, weighted=weighted)
    both = ranks(tmp_path, kind, dtype, weighted=weighted, plant=False, micro=micro)
    assert distance(alone, both) < TOLERANCE[dtype]


def test_a_planted_per_rank_mean_is_found(tmp_path: Path) -> None:
    alone = train("mlp", "float64", weighted=True)
    wrong = ranks(tmp_path, "mlp", "float64", weighted=True, plant=True)
    assert distance(alone, wrong) > 1e-4
