"""What the pages of the lab say is so: every claim of a picture as a test that can fail."""

import math
from functools import cache

import pytest
import torch
from torch import nn

from gipi import models
from gipi.core.schema import Signature
from gipi.nn import ACTIVATIONS, INITS
from gipi.study import lab_activations, lab_init, lab_lr, lab_norm, lab_optimizers, lab_width
from gipi.study.lab_net import Rows, descend, digits, mean_loss

ELEMENTWISE = [r.name for r in ACTIVATIONS if "elementwise" in r.tags]
KINDS = [k for k in lab_norm.compared() if k != "none"]


@cache
def rows():
    return digits(0)


# ------------------------------------------------------------------------ activations


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if n != "straight-through"])
def test_the_drawn_derivative_is_the_slope_of_the_drawn_function(name):
    x = torch.linspace(-4.9, 4.9, 198, dtype=torch.float64)  # beside every kink
    module = ACTIVATIONS.get(name).build().double()
    _, slope = lab_activations.value_and_slope(module, x)
    h = 1e-6
    with torch.no_grad():
        wanted = (module((x + h)[:, None]) - module((x - h)[:, None]))[:, 0] / (2 * h)
    torch.testing.assert_close(slope, wanted, atol=1e-6, rtol=1e-5)


def test_every_activation_of_the_registry_is_drawn_and_numbered():
    found = lab_activations.activations()
    assert list(found.numbers["activations"]) == ACTIVATIONS.names()
    assert len(found.pictures[0].panels) == len(ACTIVATIONS.names())
    assert found.numbers["activations"]["sigmoid"]["steepest"] == pytest.approx(0.25)
    assert found.numbers["activations"]["step"]["flat_share"] == 1.0
    assert found.numbers["activations"]["relu"]["flat_share"] == pytest.approx(0.5, abs=0.01)
    assert found.numbers["activations"]["maxout"]["least"] == pytest.approx(0.0, abs=1e-9)


# ------------------------------------------------------------------------ initialisation


def test_he_keeps_the_spread_through_twenty_relu_layers_and_xavier_loses_it():
    he = lab_init.signals("relu", "he")
    xavier = lab_init.signals("relu", "xavier")
    assert all(0.5 < v / he.forward[0] < 2 for v in he.forward)
    assert xavier.forward[-1] / xavier.forward[0] < 0.01
    assert xavier.backward[0] < 0.01
    assert 0.3 < he.backward[0] < 3


def test_small_normal_weights_lose_the_signal_and_large_ones_saturate():
    assert lab_init.signals("tanh", "normal").forward[-1] < 1e-10
    assert lab_init.signals("relu", "normal").backward[0] < 1e-10


def test_the_gradient_of_the_sigmoid_vanishes_and_that_of_tanh_stays():
    for rule in INITS.names():
        assert (lab_init.signals("sigmoid", rule).backward[0] < 1e-6) == (rule != "standard-normal")
    assert lab_init.signals("tanh", "xavier").backward[0] > 0.05


def test_deep_sigmoids_answer_the_same_for_every_row():
    first, *_, last = lab_init.signals("sigmoid", "xavier").layers
    assert last.std(0).max() < 1e-6 < first.std(0).min()
    assert last.mean(0).std() > 0.05  # one bar a unit: the histogram is ragged


def test_lsuv_keeps_what_he_loses_under_silu():
    he, measured = (lab_init.signals("silu", i).forward[-1] for i in ("he", "lsuv"))
    assert he < 0.03
    assert 0.3 < measured < 1.5


def test_selu_keeps_unit_variance_under_lecun():
    found = lab_init.signals("selu", "lecun").forward
    assert all(0.6 < v < 1.5 for v in found)


def test_zeros_give_identical_units_that_stay_identical_and_nothing_is_learned():
    zero = lab_init.signals("relu", "zeros", depth=2)
    assert zero.forward == [0.0, 0.0]
    model, points = lab_init.learns("zeros", rows(), steps=40, width=16)
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    assert lab_init.distinct_units(first) == 1
    assert points[-1][1] > 2.2  # log 10 = 2.30 is guessing
    model, points = lab_init.learns("he", rows(), steps=40, width=16)
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    assert lab_init.distinct_units(first) == 16
    assert points[-1][1] < 1.0


def test_a_step_passes_no_gradient():
    found = lab_init.signals("step", "xavier", depth=3)
    assert found.backward[:2] == [0.0, 0.0]
    assert found.backward[2] == pytest.approx(1.0)


def test_signals_are_a_function_of_the_seed():
    one, same, other = (lab_init.signals("tanh", "xavier", depth=3, seed=s) for s in (1, 1, 2))
    assert one.forward == same.forward != other.forward


@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_every_initialisation_has_its_strip_for_every_activation(name):
    for init in INITS.names():
        found = lab_init.signals(name, init, rows=50)
        assert len(found.forward) == len(found.backward) == lab_init.DEPTH


def test_the_drawn_gradients_are_those_of_the_layers():
    torch.manual_seed(0)
    found = lab_init.signals("tanh", "xavier", depth=3, width=16, rows=8)
    assert [g.shape for g in found.gradients] == [(8, 16)] * 3
    spreads = [g.double().std().item() for g in found.gradients]
    assert [s / spreads[-1] for s in spreads] == pytest.approx(found.backward)
    step = lab_init.signals("step", "xavier", depth=3, width=16, rows=8)
    assert [bool(g.any()) for g in step.gradients] == [False, False, True]


def test_gradients_are_handed_down_where_the_page_says_so():
    kept = {pair: lab_init.signals(*pair).backward[0] for pair in lab_init.HISTOGRAMS}
    assert {pair for pair, ratio in kept.items() if ratio < 0.01} == {
        ("tanh", "normal"), ("sigmoid", "xavier"), ("relu", "xavier"),
    }  # fmt: skip
    assert 0.3 < kept["relu", "he"] < 3
    assert 0.3 < kept["selu", "lecun"] < 3


# ------------------------------------------------------------------------ normalisation


@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_makes_the_gradient_forget_the_scale_of_the_weights(kind):
    x, y = rows().x[:16], rows().y[:16]
    half, double = (lab_norm.gradient_sizes(kind, x, y, depth=8, factor=f)[0] for f in (0.5, 2.0))
    # The gradient at an output is divided by each later layer's scale again: nothing is left of it
    # but what eps adds.
    assert half / double == pytest.approx(1.0, rel=0.3)


def test_without_a_norm_the_gradient_goes_with_the_power_of_the_depth():
    x, y = rows().x[:16], rows().y[:16]
    half, he = (lab_norm.gradient_sizes("none", x, y, depth=12, factor=f) for f in (0.5, 1.0))
    assert half[0] / half[-1] == pytest.approx(he[0] / he[-1] * 0.5**11, rel=0.3)


def test_batch_norm_suffers_from_two_rows_a_step_and_group_norm_does_not():
    def loss(kind, size):
        return lab_norm.final_loss(
            kind, rows(), lr=lab_norm.BATCH_RATE * size, batch_size=size, steps=800 // size,
            hidden=(36, 36),
        )[1]  # fmt: skip

    assert loss("batch", 2) > 1.5 * loss("batch", 16)
    assert loss("batch", 2) > 1.5 * loss("group", 2)
    assert loss("group", 2) < 1.5 * loss("group", 16)


def test_a_norm_bears_a_learning_rate_that_ends_a_plain_net():
    plain, normed = (
        lab_norm.final_loss(kind, rows(), lr=1.0, batch_size=64, steps=60)[0]
        for kind in ("none", "batch")
    )
    assert not plain < 1.5
    assert normed < 0.5
    for kind in lab_norm.compared(dense=True):
        found = lab_norm.final_loss(kind, rows(), lr=10.0, batch_size=64, steps=30)[0]
        assert math.isfinite(found) == (kind != "none"), kind


def test_norms_for_positions_are_left_out_of_dense_nets():
    assert "instance" in lab_norm.compared()
    assert "instance" not in lab_norm.compared(dense=True)
    assert lab_norm.compared()[-1] == "none"


# ------------------------------------------------------------------------ optimizers


def test_the_nearer_the_saddle_the_longer_plain_descent_waits_and_adam_does_not_care():
    def wait(name, lr, distance):
        return lab_optimizers.steps_to_leave(
            lab_optimizers.walk(name, (0.0, distance), lr=lr, steps=300)
        )

    assert wait("sgd", 0.05, 1e-6) > 1.8 * wait("sgd", 0.05, 1e-3)
    assert wait("adam", 0.05, 1e-6) <= wait("adam", 0.05, 1e-3) + 1
    assert wait("sgd", 1e-4, 1e-6) is None


def test_the_minima_and_the_saddle_are_where_the_picture_says():
    for x, y in lab_optimizers.MINIMA:
        assert lab_optimizers.camel(x, y) == pytest.approx(-1.031628, abs=1e-5)
    point = lab_optimizers.Point((0.0, 0.0))
    hessian = torch.autograd.functional.hessian(
        lambda p: (4 - 2.1 * p[0] ** 2 + p[0] ** 4 / 3) * p[0] ** 2
        + p[0] * p[1] + (4 * p[1] ** 2 - 4) * p[1] ** 2,
        point.xy.detach(),
    )  # fmt: skip
    low, high = torch.linalg.eigvalsh(hessian).tolist()
    assert low < 0 < high
    assert point().item() == lab_optimizers.camel(0.0, 0.0) == 0.0


def test_a_wild_walk_ends_and_is_never_the_best():
    wild = lab_optimizers.walk("sgd", (1.95, -0.2), lr=3.0)
    assert math.isinf(wild.height)
    assert all(map(math.isfinite, wild.points[-1]))
    lr, walks = lab_optimizers.best_walks("sgd", steps=20)
    assert lr < 3.0
    assert all(math.isfinite(w.height) for w in walks)


def test_every_first_order_optimizer_lowers_the_loss():
    small = Rows(rows().x[:256], rows().y[:256], rows().x_val, rows().y_val)
    for record in lab_optimizers.first_order():
        curve = lab_optimizers.net_curve(record, small, lr=record.facts["lr"], steps=12, seed=0)
        assert curve.last < curve.losses[0], record.name


# ------------------------------------------------------------------------ learning rate, width


def test_too_small_a_rate_does_nothing_and_too_large_a_one_diverges():
    small, good, large = (lab_lr.rate_curve(rows(), rate, steps=40) for rate in (1e-4, 0.3, 100.0))
    assert small.last > 0.98 * small.losses[0]
    assert good.last < 0.5 * good.losses[0]
    assert not large.last < 3 * large.losses[0]


def test_the_bowl_turns_at_two_over_the_curvature():
    assert abs(lab_lr.bowl(1.99)[-1]) < 1
    assert abs(lab_lr.bowl(2.01)[-1]) > 1


def test_for_the_same_rows_smaller_batches_come_further():
    full = lab_lr.batch_curve(rows(), None, lr=1.0, epochs=1)
    mini = lab_lr.batch_curve(rows(), 32, lr=0.3, epochs=1)
    assert full.steps[-1] == 1
    assert mini.last < 0.6 * full.last


def test_wider_nets_fit_better():
    errors = [lab_width.fit_width(width, steps=15, tries=1)[0] for width in (1, 4, 16)]
    assert errors[0] > 1.2 * errors[1]
    assert errors[1] > 5 * errors[2]


# ------------------------------------------------------------------------ the loop


def test_the_tiny_loop_is_plain_descent():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 2
    model = models.build("linear", Signature(numbers=3, outputs=2), seed=0)
    by_hand = models.build("linear", Signature(numbers=3, outputs=2), seed=0)
    curve = descend(model, (x, y), optimizer="sgd", lr=0.1, steps=3, every=1)
    for _ in range(3):
        by_hand.zero_grad()
        nn.functional.cross_entropy(by_hand(x), y).backward()
        with torch.no_grad():
            for p in by_hand.parameters():
                p.sub_(p.grad, alpha=0.1)
    for a, b in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert curve.steps == [0, 1, 2, 3]
    assert curve.last == pytest.approx(mean_loss(by_hand, x, y=y))


def test_every_row_is_seen_once_before_any_is_seen_again():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            if torch.is_grad_enabled():
                seen.extend(x[:, 0].int().tolist())
            return torch.cat([x * 0 + self.w, x * 0], 1)

    x = torch.arange(12.0)[:, None]
    descend(Spy(), (x, torch.zeros(12, dtype=torch.int64)), optimizer="sgd", lr=0.1, steps=6,
            batch_size=4)  # fmt: skip
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


def test_a_diverged_descent_stops_with_a_nan():
    x, y = rows().x[:64], rows().y[:64]
    curve = descend(
        models.build("mlp", Signature(image=(1, 8, 8), outputs=10), options={"widths": [8, 8]}),
        (x, y), optimizer="sgd", lr=1e30, steps=50, every=1,
    )  # fmt: skip
    assert math.isnan(curve.last)
    assert len(curve.steps) < 51


def test_digits_are_training_and_validation_rows_only():
    found = rows()
    assert found.x.shape[1:] == (1, 8, 8)
    assert 1000 < len(found.x) + len(found.x_val) < 1797
