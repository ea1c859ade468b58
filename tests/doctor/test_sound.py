"""What cannot be trained is refused in words, before anything is tried; what can be is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, mlp
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import gipi
from gipi.core.errors import ConfigError, DataError, ModelError, RequestError
from gipi.doctor.facts import Facts
from gipi.doctor.sound import sound

(X, Y), (VX, VY) = blobs(200)
TOKENS = torch.arange(120 * 6).reshape(120, 6) % 30


def made(
    X: Any = X, y: Any = Y, *, val: Any = (VX, VY), loss: Any = None, model: Any = None,
    train: Any = None, **more: Any,
) -> gipi.Experiment:  # fmt: skip
    """Return a small training in which one thing may be odd."""
    torch.manual_seed(0)
    model = mlp() if model is None else model
    more.setdefault("optimizer", torch.optim.Adam(model.parameters(), 1e-2))
    return gipi.Experiment(
        model, train=(X, y) if train is None else train, val=val,
        loss=nn.CrossEntropyLoss() if loss is None else loss, **more,
    )  # fmt: skip


def embedding(rows: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(rows, 4), nn.Flatten(), nn.Linear(24, 4))


BAD: dict[str, tuple[type[RequestError], str, Callable[[], gipi.Experiment]]] = {
    "float classes": (DataError, r"targets float32 \(32,\)[^$]*y\.long\(\)",
                      lambda: made(y=Y.float())),
    "a column of classes": (DataError, r"y\.squeeze\(1\)", lambda: made(y=Y[:, None])),
    "short whole numbers": (DataError, r"int32[^$]*int64", lambda: made(y=Y.int())),
    "whole inputs": (DataError, r"int64 \(32, 8\)[^$]*float32[^$]*X\.float\(\)",
                     lambda: made(X.long())),
    "double inputs": (DataError, r"float64[^$]*X\.float\(\)", lambda: made(X.double())),
    "arrays of doubles": (DataError, r"float64", lambda: made(X.double().numpy(), Y.numpy())),
    "other lengths": (DataError, "120 inputs and 50 targets", lambda: made(y=Y[:50])),
    "features": (DataError, r"takes 8 features[^$]*there are 6", lambda: made(X[:, :6])),
    "features of val": (DataError, r"val: .*takes 8 features",
                        lambda: made(val=(VX[:, :6], VY))),
    "a class too many": (DataError, "class 4, and the model has 4 outputs",
                         lambda: made(y=Y + 1)),
    "a class too many in val": (DataError, "val: a target is class",
                                lambda: made(val=(VX, VY + 4), loss=F.cross_entropy)),
    "whole numbers for BCE": (DataError, r"y\.float\(\)",
                              lambda: made(y=Y % 2, model=mlp(out=1), loss=nn.BCEWithLogitsLoss())),
    "shapes for BCE": (DataError, r"same shape[^$]*unsqueeze\(1\)",
                       lambda: made(y=(Y % 2).float(), model=mlp(out=1),
                                    loss=nn.BCEWithLogitsLoss())),
    "whole numbers for Huber": (DataError, r"y\.float\(\)",  # torch fails in backward
                                lambda: made(y=Y[:, None], model=mlp(out=1), loss=nn.HuberLoss())),
    "no rows": (DataError, "train has no rows", lambda: made(X[:0], Y[:0])),
    "no batches": (DataError, "train has no batches", lambda: made(train=[])),
    "lists": (DataError, r"inputs are a list[^$]*torch\.tensor",
              lambda: made(X.tolist(), Y.tolist())),
    "words": (DataError, "cannot be read as numbers",
              lambda: made(np.array([["a", 1]] * 120, dtype=object))),
    "inputs alone": (DataError, r"inputs alone[^$]*train=\(X, y\)", lambda: made(train=X)),
    "a loader of inputs": (DataError, "a batch is 1 parts",
                           lambda: made(train=DataLoader(TensorDataset(X), batch_size=8))),
    "rows one by one": (DataError, "DataLoader", lambda: made(train=TensorDataset(X, Y))),
    "a generator": (DataError, "run through once",
                    lambda: made(train=((X, Y) for _ in range(3)))),
    "tokens": (DataError, "0 to 29, and the embedding '0' has 20 rows",
               lambda: made(TOKENS, Y, val=None, model=embedding(20))),
    "float tokens": (DataError, r"X\.long\(\)",
                     lambda: made(TOKENS.float(), Y, val=None, model=embedding(30))),
    "layers": (ModelError, r"fails on float32 \(32, 8\)",
               lambda: made(model=nn.Sequential(nn.Linear(8, 16), nn.Linear(12, 4)))),
    "no weights yet": (ModelError, "device 'meta'",
                       lambda: made(model=nn.Linear(8, 4, device="meta"))),
    "a loss for each row": (ConfigError, r"shape \(32,\)[^$]*reduction='mean'",
                            lambda: made(loss=nn.CrossEntropyLoss(reduction="none"))),
    "a float": (ConfigError, r"a float[^$]*\.item\(\)",
                lambda: made(loss=lambda o, y: F.cross_entropy(o, y).item())),
    "a word for an optimizer": (ConfigError, "optimizer is a str", lambda: made(optimizer="adam")),
    "no optimizer": (ConfigError, r"no optimizer[^$]*Adam", lambda: made(optimizer=None)),
    "the class of a loss": (ConfigError, "loss is the class CrossEntropyLoss",
                            lambda: made(loss=nn.CrossEntropyLoss)),
    "no dict": (ConfigError, "declared is a str", lambda: made(declared="frozen")),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_trained_is_said_in_words(name: str) -> None:
    kind, words, make = BAD[name]
    with pytest.raises(kind, match=words):
        gipi.diagnose(make())


def test_something_else_than_an_experiment_is_named() -> None:
    with pytest.raises(ConfigError, match=r"diagnose\(Sequential\)"):
        gipi.diagnose(mlp())  # type: ignore[arg-type]


def without_255(said: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(said, y, ignore_index=255)


without_255.__name__ = "cross_entropy"


def smooth(said: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Punish a gradient taken within."""
    said = 1.0 * said
    (slope,) = torch.autograd.grad(said.square().sum(), said, create_graph=True)
    return F.cross_entropy(said, y) + 1e-3 * slope.square().mean()


def scaled(rows: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*rows, strict=True)
    return torch.stack(inputs).float() / 255, torch.stack(targets)


def bytes_of(X: torch.Tensor, y: torch.Tensor) -> DataLoader:
    return DataLoader(TensorDataset((40 * X + 120).clamp(0, 255).byte(), y), 16, shuffle=True,
                      collate_fn=scaled)  # fmt: skip


class InBatches(Dataset):
    """Whole batches as items."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        if i >= len(self):
            raise IndexError(i)
        return X[30 * i : 30 * i + 30], Y[30 * i : 30 * i + 30]


IGNORED = torch.where(torch.arange(len(Y)) % 5 == 0, 255, Y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: made(y=IGNORED, val=(X, IGNORED), loss=nn.CrossEntropyLoss(ignore_index=255)),
        lambda: made(y=IGNORED, val=(X, IGNORED), loss=without_255),
        lambda: made(y=Y[:, None], val=None, model=mlp(out=1), loss=nn.MSELoss()),
        lambda: made(y=Y[:, None], val=None, model=mlp(out=1), loss=nn.L1Loss()),
        lambda: made(y=Y[:, None], val=None, model=mlp(out=1), loss=nn.SmoothL1Loss()),
        lambda: made(loss=smooth),
        lambda: made(train=bytes_of(X, Y), val=bytes_of(VX, VY)),
        lambda: made(X.byte(), val=None, transform=lambda x: x.float()),
        lambda: made(train=InBatches(), val=InBatches()),
        lambda: made(val=DataLoader(TensorDataset(VX[:5], VY[:5]), 32, drop_last=True)),
    ],
)
def test_what_only_looks_wrong_is_not_refused(make: Callable[[], gipi.Experiment]) -> None:
    before = torch.get_rng_state()
    exp = make()
    torch.set_rng_state(before)
    sound(Facts(exp))
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_keeps_its_own_numbers() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, said: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return F.cross_entropy(said + 0.0 * torch.randn_like(said), y)

    exp = made(loss=Counting(), train=DataLoader(TensorDataset(X, Y), 16, shuffle=True))
    before = torch.get_rng_state()
    gipi.diagnose(exp, train=False)
    assert not exp.loss.calls
    assert torch.equal(before, torch.get_rng_state())


def test_an_experiment_with_layers_to_come_reads_well() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))
    assert "Sequential of 36 parameters" in repr(made(model=model))


@pytest.mark.parametrize(
    "make",
    [
        lambda: made(y=F.one_hot(Y, 4).float(), val=None),
        lambda: made(X.numpy(), Y.numpy(), val=None),
        lambda: made(TOKENS, Y, val=None, model=embedding(30)),
        lambda: made(train=DataLoader(TensorDataset(X, Y), batch_size=16), val=None),
        lambda: made(train=[(X[:60], Y[:60]), (X[60:], Y[60:])], val=None),
    ],
)
def test_what_can_be_trained_passes(make: Callable[[], gipi.Experiment]) -> None:
    diagnosis = gipi.diagnose(make(), train=False)
    assert not diagnosis.broken


@pytest.mark.parametrize(
    ("kind", "words", "given"),
    [
        (ConfigError, "loss is a str", {"loss": "ce"}),
        (ConfigError, "loss is the class", {"loss": nn.CrossEntropyLoss}),
        (DataError, "inputs are a list", {"val": (VX.tolist(), VY.tolist())}),
        (DataError, "80 inputs and 3 targets", {"val": (VX, VY[:3])}),
        (ConfigError, "declared is a str", {"declared": "frozen"}),
    ],
)
def test_a_watch_refuses_what_it_cannot_use(kind: Any, words: str, given: dict[str, Any]) -> None:
    model = mlp()
    with pytest.raises(kind, match=words):
        gipi.watch(model, torch.optim.SGD(model.parameters(), 0.1),
                   **{"loss": F.cross_entropy, **given})  # fmt: skip


def test_experiments_diagnoses_and_treatments_read_well() -> None:
    exp = made(
        model=nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softmax(-1)), epochs=3
    )
    assert repr(exp) == (
        "<Experiment: Sequential of 212 parameters; train 120 rows of (8,), val 80 rows of (8,); "
        "CrossEntropyLoss; Adam, lr 0.01; 3 epochs>"
    )
    diagnosis = gipi.diagnose(exp)
    assert repr(diagnosis) == "<Diagnosis: problem double_softmax>"
    assert str(diagnosis) == "\n".join(map(str, diagnosis.findings))
    treatment = diagnosis.repair()
    assert treatment is not None
    first, changed, score, loss, *_ = str(treatment).splitlines()
    assert first == "cured: double_softmax"
    assert changed.startswith("  changed: took softmax")
    assert score.startswith("  score of validation rows -")
    assert loss.startswith("  their loss ")
    assert repr(treatment).startswith("<Treatment: cured double_softmax; score -")
