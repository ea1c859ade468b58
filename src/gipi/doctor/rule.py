"""A rule: one training problem, how it is suspected, shown and repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gipi.doctor.trace import CHECKS

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Finding
    from gipi.doctor.trace import Trace

Before = Callable[["Facts"], Iterator["Finding"]]
During = Callable[["Facts", "Trace"], Iterator["Finding"]]
Confirm = Callable[["Facts", "Finding"], "Finding | None"]
Cost = Callable[["Facts", "Finding"], int]
Weak = Callable[["Finding"], bool]
Outgrown = Callable[["Facts", "Trace", "Finding"], bool]

EXACT = 100.0
"""Strength of a finding that is an error in the code, whatever the numbers say."""
DYNAMICS = ("underfit", "plateau", "vanishing_gradient", "exploding_gradient", "dead_relu",
            "saturated_activation", "oscillating_loss", "lr_too_low", "lr_too_high", "nan_inf",
            "overfit", "weight_decay_too_high")  # fmt: skip
"""What a run shows when something in it is joined wrongly."""


@dataclass(frozen=True)
class Rule:
    """One problem of the catalogue.

    code     its public name
    title    what it is, in a few words
    looks    what a person sees of it
    why      why it is a problem
    do       what to do about it
    source   who described it
    before   looks before the first step: `Finding`s with ``phase="before"``
    during   looks at what a run left in its trace, at a tenth, a quarter, a half and the end
    confirm  the counter-experiment: the finding with ``confirmed=True``, or another severity;
             None where it was a false alarm. Rules whose look is exact have none and set
             ``confirmed`` themselves.
    passes   forward and backward passes that `confirm` costs, about: the most of any run
    cost     the same for one run, where that is known before; default: `passes`
    causes   codes of the problems that this one brings about
    weak     whether a suspicion says nothing by itself: where its counter-experiment cannot be
             made it is dropped, not turned into a hint; default: none is
    outgrown whether the end of a run refutes what was found in its course: it went on, and did
             what it was said not to do
    """

    code: str
    title: str
    looks: str
    why: str
    do: str
    source: str
    before: Before | None = None
    during: During | None = None
    confirm: Confirm | None = None
    passes: int = 0
    cost: Cost | None = None
    causes: tuple[str, ...] = ()
    weak: Weak | None = None
    outgrown: Outgrown | None = None

    @property
    def seen(self) -> str:
        """Return when the rule looks, in two words: "before", "during", or both."""
        looks = {"before": self.before, "during": self.during}
        return ", ".join(name for name, look in looks.items() if look is not None)

    @property
    def when(self) -> str:
        """Return when the rule looks, in words."""
        words = {"before": "before the first step", "during": f"after {_spoken(CHECKS)} of a run"}
        return " and ".join(words[name] for name in self.seen.split(", "))


def _spoken(shares: tuple[float, ...]) -> str:
    """Return shares of a run as people say them: "10 %, 25 %, 50 % and all"."""
    *first, last = ["all" if s == 1 else f"{s:.0%}".replace("%", " %") for s in shares]
    return f"{', '.join(first)} and {last}"
