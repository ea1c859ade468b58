"""One thing has no s, and the whole model is no name in quotes."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch import nn

from gipi.doctor.diagnose import diagnose
from gipi.doctor.facts import Facts
from gipi.doctor.rules.bad_init_symmetric import RULE as SYMMETRIC
from gipi.doctor.rules.bad_init_symmetric import drawn
from gipi.doctor.spoken import counted, place_of


def test_one_thing_has_no_s() -> None:
    assert (counted(1, "layer"), counted(2, "layer")) == ("1 layer", "2 layers")
    assert counted(1, "layer", one="begins", more="begin") == "1 layer begins"
    assert counted(0, "layer", one="begins", more="begin") == "0 layers begin"
    exp = experiment(mlp(), blobs())
    nn.init.constant_(exp.model[0].weight, 0.1)
    (found,) = SYMMETRIC.before(Facts(exp))
    assert found.message.startswith("all units of 1 layer (")
    assert drawn(("0.weight",))(exp) == "the weights of 1 layer are drawn at random"


def test_the_model_itself_has_no_name() -> None:
    assert (place_of("body.0"), place_of("")) == ("'body.0'", "the model itself")
    torch.manual_seed(0)
    exp = experiment(nn.Linear(8, 4), blobs())
    nn.init.constant_(exp.model.weight, 50.0)
    assert "''" not in str(diagnose(exp))
