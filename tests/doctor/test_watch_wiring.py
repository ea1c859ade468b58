"""A plain script with one planted bug, and one line more: the bug is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gipi

if TYPE_CHECKING:
    from collections.abc import Callable


def script(
    model: nn.Module, *, loss: Callable = F.cross_entropy, zero: bool = True, y: Any = None,
    params: Any = None, rows: int = 32, lr: float = 0.05, X: Tensor | None = None,
) -> list[str]:  # fmt: skip
    """Run the loop of every tutorial and return the codes of what the watch calls problems."""
    generator = torch.Generator().manual_seed(0)
    centres = 2.0 * torch.randn(4, 8, generator=generator)
    label = torch.randint(4, (320,), generator=generator)
    X = centres[label] + torch.randn(320, 8, generator=generator) if X is None else X
    y = label if y is None else y
    optimizer = torch.optim.SGD(params or model.parameters(), lr)
    with gipi.watch(model, optimizer, loss) as doctor:
        for _ in range(3):
            for i in range(0, len(X), rows):
                if zero:
                    optimizer.zero_grad()
                loss(model(X[i : i + rows]), y[i : i + rows]).backward()
                optimizer.step()
    assert not doctor.diagnosis.broken
    return [f.code for f in doctor.findings if f.severity == "problem"]


def mlp(*end: nn.Module, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(),
                         nn.Linear(16, classes), *end)  # fmt: skip


class Cut(nn.Module):
    """The graph is cut between body and head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().detach())


class Hidden(nn.Module):
    """Layers in a plain list: the optimizer never hears of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = [nn.Linear(8, 32)]
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers[0](x).relu())


class Mixed(nn.Module):
    """A softmax over the rows of the batch instead of the columns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.softmax(self.body(x), 0))


def zeros() -> nn.Module:
    model = mlp()
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def frozen() -> nn.Module:
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    return model


def without_the_first(model: nn.Module) -> list[nn.Parameter]:
    return [p for n, p in model.named_parameters() if not n.startswith("0.")]


def negative(said: Tensor, y: Tensor) -> Tensor:
    return -F.cross_entropy(said, y)


BUGS: dict[str, Callable[[], list[str]]] = {
    "double_softmax": lambda: script(mlp(nn.Softmax(-1))),
    "missing_zero_grad": lambda: script(mlp(), zero=False, lr=0.01),
    "loss_sign_flipped": lambda: script(mlp(), loss=negative),
    "params_not_in_optimizer": lambda: script(m := mlp(), params=without_the_first(m)),
    "graph_detached": lambda: script(Cut()),
    "frozen_layer": lambda: script(frozen()),
    "batch_mixing": lambda: script(Mixed()),
    "bad_init_symmetric": lambda: script(zeros()),
    "wrong_output_activation": lambda: script(mlp(nn.ReLU())),
    "loss_broadcast": lambda: script(
        mlp(classes=1), loss=lambda said, y: ((said - y) ** 2).mean(),
        y=torch.randn(320, generator=torch.Generator().manual_seed(1)), lr=0.01,
    ),
    "hidden": lambda: script(Hidden()),
}  # fmt: skip
NAMED = {"hidden": "params_not_in_optimizer"}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("bug", list(BUGS))
def test_one_line_names_the_bug(bug: str) -> None:
    found = BUGS[bug]()
    assert found[:1] == [NAMED.get(bug, bug)]


def test_of_an_optimizer_of_another_model_nothing_else_is_said() -> None:
    assert script(mlp(), params=list(mlp().parameters())) == ["params_not_in_optimizer"]


def test_the_script_without_a_bug_is_left_alone() -> None:
    assert script(mlp()) == []
