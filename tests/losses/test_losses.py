"""Losses against torch's reductions, and the contract of (total, count)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gipi import losses
from gipi.core.errors import ModelError, UnknownName

B, K, T = 7, 4, 3
G = torch.Generator().manual_seed(0)
LOGITS = torch.randn(B, K, generator=G, dtype=torch.float64)
CLASSES = torch.randint(0, K, (B,), generator=G)
SOFT = torch.rand(B, K, generator=G, dtype=torch.float64).softmax(1)
VALUES = torch.randn(B, T, generator=G, dtype=torch.float64)
TRUTH = torch.randn(B, T, generator=G, dtype=torch.float64)
W = torch.rand(B, generator=G, dtype=torch.float64)
CW = torch.rand(K, generator=G, dtype=torch.float64)
BITS = torch.randint(0, 2, (B, T), generator=G)

# name -> (outputs, target, options)
CASES = {
    "mse": (VALUES, TRUTH, {}),
    "l1": (VALUES, TRUTH, {}),
    "huber": (VALUES, TRUTH, {"delta": 0.7}),
    "cross_entropy": (LOGITS, CLASSES, {}),
    "cross_entropy-smooth": (LOGITS, CLASSES, {"label_smoothing": 0.1}),
    "cross_entropy-soft": (LOGITS, SOFT, {}),
    "cross_entropy-weighted": (LOGITS, CLASSES, {"class_weights": CW, "label_smoothing": 0.1}),
    "cross_entropy-soft-weighted": (LOGITS, SOFT, {"class_weights": CW}),
    "binary_cross_entropy": (VALUES, BITS, {"label_smoothing": 0.1, "positive_weight": 2.0}),
    "gaussian_nll": (torch.cat([VALUES, LOGITS[:, :T]], 1), TRUTH, {"beta": 0.5}),
    "perceptron": (LOGITS, CLASSES, {}),
}


def call(name, outputs, target, weight=None, **options):
    return losses.LOSSES.get(name.split("-")[0]).build(outputs, target, weight, **options)


@pytest.mark.parametrize("record", list(losses.LOSSES), ids=lambda r: r.name)
def test_every_record_says_what_it_is_and_has_a_case(record):
    assert record.summary
    assert record.citation
    dense = {"segment", "pose", "detect", "text"} & set(record.tags)  # they have own files
    assert dense or any(case.split("-")[0] == record.name for case in CASES)


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_add_up_to_the_batch(name):
    outputs, target, options = CASES[name]
    for weight in (None, W):
        total, count = call(name, outputs, target, weight, **options)
        parts = [
            call(name, outputs[s], target[s], None if weight is None else weight[s], **options)
            for s in (slice(0, 3), slice(3, 4), slice(4, B))
        ]
        torch.testing.assert_close(sum(p[0] for p in parts), total)
        assert float(sum(p[1] for p in parts)) == pytest.approx(float(count))


@pytest.mark.parametrize("name", CASES)
def test_unit_weights_change_nothing_and_weight_two_is_a_row_twice(name):
    outputs, target, options = CASES[name]
    plain = call(name, outputs, target, **options)
    ones = call(name, outputs, target, torch.ones(B, dtype=torch.float64), **options)
    torch.testing.assert_close(plain[0], ones[0])
    assert float(plain[1]) == pytest.approx(float(ones[1]))
    twice = torch.ones(B, dtype=torch.float64)
    twice[2] = 2
    weighted = call(name, outputs, target, twice, **options)
    index = torch.tensor([*range(B), 2])
    repeated = call(name, outputs[index], target[index], **options)
    torch.testing.assert_close(weighted[0], repeated[0])
    assert float(weighted[1]) == pytest.approx(float(repeated[1]))


@pytest.mark.parametrize("name", [n for n in CASES if "weighted" not in n])
def test_the_count_is_a_number_without_weights_and_their_sum_with_them(name):
    outputs, target, options = CASES[name]
    count = call(name, outputs, target, **options)[1]
    assert isinstance(count, float)
    assert count == B
    torch.testing.assert_close(call(name, outputs, target, W, **options)[1], W.sum())


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_right(name):
    outputs, target, options = CASES[name]
    free = outputs.clone().requires_grad_()
    detached = {**options, "beta": 0.0} if "beta" in options else options  # beta cuts a gradient
    for weight in (None, W):
        assert torch.autograd.gradcheck(
            lambda o, w=weight: call(name, o, target, w, **detached)[0],
            (free,),
        )


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mse", lambda: F.mse_loss(VALUES, TRUTH)),
        ("l1", lambda: F.l1_loss(VALUES, TRUTH)),
        ("huber", lambda: F.huber_loss(VALUES, TRUTH, delta=0.7)),
        ("cross_entropy", lambda: F.cross_entropy(LOGITS, CLASSES)),
        ("cross_entropy-smooth", lambda: F.cross_entropy(LOGITS, CLASSES, label_smoothing=0.1)),
        ("cross_entropy-soft", lambda: F.cross_entropy(LOGITS, SOFT)),
        ("cross_entropy-weighted",
         lambda: F.cross_entropy(LOGITS, CLASSES, CW, label_smoothing=0.1)),
        ("binary_cross_entropy", lambda: F.binary_cross_entropy_with_logits(
            VALUES, BITS.double() * 0.9 + 0.05, pos_weight=torch.tensor(2.0, dtype=torch.float64))),
        ("perceptron", lambda: torch.mean(
            LOGITS.amax(1) - LOGITS[torch.arange(B), CLASSES])),
    ],
)  # fmt: skip
def test_the_mean_is_torchs_mean(name, reference):
    outputs, target, options = CASES[name]
    total, count = call(name, outputs, target, **options)
    torch.testing.assert_close(total / count, reference())


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UnknownName, match="no loss is called 'mes'") as caught:
        losses.LOSSES.get("mes")
    assert "'mse'" in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_the_rows_does_not_matter(name):
    outputs, target, options = CASES[name]
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    a = call(name, outputs, target, W, **options)
    b = call(name, outputs[order], target[order], W[order], **options)
    torch.testing.assert_close(a[0], b[0])


def test_row_weights_are_a_weighted_mean_of_torchs_rows():
    rows = F.cross_entropy(LOGITS, CLASSES, CW, reduction="none")
    total, count = losses.cross_entropy(LOGITS, CLASSES, W, class_weights=CW)
    torch.testing.assert_close(total, (rows * W).sum())
    torch.testing.assert_close(count, (CW[CLASSES] * W).sum())


def test_soft_one_hot_targets_count_as_the_classes_do():
    hot = F.one_hot(CLASSES, K).double()
    a = losses.cross_entropy(LOGITS, CLASSES, W, class_weights=CW)
    b = losses.cross_entropy(LOGITS, hot, W, class_weights=CW)
    torch.testing.assert_close(a[0], b[0])
    torch.testing.assert_close(a[1], b[1])


def test_gaussian_nll_is_the_density_of_a_normal():
    outputs, target, _ = CASES["gaussian_nll"]
    std = losses.gaussian_std(outputs)
    normal = torch.distributions.Normal(outputs[:, :T], std)
    total, count = losses.gaussian_nll(outputs, target)
    torch.testing.assert_close(total / count, -normal.log_prob(target).mean())
    torch.testing.assert_close(std, F.softplus(outputs[:, T:]) + 1e-3)


def test_gaussian_nll_learns_mean_and_spread():
    generator = torch.Generator().manual_seed(0)
    y = 3.0 + 2.0 * torch.randn(2000, generator=generator)
    outputs = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        total, count = losses.gaussian_nll(outputs.expand(2000, 2), y)
        (total / count).backward()
        optimizer.step()
    assert outputs[0, 0].item() == pytest.approx(y.mean().item(), abs=0.02)
    assert losses.gaussian_std(outputs.detach()).item() == pytest.approx(y.std().item(), abs=0.02)


def test_extreme_values_stay_finite():
    big = torch.tensor([[1e4, -1e4]], requires_grad=True)
    for total, _ in (
        losses.cross_entropy(big, torch.tensor([1])),
        losses.binary_cross_entropy(big, torch.tensor([[0, 1]])),
        losses.gaussian_nll(big, torch.tensor([1.0])),
        losses.gaussian_nll(-big, torch.tensor([1.0])),
    ):
        (gradient,) = torch.autograd.grad(total, big)
        assert torch.isfinite(total)
        assert torch.isfinite(gradient).all()


def test_perceptron_gradient_is_rosenblatts_rule():
    x = torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]])
    target = torch.tensor([1, 0, 1])
    w = torch.tensor([[1.0, -1.0]], requires_grad=True)
    scores = x @ w.T  # -1 (mistake), 2 (mistake), 0 (a tie is a mistake)
    losses.perceptron(scores, target)[0].backward()
    torch.testing.assert_close(-w.grad, x[:1] - x[1:2] + x[2:])
    w.grad = None
    losses.perceptron(x @ -w.T, target)[0].backward()  # right, right, tie
    torch.testing.assert_close(w.grad, x[2:])  # the sign of w is turned


def test_perceptron_gradient_is_keslers_rule():
    x = torch.tensor([[1.0, 2.0]])
    w = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], requires_grad=True)  # scores 1, 2, 1.5
    losses.perceptron(x @ w.T, torch.tensor([2]))[0].backward()
    torch.testing.assert_close(-w.grad, torch.stack([0 * x[0], -x[0], x[0]]))
    w.grad = None
    losses.perceptron(x @ w.T, torch.tensor([1]))[0].backward()
    assert not w.grad.any()


@pytest.mark.parametrize("name", ["mse", "l1", "huber"])
def test_whole_number_targets_are_numbers(name):
    whole = TRUTH.round().long()
    expected, _ = call(name, VALUES, whole.double())
    free = VALUES.clone().requires_grad_()
    total, _ = call(name, free, whole)
    total.backward()
    torch.testing.assert_close(total.detach(), expected)


@pytest.mark.parametrize("name", ["mse", "l1", "huber"])
def test_a_column_of_outputs_meets_flat_targets(name):
    """(B, 1) against (B,) is B errors, not B x B."""
    flat = call(name, VALUES[:, 0], TRUTH[:, 0], W)
    column = call(name, VALUES[:, :1], TRUTH[:, 0], W)
    torch.testing.assert_close(flat[0], column[0])


@pytest.mark.parametrize(
    ("name", "outputs", "target"),
    [
        ("mse", VALUES, TRUTH[:, 0]),
        ("mse", VALUES.T, TRUTH),
        ("l1", VALUES, TRUTH[:, :2]),
        ("binary_cross_entropy", VALUES, BITS[:, 0]),
        ("gaussian_nll", VALUES, TRUTH),
        ("gaussian_nll", VALUES[:, 0], TRUTH[:, 0]),
    ],
)
def test_shapes_that_do_not_match_are_named(name, outputs, target):
    with pytest.raises(ModelError, match="outputs of shape"):
        call(name, outputs, target)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_outputs_are_close_to_double(name):
    outputs, target, options = CASES[name]
    small = outputs.bfloat16().requires_grad_()
    truth = target.float() if target.is_floating_point() else target
    total, _ = call(name, small, truth, W.float(), **options)
    (gradient,) = torch.autograd.grad(total, small)
    assert gradient.dtype == torch.bfloat16
    expected, _ = call(name, small.detach().double(), target, W, **options)
    torch.testing.assert_close(total.double(), expected, rtol=0.03, atol=0.03)


def test_class_weights_are_counted_in_full_precision() -> None:
    weights, half = torch.tensor([0.3, 1.7]), torch.randn(300, 2, generator=G).bfloat16()
    classes = torch.arange(300) % 2
    found = losses.cross_entropy(half, classes, class_weights=weights)
    expected = losses.cross_entropy(half.float(), classes, class_weights=weights)
    torch.testing.assert_close(found, expected)
