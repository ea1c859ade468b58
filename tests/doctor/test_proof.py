"""The proof of a repair seldom takes chance for a gain, however its differences are spread."""

from __future__ import annotations

import math

import pytest
import torch

from gipi.doctor.proof import BETTER_SE, WON_SE, Proof, _low

SPREADS = {
    "normal": lambda z: z,
    "a few large gains": lambda z: z.exp() - math.exp(0.5),
    "few and large": lambda z: z**3,
}


def proof_of(values: torch.Tensor) -> Proof:
    n = len(values)
    se, won = float(values.std()) / n**0.5, (int((values > 0).sum()) - n / 2) / (n / 4) ** 0.5
    return Proof(0.0, 1.0, float(values.mean()), se, won, _low(values))


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("parts", [4, 12, 20])
def test_the_bound_by_samples_hardly_adds_repairs_that_gained_by_chance(
    parts: int, spread: str
) -> None:
    draw = torch.Generator().manual_seed(0)
    plain = kept = 0
    for _ in range(150):
        values = SPREADS[spread](torch.randn(parts, generator=draw, dtype=torch.float64))
        proof = proof_of(values)
        sure = proof.gain > BETTER_SE * proof.se or proof.won >= WON_SE
        plain += proof.gain > 0 and sure
        kept += proof.holds("better")
    assert kept - plain <= 0.04 * 150


def test_a_mean_that_a_few_rows_make_wild_is_judged_by_samples() -> None:
    values = torch.tensor([0.5] * 17 + [9.0, 40.0, 260.0], dtype=torch.float64)
    proof = proof_of(values)
    assert proof.gain < BETTER_SE * proof.se
    assert proof.low > 0
    assert proof.holds("better")


def test_from_what_is_no_number_nothing_is_subtracted() -> None:
    assert str(Proof(math.nan, -0.062, math.nan, math.nan)) == "nan -> -0.062"
    assert str(Proof(0.5, 0.75, 0.25, 0.1)) == "0.5 -> 0.75 (+0.25, standard error 0.1)"
