"""Boxes against a slow float64 calculation, one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi.core.boxes import (
    FORMS,
    box_area,
    clip_boxes,
    convert_boxes,
    giou,
    iou,
    paired_giou,
    paired_iou,
    share_inside,
)
from gipi.core.errors import ConfigError

G = torch.Generator().manual_seed(0)


def boxes(n, dtype=torch.float64):
    """Some random boxes, some on a coarse grid (ties, touching edges), some of area 0."""
    start = torch.rand(n, 2, generator=G, dtype=torch.float64) * 20
    found = torch.cat([start, start + 12 * torch.rand(n, 2, generator=G, dtype=torch.float64)], 1)
    found[::3] = found[::3].round()
    found[::7, 2] = found[::7, 0]
    found[::11, 2:] = found[::11, :2]
    return found.to(dtype)


def slow(a, b):
    """(IoU, GIoU, share of a inside b) of two boxes."""
    ax0, ay0, ax1, ay1 = map(float, a)
    bx0, by0, bx1, by1 = map(float, b)
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    area_a, area_b = (ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0)
    union = area_a + area_b - shared
    around = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    value = shared / union if union else 0.0
    return (
        value,
        value - ((around - union) / around if around else 0.0),
        (shared / area_a if area_a else 0.0),
    )


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_overlaps_are_those_of_the_slow_calculation(dtype, tol):
    a, b = boxes(40, dtype), boxes(33, dtype)
    expected = np.array([[slow(x, y) for y in b.tolist()] for x in a.tolist()])
    for i, function in enumerate((iou, giou, share_inside)):
        np.testing.assert_allclose(function(a, b).numpy(), expected[..., i], atol=tol)
    np.testing.assert_allclose(paired_iou(a[:33], b).numpy(), expected[range(33), range(33), 0],
                               atol=tol)  # fmt: skip
    np.testing.assert_allclose(paired_giou(a[:33], b).numpy(), expected[range(33), range(33), 1],
                               atol=tol)  # fmt: skip


def test_overlaps_take_axes_in_front_and_none_at_all():
    a, b = boxes(24).view(2, 3, 4, 4), boxes(30).view(2, 3, 5, 4)
    assert iou(a, b).shape == (2, 3, 4, 5)
    torch.testing.assert_close(iou(a, b)[1, 2], iou(a[1, 2], b[1, 2]))
    assert iou(boxes(0), boxes(3)).shape == (0, 3)


def test_giou_goes_from_minus_one_to_one():
    unit = torch.tensor([0.0, 0.0, 1.0, 1.0])
    far = torch.tensor([999.0, 999.0, 1000.0, 1000.0])
    assert float(paired_giou(unit, unit)) == 1.0
    assert float(paired_giou(unit, far)) == pytest.approx(2 / 1e6 - 1, abs=1e-6)


def test_half_precision_is_widened():
    a = torch.tensor([[0.0, 0.0, 400.0, 300.0]], dtype=torch.float16)  # its area is no float16
    assert float(iou(a, a)) == 1.0


def test_gradients_exist_everywhere():
    a = boxes(60).requires_grad_()
    paired_giou(a, boxes(60)).sum().backward()
    assert torch.isfinite(a.grad).all()
    one = torch.tensor([[1.0, 2.0, 5.0, 7.0]], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([[2.0, 1.0, 6.0, 6.5]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: paired_giou(x, other), (one,))


def test_areas_and_edges():
    found = torch.tensor([[1.0, 2.0, 4.0, 6.0], [4.0, 2.0, 1.0, 6.0], [-5.0, -1.0, 50.0, 9.0]])
    assert box_area(found).tolist() == [12.0, 0.0, 550.0]
    assert clip_boxes(found, height=8, width=10)[2].tolist() == [0.0, 0.0, 10.0, 8.0]
    assert clip_boxes(found.view(1, 3, 4), height=8, width=10).shape == (1, 3, 4)


@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("to", FORMS)
def test_forms_come_back(source, to):
    one = torch.tensor([[1.0, 2.0, 4.0, 6.0]])
    known = {"xyxy": [1, 2, 4, 6], "xywh": [1, 2, 3, 4], "cxcywh": [2.5, 4, 3, 4]}
    given = convert_boxes(one, source="xyxy", to=source)
    assert given.tolist() == [known[source]]
    assert convert_boxes(given, source=source, to=to).tolist() == [known[to]]


def test_an_unknown_form_is_named():
    with pytest.raises(ConfigError, match="'xyxyx'.*\n.*\n.*'xyxy'"):
        convert_boxes(boxes(1), source="xyxyx", to="xyxy")
