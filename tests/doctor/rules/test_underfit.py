"""A net that tells its own rows worse than neighbours tell new ones is named."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, halves, mlp, regression, seen, shapes
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.reference import bar, code, scores_classes
from gipi.doctor.rules.underfit import RULE, during
from gipi.doctor.trace import Trace


def rings(rows: int = 600):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (rows,), generator=g)
    angle = 6.28 * torch.rand(rows, generator=g)
    radius = 1.0 + y + 0.1 * torch.randn(rows, generator=g)
    return halves(torch.stack([radius * angle.cos(), radius * angle.sin()], 1), y)


def test_a_linear_net_on_rings_is_named_before_the_first_step() -> None:
    torch.manual_seed(0)
    diagnosis = seen(experiment(nn.Linear(2, 2), rings()), RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.phase) == ("underfit", "problem", "before")
    assert diagnosis.repair() is None
    assert "needs a person" in diagnosis.why_not


def test_a_net_of_two_units_is_named_in_the_run() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(2, 2, hidden=2), rings(), lr=0.01, epochs=15)
    assert [f.code for f in seen(exp, RULE, train=True).problems] == ["underfit"]


def test_a_net_too_narrow_for_shapes_that_pixels_do_not_tell_is_named() -> None:
    torch.manual_seed(0)
    narrow = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1),
                           nn.Tanh(), nn.Linear(1, 4))  # fmt: skip
    exp = experiment(narrow, shapes(), epochs=4)
    assert [f.code for f in seen(exp, RULE, train=True).problems] == ["underfit"]
    found = bar(Facts(exp))
    assert found is not None
    assert found.best > 0.8


def frozen(*, blind: bool, at: int = -1):
    """Return random features, kept, below a head that is trained next to nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(),
                        nn.Linear(64, 2))  # fmt: skip
    for layer in net:
        layer.requires_grad_(layer is net[at])
    if blind:
        with torch.no_grad():
            net[0].weight[:, 0] = 0.0  # they do not see one of the two columns
    return experiment(net, rings(), lr=1e-6)


def test_frozen_layers_that_lose_what_is_needed_are_worth_a_hint() -> None:
    trace = Trace(100, 10, losses=[1.0] * 100)
    exp = frozen(blind=True)
    (found,) = during(Facts(exp, start=Facts(exp)), trace)
    assert found.severity == "hint"
    assert "layers you froze lose" in found.message
    assert "train more of them" in found.advice
    for p in exp.model.parameters():
        p.requires_grad_(True)  # the optimizer has them
    (found,) = during(Facts(exp, start=Facts(exp)), trace)
    assert found.severity == "problem"


def test_a_head_that_does_not_read_what_frozen_layers_hold_is_a_problem() -> None:
    trace = Trace(100, 10, losses=[1.0] * 100)
    exp = frozen(blind=False)
    (found,) = during(Facts(exp, start=Facts(exp)), trace)
    assert found.severity == "problem"
    assert "hold what is needed" in found.message
    assert found.evidence["linear_on_kept_layers"] > 0.9
    below = frozen(blind=False, at=0)  # what it may make of them is not known
    (found,) = during(Facts(below, start=Facts(below)), trace)
    assert found.severity == "hint"


def test_nets_that_fit_and_noise_that_nobody_can_are_left_alone() -> None:
    torch.manual_seed(0)
    for exp in (
        experiment(mlp(2, 2, hidden=48), rings(), lr=0.02, epochs=20),
        experiment(nn.Linear(8, 4), blobs(), lr=0.03),
        experiment(mlp(out=1, hidden=8), regression(noise=2.0), lr=0.01),
        experiment(mlp(out=1, hidden=48), regression(), lr=0.01, epochs=20),
    ):
        assert seen(exp, RULE, train=True).findings == []


def test_outputs_that_are_places_and_no_scores_are_not_counted_as_answers() -> None:
    def triplets(said, y):
        far = torch.cdist(said, said)
        same = y[:, None] == y[None]
        return ((far * same).amax(1) - (far + 1e3 * same).amin(1) + 1).relu().mean()

    def views(said, _):
        one, two = said.chunk(2, 1)
        return torch.nn.functional.cross_entropy(one @ two.T, torch.arange(len(said)))

    torch.manual_seed(0)
    for loss in (triplets, views):
        exp = experiment(mlp(out=8), blobs(), loss=loss, epochs=5)
        assert not scores_classes(Facts(exp))
        assert seen(exp, RULE, train=True).findings == []
    focal = experiment(mlp(), blobs(), loss=lambda o, y: -(
        (1 - o.softmax(1)) ** 2 * o.log_softmax(1)).gather(1, y[:, None]).mean())  # fmt: skip
    assert scores_classes(Facts(focal))


class Focal(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("met", torch.zeros(4))

    def forward(self, o, y):
        self.met += torch.bincount(y, minlength=4)
        return -((1 - o.softmax(1)) ** 2 * o.log_softmax(1)).gather(1, y[:, None]).mean()


def test_a_batch_of_one_class_and_a_loss_that_is_no_number_leave_answers_answers() -> None:
    (X, y), val = blobs()
    order = y.argsort()
    by_class = experiment(mlp(), ((X[order], y[order]), val), loss=Focal(), shuffle=False)
    facts = Facts(by_class)
    assert len(torch.unique(facts.batch[1])) == 1
    assert scores_classes(facts)
    one = experiment(mlp(), ((X[y == 1], y[y == 1]), None), loss=Focal())
    assert scores_classes(Facts(one))
    broken = experiment(mlp(), blobs(), loss=lambda o, y: Focal()(o, y) * float("nan"))
    assert scores_classes(Facts(broken))


def test_asking_whether_a_loss_knows_classes_leaves_it_and_the_generator_as_they_are() -> None:
    facts = Facts(experiment(mlp(), blobs(), loss=Focal()))
    assert facts.loss.name == "other"
    met, state = facts.exp.loss.met.clone(), torch.get_rng_state()
    assert scores_classes(facts)
    assert torch.equal(met, facts.exp.loss.met)
    assert torch.equal(state, torch.get_rng_state())


def told_standing_and_falling(exp, began: float) -> list[list[str]]:
    """Return what is said of a net that knows little, where its loss stands and where it falls."""
    facts = Facts(exp, start=Facts(exp))
    ends = [1.0] * 24, [1.2] * 12 + [1.0] * 12
    traces = (Trace(100, 10, losses=[began] * 26 + end) for end in ends)
    return [[f.code for f in during(facts, trace)] for trace in traces]


def test_how_high_a_loss_began_says_nothing_of_how_it_falls_now() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(2, 2, hidden=2), rings())
    assert told_standing_and_falling(exp, 20.0) == [["underfit"], []]


def test_a_loss_that_falls_by_a_share_of_the_variance_falls_whatever_the_mean_is() -> None:
    torch.manual_seed(0)
    X, V = torch.randn(2, 300, 6, generator=torch.Generator().manual_seed(0))
    exp = experiment(mlp(6, 1), ((X, X[:, :1] + 5.0), (V, V[:, :1] + 5.0)))
    assert told_standing_and_falling(exp, 26.0) == [["underfit"], []]


def test_a_net_that_lost_again_what_it_had_learned_is_not_too_small() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(2, 2, hidden=2), rings())
    facts = Facts(exp, start=Facts(exp))
    for least, found in ((0.9, ["underfit"]), (0.1, [])):
        trace = Trace(100, 10, losses=[1.0] * 100)
        trace.epochs = [{"step": 50, "train_eval": least}, {"step": 100, "train_eval": 1.0}]
        assert [f.code for f in during(facts, trace)] == found


def test_a_net_that_still_learns_from_augmented_rows_is_no_problem_yet() -> None:
    torch.manual_seed(0)
    falls = Trace(100, 10, losses=[1.2] * 50 + [1.0] * 25 + [0.8] * 25)
    for transform, severity in ((None, "problem"), (lambda x: x, "hint")):
        exp = experiment(mlp(2, 2, hidden=2), rings(), transform=transform)
        facts = Facts(exp, start=Facts(exp))
        assert [f.severity for f in during(facts, falls)] == [severity]
    still = Trace(100, 10, losses=[1.0] * 100)
    assert [f.severity for f in during(facts, still)] == ["problem"]


def given_back(rows: int = 500):
    """Return rows of 32 numbers that say four, and are to be given back."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 4, generator=g) @ torch.randn(4, 32, generator=g) / 2
    return halves(X, X.clone())


def through(numbers: int, act: type[nn.Module] = nn.Tanh) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), act(), nn.Linear(32, numbers),
                         nn.Linear(numbers, 32), act(), nn.Linear(32, 32))  # fmt: skip


def test_a_code_that_is_too_narrow_is_a_hint_and_one_that_is_not_learned_a_problem() -> None:
    narrow = experiment(through(1), given_back(), loss=nn.MSELoss(), lr=0.01, epochs=15)
    (found,) = seen(narrow, RULE, train=True).findings
    assert (found.severity, found.evidence["narrowest"]) == ("hint", 1)
    still = experiment(through(4), given_back(), loss=nn.MSELoss(), lr=1e-6, epochs=2)
    (found,) = seen(still, RULE, train=True).findings
    assert found.severity == "problem"


def test_codes_that_are_wide_enough_and_data_that_have_none_are_left_alone() -> None:
    wide = experiment(through(4), given_back(), loss=nn.MSELoss(), lr=0.01, epochs=15)
    assert seen(wide, RULE, train=True).findings == []
    X = torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    noise = experiment(through(2), halves(X, X.clone()), loss=nn.MSELoss(), lr=0.01, epochs=4)
    assert seen(noise, RULE, train=True).findings == []


def test_a_gate_is_no_layer_that_all_must_pass() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(32, 6), nn.Linear(6, 32)
            self.squeeze, self.excite = nn.Linear(6, 1), nn.Linear(1, 6)

        def forward(self, x):
            h = self.into(x)
            return self.out(h * self.excite(self.squeeze(h).relu()).sigmoid())

    for net, width in ((Gated(), 6), (through(4), 4)):
        found = code(Facts(experiment(net, given_back(), loss=nn.MSELoss())))
        assert found is not None
        assert found.width == width
