"""What a look at the units hears serves the judgement of the same rows where the model is still."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch import Tensor, nn

from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import outputs
from gipi.doctor.eye import Eye
from gipi.doctor.judge import Judge
from gipi.doctor.play import play


class Drawing(nn.Module):
    """A net that draws in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs with noise."""
        said: Tensor = self.body(x)
        return said + 0.1 * torch.randn_like(said)


def test_outputs_of_a_look_are_those_of_the_judgement() -> None:
    exp = experiment(mlp(), blobs())
    judge, eye = Judge(exp), Eye(exp)
    assert judge.train is not None
    eye.look(0, judge.train[0])
    assert torch.equal(eye.said, outputs(exp, judge.train[0]))
    assert judge(eye.said) == judge()
    eye.look(1)
    assert eye.said is None


def test_outputs_that_were_drawn_are_drawn_again() -> None:
    exp = experiment(Drawing(), blobs())
    judge, eye = Judge(exp), Eye(exp)
    assert judge.train is not None
    eye.look(0, judge.train[0])
    assert eye.said is None


@pytest.mark.parametrize("net", [mlp, Drawing])
def test_rows_of_epochs_are_the_same_with_checks(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    exp = experiment(net(), blobs())
    seen = play(duplicate(exp), check=lambda _: False)
    plain = play(duplicate(exp))
    at = {row["step"]: row for row in seen.epochs}
    assert seen.losses == plain.losses
    for row in plain.epochs:
        assert at[row["step"]]["train_eval"] == pytest.approx(row["train_eval"], rel=1e-6)


def test_the_training_rows_pass_once_at_a_check() -> None:
    exp = experiment(mlp(), blobs())
    asked = []

    def count(module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        if not module.training:
            asked.append(len(given[0]))

    judge, twin = Judge(exp), duplicate(exp)
    assert judge.train is not None
    assert judge.val is not None
    twin.model.register_forward_hook(count)
    trace = play(twin, check=lambda _: False)
    judged = 1 + len(trace.epochs)
    assert len(asked) == 2 * judged
