"""A budget's plan: wider with more time, never by anything but measured speed."""

from __future__ import annotations

import pytest
import torch

from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.schema import Signature
from gipi.train import budget

CPU = torch.device("cpu")


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that steps 40,000 pictures of 28x28 a second over the width of the first block.

    A quarter more where a step has many rows.
    """

    def pretend(
        signature: Signature, options: dict, recipe: Recipe, device: object, *, rows: int = 0
    ) -> float:
        side = options.get("side", max(signature.image[1:]))
        few = 40_000 * 16 / options["widths"][0] ** 1.2 * (28 / side) ** 2
        return 1.25 * few if rows > 32 else few

    monkeypatch.setattr(budget, "_rows_per_s", pretend)


def planned(seconds: float, image: tuple[int, int, int] = (1, 28, 28), rows: int = 50_000):
    """The plan for ten classes."""
    found = budget.plan(Signature(image=image, outputs=10), rows, seconds, Recipe(), device=CPU)
    assert found is not None
    return found


@pytest.mark.usefixtures("speeds")
def test_more_time_buys_a_wider_net_that_still_sees_the_rows_often_enough() -> None:
    """Widths grow with the budget; looks stay at or above the least wherever that is possible."""
    plans = [planned(s) for s in (10, 60, 300, 1200)]
    firsts = [p.options["widths"][0] for p in plans]
    assert firsts == sorted(firsts)
    assert firsts[0] < firsts[-1]
    for p, seconds in zip(plans[1:], (60, 300, 1200), strict=True):
        assert p.epochs * 50_000 >= budget.enough(50_000, seconds)
    sizes = [p.batch_size for p in plans]
    assert sizes == sorted(sizes)


@pytest.mark.usefixtures("speeds")
def test_passes_are_counted_at_the_speed_of_the_batch_that_will_be_used() -> None:
    """An optimizer step costs the same for few rows and many: few rows are no measure of a run."""
    found = planned(300)
    assert found.batch_size > 32
    few = 40_000 * 16 / found.options["widths"][0] ** 1.2
    assert found.epochs == pytest.approx(1.25 * few * 300 / 50_000)


@pytest.mark.usefixtures("speeds")
def test_too_little_time_takes_the_narrowest() -> None:
    """Where nothing sees the rows often enough, the fastest net is taken, and the plan says so."""
    found = planned(0.5)
    assert found.options["widths"][0] == budget.WIDTHS[0]
    assert found.epochs * 50_000 < budget.enough(50_000, 0.5)
    assert f"about {found.epochs:.1f} passes" in found.reason


@pytest.mark.usefixtures("speeds")
def test_large_pictures_are_made_smaller_where_time_is_short() -> None:
    """224 pixels with little time: a smaller side; with much time: as they are."""
    short = planned(60, (3, 224, 224), rows=20_000)
    assert short.options["side"] < 224
    long = planned(20_000, (3, 224, 224), rows=20_000)
    assert "side" not in long.options


def test_the_measured_net_is_the_one_that_is_built() -> None:
    """With the real clock: the options build a model that is fast enough to look at something."""
    found = planned(5, (3, 16, 16), rows=500)
    assert found.epochs > 0
    assert found.batch_size >= 32


@pytest.mark.usefixtures("speeds")
def test_few_pictures_are_looked_at_often() -> None:
    """The same time with a tenth of the pictures: the same net, ten times the passes."""
    many, few = planned(60, rows=50_000), planned(60, rows=5_000)
    assert few.options == many.options
    assert few.epochs == pytest.approx(10 * many.epochs)


def test_a_disturbed_measurement_does_not_count() -> None:
    """A narrow net that seemed slower than a wider one was disturbed: the wider one tells."""
    seen = [({"widths": (8,)}, 40.0), ({"widths": (16,)}, 900.0), ({"widths": (24,)}, 30.0)]
    assert budget._widest(seen, 500)[0] == {"widths": (16,)}
    assert budget._widest(seen, 2000) == ({"widths": (8,)}, 900.0)


@pytest.mark.parametrize(("side", "rows"), [(32, 32), (128, 32), (512, 2), (2048, 2)])
def test_large_pictures_are_measured_by_few(
    monkeypatch: pytest.MonkeyPatch, side: int, rows: int
) -> None:
    """32 pictures of 2048 pixels would take minutes of a budget of one."""
    seen = []

    class Stand:
        times = (1.0,)

        def __init__(self, *_: object) -> None: ...

        def feed(self, batch: Batch) -> None:
            seen.append(batch.rows)

        def turn(self) -> None: ...

    monkeypatch.setattr(budget, "Candidate", Stand)
    signature = Signature(image=(1, side, side), outputs=10)
    speed = budget._rows_per_s(signature, {"widths": (8, 16)}, Recipe(), CPU)
    assert seen == [rows] == [speed]
