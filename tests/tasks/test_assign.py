"""Which place learns which box: cases that can be checked by hand, and slow loops."""

from __future__ import annotations

import math

import pytest
import torch

from gipi.core.boxes import iou
from gipi.losses import BACKGROUND, IGNORED
from gipi.nn.grids import Level, anchors, levels_of, locations
from gipi.tasks import assign
from gipi.tasks.assign import assign_anchors, assign_places

LEVELS = (Level(8, 4, 4), Level(16, 2, 2))  # of a picture of 32 x 32
PLACES = locations(LEVELS)


def target(*rows, most=4):
    """One picture with boxes (x0, y0, x1, y1, class, crowd)."""
    out = torch.zeros(1, most, 6)
    out[..., 4] = -1
    for i, row in enumerate(rows):
        out[0, i] = torch.tensor(row, dtype=torch.float32)
    return out


def classes(found, level):
    """The classes (rows, columns) at the places of one level."""
    start = sum(lv.places for lv in LEVELS[:level])
    part = found.classes[0, start : start + LEVELS[level].places]
    return part.view(LEVELS[level].rows, LEVELS[level].columns).tolist()


def test_the_middle_of_a_box_answers_for_it():
    # The middle is (12, 12); the places of the finest level stand at 4, 12, 20 and 28.
    found = assign_places(target([2, 2, 22, 22, 1, 0]), PLACES, LEVELS, radius=0.9)
    assert classes(found, 0) == [[-1, -1, -1, -1], [-1, 1, -1, -1], [-1] * 4, [-1] * 4]
    assert classes(found, 1) == [[-1, -1], [-1, -1]]
    assert found.boxes[0, 5].tolist() == [2, 2, 22, 22]
    assert not found.boxes[0, :5].any()
    wider = assign_places(target([2, 2, 22, 22, 1, 0]), PLACES, LEVELS, radius=1.5)
    assert classes(wider, 0) == [[1, 1, 1, -1]] * 3 + [[-1] * 4]


def test_large_boxes_go_to_coarse_levels():
    box = [0, 0, 32, 32, 0, 0]
    for reach, fine, coarse in ((8, True, False), (2.0, False, True), (2.6, True, True)):
        found = assign_places(target(box), PLACES, LEVELS, radius=9, reach=reach)
        assert any(0 in row for row in classes(found, 0)) is fine, reach
        assert any(0 in row for row in classes(found, 1)) is coarse, reach
    # The farthest side of a place at (12, 12) is 20 pixels away, of one at (4, 4) 28.
    found = assign_places(target(box), PLACES, LEVELS, radius=9, reach=2.6)
    assert classes(found, 0) == [[-1] * 4, [-1, 0, 0, -1], [-1, 0, 0, -1], [-1] * 4]
    assert classes(found, 1) == [[0, 0], [0, 0]]


def test_the_smallest_of_several_boxes_is_learnt_and_the_first_of_equals():
    large, small, twin = [0, 0, 24, 24, 0, 0], [8, 8, 16, 16, 1, 0], [8, 8, 16, 16, 2, 0]
    found = assign_places(target(large, small, twin), PLACES, LEVELS)
    assert classes(found, 0)[1][1] == 1
    assert classes(found, 0)[0][0] == 0
    swapped = assign_places(target(twin, small, large), PLACES, LEVELS)
    assert classes(swapped, 0)[1][1] == 2


def test_a_crowd_is_not_learnt_and_its_places_take_no_part():
    found = assign_places(target([0, 0, 16, 16, 1, 1], [8, 8, 16, 16, 0, 0]), PLACES, LEVELS)
    assert classes(found, 0) == [[IGNORED, IGNORED, -1, -1], [IGNORED, 0, -1, -1], [-1] * 4,
                                 [-1] * 4]  # fmt: skip
    assert classes(found, 1) == [[IGNORED, -1], [-1, -1]]


def test_a_thin_box_between_the_rows_of_its_level_is_learnt_where_it_has_a_place():
    # Its farthest side asks for stride 16, whose rows stand at 8 and 24; y = 12 is of stride 8.
    thin = [1, 10, 31, 15, 2, 0]
    found = assign_places(target(thin, [0, 18, 12, 30, 1, 0]), PLACES, LEVELS, reach=2.0)
    assert classes(found, 0) == [[-1] * 4, [-1, 2, 2, -1], [1, -1, -1, -1], [1, -1, -1, -1]]
    assert (found.classes == 2).sum() == 2
    assert found.boxes[0, 5].tolist() == thin[:4]
    hidden = assign_places(target([1, 10, 31, 15, 2, 1]), PLACES, LEVELS, reach=2.0)
    assert (hidden.classes < 0).all()  # a crowd is not learnt by this way either


def test_every_box_in_which_a_place_of_the_finest_level_lies_is_learnt():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        start = 24 * torch.rand(2, generator=generator)
        size = 1 + 30 * torch.rand(2, generator=generator)
        box = torch.cat([start, (start + size).clamp_max(32)])
        found = assign_places(target([*box.tolist(), 0, 0]), PLACES, LEVELS, reach=1.5)
        inside = ((PLACES[:, :2] > box[:2]) & (PLACES[:, :2] < box[2:])).all(1)
        fine = inside & (PLACES[:, 2] == 8)
        assert (found.classes == 0).any() or not fine.any()
        assert not (found.classes[0] == 0)[~inside].any()


def test_a_box_between_all_places_is_not_learnt():
    found = assign_places(target([5, 5, 11, 11, 0, 0]), PLACES, LEVELS)
    assert (found.classes == BACKGROUND).all()  # the coarse place (8, 8) is not for small boxes


def test_no_boxes_at_all():
    for empty in (target(), torch.zeros(2, 0, 6)):
        found = assign_places(empty, PLACES, LEVELS)
        assert (found.classes == BACKGROUND).all()
        assert found.boxes.shape == (len(empty), 20, 4)
        assert (assign_anchors(empty, anchors(LEVELS)).classes == BACKGROUND).all()


def fuzz(seed, pictures=3, most=6):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(pictures, most, 2, generator=generator) * 50
    size = 3 + 45 * torch.rand(pictures, most, 2, generator=generator) ** 2
    rest = torch.stack([torch.randint(-1, 3, (pictures, most), generator=generator),
                        torch.rand(pictures, most, generator=generator) < 0.2], -1)  # fmt: skip
    return torch.cat([start, start + size, rest], -1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pairs", [1, 1 << 24])
def test_places_against_a_slow_loop(seed, pairs, monkeypatch):
    monkeypatch.setattr(assign, "PAIRS", pairs)
    levels = levels_of(64 + 16 + 4, 64, 64)
    places, boxes = locations(levels), fuzz(seed)
    radius, reach = 1.5, 2.5
    found = assign_places(boxes, places, levels, radius=radius, reach=reach)
    for b, rows in enumerate(boxes.tolist()):
        chosen, covered = {}, set()  # place -> boxes that it may answer for
        for row in rows:
            x0, y0, x1, y1, kind, crowd = row
            fits, near = [], []
            for a, (x, y, stride) in enumerate(places.tolist()):
                least = 0 if stride == 8 else stride / 2 * reach
                most = math.inf if stride == 32 else stride * reach
                sides = (x - x0, y - y0, x1 - x, y1 - y)
                if kind < 0 or min(sides) <= 0:
                    continue
                if crowd:
                    covered.add(a)
                    continue
                off = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
                if max(sides) > least:
                    near.append((off, a))
                    if off < radius * stride and max(sides) <= most:
                        fits.append(a)
            for a in fits or [a for off, a in near if off == min(near)[0]]:
                chosen.setdefault(a, []).append(row)
        for a in range(len(places)):
            own = chosen.get(a)
            best = min(own, key=lambda r: (r[2] - r[0]) * (r[3] - r[1])) if own else None
            covers = a in covered
            expected = best[4] if best else IGNORED if covers else BACKGROUND
            assert found.classes[b, a] == expected
            if best:
                torch.testing.assert_close(found.boxes[b, a], torch.tensor(best[:4]))


@pytest.mark.parametrize("seed", range(6))
def test_anchors_against_a_slow_loop(seed):
    levels = levels_of(64 + 16, 64, 64)
    boxes, anchor = fuzz(seed), anchors(levels_of(64 + 16, 64, 64))
    assert len(anchor) == 9 * sum(level.places for level in levels)
    found = assign_anchors(boxes, anchor)
    for b, rows in enumerate(boxes):
        real = [i for i, row in enumerate(rows) if row[4] >= 0 and row[5] == 0]
        crowds = [i for i, row in enumerate(rows) if row[4] >= 0 and row[5] != 0]
        overlap = iou(anchor, rows[:, :4])
        for a in range(len(anchor)):
            values = {i: float(overlap[a, i]) for i in real}
            own = {i: v for i, v in values.items() if v > 0 and v == float(overlap[:, i].max())}
            best = max(own or values, key=lambda i: (own or values)[i], default=None)
            value = values.get(best, 0.0)
            x0, y0, x1, y1 = anchor[a].tolist()
            inside = [
                max(0.0, min(x1, float(rows[i, 2])) - max(x0, float(rows[i, 0])))
                * max(0.0, min(y1, float(rows[i, 3])) - max(y0, float(rows[i, 1])))
                / ((x1 - x0) * (y1 - y0))
                for i in crowds
            ]
            if own or value >= 0.5:
                expected = int(rows[best, 4])
            elif value >= 0.4 or max(inside, default=0) >= 0.5:
                expected = IGNORED
            else:
                expected = BACKGROUND
            assert found.classes[b, a] == expected
        for i in real:
            assert (found.boxes[b] == rows[i, :4]).all(1).any()  # nobody is lost


def test_every_box_larger_than_the_finest_stride_has_a_place():
    generator = torch.Generator().manual_seed(0)
    levels = levels_of(64 + 16 + 4, 64, 64)
    for _ in range(50):
        size = 8.5 + 30 * torch.rand(2, generator=generator)
        start = (64 - size) * torch.rand(2, generator=generator)
        box = torch.cat([start, start + size, torch.zeros(2)]).view(1, 1, 6)
        assert (assign_places(box, locations(levels), levels).classes == 0).any()
