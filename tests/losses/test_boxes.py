"""Losses of detectors against slow float64 sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from gipi import losses
from gipi.core.errors import ModelError
from gipi.losses import BACKGROUND, IGNORED

G = torch.Generator().manual_seed(0)
B, A, K = 5, 9, 3
LOGITS = 3 * torch.randn(B, A, K, generator=G, dtype=torch.float64)
CLASSES = torch.randint(-2, K, (B, A), generator=G)
W = torch.rand(B, generator=G, dtype=torch.float64)
START = torch.rand(B, A, 2, generator=G, dtype=torch.float64) * 9
BOXES = torch.cat([START, START + 5 * torch.rand(B, A, 2, generator=G, dtype=torch.float64)], -1)
TRUE = BOXES + 2 * torch.rand(B, A, 2, generator=G, dtype=torch.float64).repeat(1, 1, 2)
TRUE[..., 2:] += torch.rand(B, A, 2, generator=G, dtype=torch.float64)
SHARE = torch.rand(B, A, generator=G, dtype=torch.float64)
VALID = torch.rand(B, A, generator=G) < 0.6

CASES = {
    "focal": (LOGITS, CLASSES, {"alpha": 0.3, "gamma": 1.5}),
    "giou_loss": (BOXES, TRUE, {"valid": VALID}),
    "centerness": (LOGITS[..., 0], SHARE, {"valid": VALID}),
}


def call(name, outputs, target, weight=None, **options):
    return losses.LOSSES.get(name).build(outputs, target, weight, **options)


def rows(options, index):
    return {k: v[index] if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def slow_focal(alpha, gamma, weight):
    total = 0.0
    for b in range(B):
        for a in range(A):
            if CLASSES[b, a] == IGNORED:
                continue
            for k in range(K):
                p = 1 / (1 + math.exp(-float(LOGITS[b, a, k])))
                if k == CLASSES[b, a]:
                    loss = -alpha * (1 - p) ** gamma * math.log(p)
                else:
                    loss = -(1 - alpha) * p**gamma * math.log(1 - p)
                total += loss * float(weight[b])
    return total


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.9, 1.5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_is_the_slow_sum(alpha, gamma, weighted):
    weight = W if weighted else torch.ones(B)
    total, count = losses.focal(LOGITS, CLASSES, W if weighted else None, alpha=alpha, gamma=gamma)
    assert float(total) == pytest.approx(slow_focal(alpha, gamma, weight), rel=1e-10)
    assert float(count) == pytest.approx(float(((CLASSES >= 0).sum(1) * weight).sum()), rel=1e-6)


def test_focal_without_its_factors_is_half_the_cross_entropy():
    hot = F.one_hot(CLASSES.clamp_min(0), K).double() * (CLASSES >= 0)[..., None]
    plain = F.binary_cross_entropy_with_logits(LOGITS, hot, reduction="none")
    expected = (plain * (CLASSES != IGNORED)[..., None]).sum() / 2
    torch.testing.assert_close(losses.focal(LOGITS, CLASSES, alpha=0.5, gamma=0.0)[0], expected)


def test_focal_stays_finite_far_out():
    z = torch.tensor([[[1e4, -1e4]]], requires_grad=True)
    for target in (0, 1, BACKGROUND):
        total, _ = losses.focal(z, torch.tensor([[target]]))
        total.backward()
        assert math.isfinite(float(total.detach()))
    assert torch.isfinite(z.grad).all()
    easy = torch.tensor([[[40.0, -40.0]]])
    assert float(losses.focal(easy, torch.tensor([[0]]))[0]) < 1e-10


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_of_focal_stays_finite_far_out(gamma):
    far = torch.tensor([[[300.0, -300.0, 110.0, -110.0, 0.0]]], requires_grad=True)
    for kind in (BACKGROUND, 0, 1):
        total, _ = losses.focal(far, torch.tensor([[kind]]), gamma=gamma)
        (slope,) = torch.autograd.grad(total, far)
        assert slope.isfinite().all()
        assert slope[0, 0, 4] > 0


def test_giou_loss_is_the_slow_sum():
    total, count = losses.giou_loss(BOXES, TRUE, W, valid=VALID)
    expected = 0.0
    for b in range(B):
        for a in range(A):
            if VALID[b, a]:
                x, y = BOXES[b, a].tolist(), TRUE[b, a].tolist()
                w = max(0.0, min(x[2], y[2]) - max(x[0], y[0]))
                h = max(0.0, min(x[3], y[3]) - max(x[1], y[1]))
                union = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (x, y)) - w * h
                hull = (max(x[2], y[2]) - min(x[0], y[0])) * (max(x[3], y[3]) - min(x[1], y[1]))
                expected += float(W[b]) * (1 - w * h / union + (hull - union) / hull)
    assert float(total) == pytest.approx(expected, rel=1e-10)
    assert float(count) == pytest.approx(float((VALID.sum(1) * W).sum()))
    assert float(losses.giou_loss(BOXES, BOXES)[0]) == pytest.approx(0, abs=1e-12)


def test_centerness_is_torchs_cross_entropy_on_the_valid_places():
    total, count = losses.centerness(LOGITS[..., 0], SHARE, valid=VALID)
    expected = F.binary_cross_entropy_with_logits(
        LOGITS[..., 0][VALID], SHARE[VALID], reduction="sum"
    )
    torch.testing.assert_close(total, expected)
    assert float(count) == int(VALID.sum())


def test_the_centerness_of_the_middle_an_edge_and_the_outside():
    box = torch.tensor([0.0, 0.0, 8.0, 4.0]).expand(4, 4)
    places = torch.tensor([[4.0, 2.0], [0.0, 2.0], [9.0, 2.0], [2.0, 1.0]])
    expected = [1.0, 0.0, 0.0, math.sqrt(2 / 6 * 1 / 3)]
    assert losses.centerness_of(places, box).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_add_up_and_a_row_of_weight_two_is_two_rows(name):
    outputs, target, options = CASES[name]
    for weight in (None, W):
        total, count = call(name, outputs, target, weight, **options)
        parts = [
            call(name, outputs[s], target[s], None if weight is None else weight[s],
                 **rows(options, s))
            for s in (slice(0, 2), slice(2, 3), slice(3, B))
        ]  # fmt: skip
        torch.testing.assert_close(sum(p[0] for p in parts), total)
        assert float(sum(p[1] for p in parts)) == pytest.approx(float(count))
    twice = torch.ones(B, dtype=torch.float64)
    twice[2] = 2
    index = torch.tensor([*range(B), 2])
    a = call(name, outputs, target, twice, **options)
    b = call(name, outputs[index], target[index], **rows(options, index))
    torch.testing.assert_close(a[0], b[0])
    assert float(a[1]) == pytest.approx(float(b[1]))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_right(name):
    outputs, target, options = CASES[name]
    free = outputs.clone().requires_grad_()
    for weight in (None, W):
        assert torch.autograd.gradcheck(
            lambda o, w=weight: call(name, o, target, w, **options)[0], (free,)
        )


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_summed_in_float32_and_wrong_shapes_are_named(name):
    outputs, target, options = CASES[name]
    total, _ = call(name, outputs.bfloat16(), target, **options)
    assert total.dtype in (torch.float32, torch.float64)
    with pytest.raises(ModelError, match="one target for each place"):
        call(name, outputs, target[:, :-1], **options)
