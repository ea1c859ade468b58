"""Losses of masks against a slow reference in float64, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from gipi import losses
from gipi.core.errors import ModelError

B, K, H, W = 5, 4, 6, 7
G = torch.Generator().manual_seed(3)
LOGITS = torch.randn(B, K, H, W, generator=G, dtype=torch.float64)
TARGET = torch.randint(0, K, (B, H, W), generator=G).to(torch.uint8)
TARGET[torch.rand(B, H, W, generator=G) < 0.2] = 255
ROWS = torch.rand(B, generator=G, dtype=torch.float64)
ROWS[2] = 0.0
CLASSES = torch.rand(K, generator=G, dtype=torch.float64) + 0.1


def pixels(weight=None):
    """Yield (log probabilities, class, row weight) of every pixel that counts."""
    for b in range(B):
        for i in range(H):
            for j in range(W):
                t = int(TARGET[b, i, j])
                if t == 255:
                    continue
                z = LOGITS[b, :, i, j]
                log_p = [float(v - z.exp().sum().log()) for v in z]
                yield log_p, t, 1.0 if weight is None else float(weight[b])


def slow_cross_entropy(weight=None, classes=None, smoothing=0.0):
    total = count = 0.0
    for log_p, t, w in pixels(weight):
        c = [1.0] * K if classes is None else classes.tolist()
        value = -(1 - smoothing) * c[t] * log_p[t]
        value -= smoothing / K * sum(ck * lk for ck, lk in zip(c, log_p, strict=True))
        total += w * value
        count += w * c[t]
    return total, count


def slow_focal(weight=None, gamma=2.0, classes=None):
    total = count = 0.0
    for log_p, t, w in pixels(weight):
        alpha = 1.0 if classes is None else float(classes[t])
        total -= w * alpha * (1 - math.exp(log_p[t])) ** gamma * log_p[t]
        count += w
    return total, count


def slow_dice(weight=None, *, squared=False, generalised=False):
    both, below, size, count = [0.0] * K, [0.0] * K, [0.0] * K, 0.0
    for log_p, t, w in pixels(weight):
        for k in range(K):
            p, g = math.exp(log_p[k]), float(k == t)
            both[k] += w * p * g
            below[k] += w * ((p * p if squared else p) + g)
            size[k] += w * g
        count += w
    seen = [k for k in range(K) if size[k] > 0]
    if generalised:
        above = sum(both[k] / size[k] ** 2 for k in seen)
        value = 1 - 2 * above / sum(below[k] / size[k] ** 2 for k in seen)
    else:
        value = sum(1 - 2 * both[k] / below[k] for k in seen) / len(seen)
    return value * count, count


def close(found, wanted):
    assert float(found[0]) == pytest.approx(wanted[0], rel=1e-9)
    assert float(found[1]) == pytest.approx(wanted[1], rel=1e-6)


@pytest.mark.parametrize("weight", [None, ROWS])
@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_slow_one(weight, classes, smoothing):
    found = losses.pixel_cross_entropy(
        LOGITS, TARGET, weight, class_weights=classes, label_smoothing=smoothing
    )
    close(found, slow_cross_entropy(weight, classes, smoothing))


@pytest.mark.parametrize("weight", [None, ROWS])
@pytest.mark.parametrize(("gamma", "classes"), [(0.0, None), (2.0, CLASSES), (0.5, None)])
def test_focal_is_the_slow_one(weight, gamma, classes):
    found = losses.pixel_focal(LOGITS, TARGET, weight, gamma=gamma, class_weights=classes)
    close(found, slow_focal(weight, gamma, classes))


@pytest.mark.parametrize("weight", [None, ROWS])
@pytest.mark.parametrize("form", [{}, {"squared": True}, {"generalised": True}])
def test_dice_is_the_slow_one(weight, form):
    close(losses.dice(LOGITS, TARGET, weight, **form), slow_dice(weight, **form))


@pytest.mark.parametrize("weight", [None, ROWS])
def test_both_together_are_their_sum(weight):
    total, count = losses.ce_dice(LOGITS, TARGET, weight, dice_weight=0.5, label_smoothing=0.1)
    ce, n = slow_cross_entropy(weight, None, 0.1)
    close((total, count), (ce + 0.5 * slow_dice(weight)[0], n))


CALLS = {
    "ce": lambda z, w: losses.pixel_cross_entropy(z, TARGET, w, class_weights=CLASSES),
    "focal": lambda z, w: losses.pixel_focal(z, TARGET, w, gamma=0.5),
    "dice": lambda z, w: losses.dice(z, TARGET, w),
    "squared": lambda z, w: losses.dice(z, TARGET, w, squared=True),
    "generalised": lambda z, w: losses.dice(z, TARGET, w, generalised=True),
    "ce+dice": lambda z, w: losses.ce_dice(z, TARGET, w),
}


@pytest.mark.parametrize("weight", [None, ROWS], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_those_of_differences(name, weight):
    z = LOGITS.clone().requires_grad_()
    total, count = CALLS[name](z, weight)
    (slope,) = torch.autograd.grad(total / count, z)
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        way = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        ends = [CALLS[name](LOGITS + h * way, weight) for h in (1e-5, -1e-5)]
        rise = float(ends[0][0] / ends[0][1] - ends[1][0] / ends[1][1]) / 2e-5
        assert float((slope * way).sum()) == pytest.approx(rise, rel=1e-5, abs=1e-9)
    gone = (TARGET == 255).unsqueeze(1).expand_as(slope)
    assert float(slope[gone].abs().max()) == 0.0
    if weight is not None:
        assert float(slope[2].abs().max()) == 0.0


@pytest.mark.parametrize("name", ["ce", "focal"])
def test_pieces_of_a_batch_add_up(name):
    call = {"ce": losses.pixel_cross_entropy, "focal": losses.pixel_focal}[name]
    whole = call(LOGITS, TARGET, ROWS)
    parts = [call(LOGITS[s], TARGET[s], ROWS[s]) for s in (slice(0, 2), slice(2, 3), slice(3, B))]
    close((sum(p[0] for p in parts), sum(p[1] for p in parts)), [float(v) for v in whole])


def test_pieces_of_a_batch_do_not_add_up_for_dice():
    whole = losses.dice(LOGITS, TARGET)
    parts = [losses.dice(LOGITS[s], TARGET[s]) for s in (slice(0, 2), slice(2, B))]
    assert abs(float(whole[0]) - float(sum(p[0] for p in parts))) > 1e-3


@pytest.mark.parametrize("name", CALLS)
def test_a_batch_that_nobody_labelled_has_no_loss_and_no_gradient(name, monkeypatch):
    monkeypatch.setitem(globals(), "TARGET", torch.full_like(TARGET, 255))
    z = LOGITS.clone().requires_grad_()
    total, count = CALLS[name](z, None)
    assert float(total.detach()) == float(count) == 0.0
    (slope,) = torch.autograd.grad(total, z)
    assert float(slope.abs().max()) == 0.0


def test_a_perfect_answer_has_no_loss_and_stays_finite():
    target = TARGET.long().masked_fill(TARGET == 255, 0)
    z = (torch.nn.functional.one_hot(target, K).permute(0, 3, 1, 2) * 200.0).requires_grad_()
    for call in (losses.pixel_cross_entropy, losses.pixel_focal, losses.dice, losses.ce_dice):
        total, count = call(z, target)
        assert float(total.detach() / count) == pytest.approx(0.0, abs=1e-6)
        (slope,) = torch.autograd.grad(total, z)
        assert bool(slope.isfinite().all())


def test_half_precision_is_computed_in_full():
    exact = losses.ce_dice(LOGITS.float(), TARGET)
    half = losses.ce_dice(LOGITS.bfloat16(), TARGET)
    assert half[0].dtype is torch.float32
    assert float(half[0]) == pytest.approx(float(exact[0]), rel=0.01)


@pytest.mark.parametrize(
    "target",
    [TARGET[:, :-1], TARGET[:-1], TARGET.float(), torch.zeros(B, dtype=torch.long)],
    ids=["height", "rows", "floats", "classes"],
)
def test_masks_of_another_form_are_named(target):
    with pytest.raises(ModelError, match="same height and width"):
        losses.pixel_cross_entropy(LOGITS, target)
