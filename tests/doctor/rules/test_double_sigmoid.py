"""A sigmoid before a loss of log-odds is found and taken out."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, findings, mlp
from tests.doctor.wired import cured
from torch import Tensor, nn

from gipi.doctor.rules.double_sigmoid import RULE


def yes_or_no():
    return [(X, (y == 0).float()[:, None]) for X, y in blobs(classes=2)]


class Called(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(out=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).sigmoid()


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits])
@pytest.mark.parametrize("model", [Called, lambda: nn.Sequential(*mlp(out=1), nn.Sigmoid())])
def test_it_is_named_and_cured(model, loss) -> None:
    treatment = cured(experiment(model(), yes_or_no(), loss=loss, epochs=4), RULE)
    assert treatment.after["loss"] < treatment.before["loss"]


def test_log_odds_and_probabilities_with_their_losses_are_silent() -> None:
    assert findings(experiment(mlp(out=1), yes_or_no(), loss=nn.BCEWithLogitsLoss()), RULE) == []
    assert findings(experiment(Called(), yes_or_no(), loss=nn.BCELoss()), RULE) == []
    gated = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 1))
    assert findings(experiment(gated, yes_or_no(), loss=nn.BCEWithLogitsLoss()), RULE) == []
