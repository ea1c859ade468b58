"""The schedule has used up its learning rate long before the run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.doctor.finding import Finding, Repair
from gipi.doctor.probes import compared
from gipi.doctor.rates import paper_rates
from gipi.doctor.rule import Rule
from gipi.doctor.schedules import cosine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts

AREA = 0.2
"""Mean rate over the highest one: half of it is a cosine, a hundredth is hardly a run."""
GONE = 0.02
"""Share of the highest rate below which steps do next to nothing."""
MISSED = 0.1


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a schedule whose mean rate is far below its highest, and is gone in half the run."""
    rates = paper_rates(facts.exp) if facts.exp.scheduler is not None else None
    if not rates or len(rates) < 10 or max(rates) <= 0:
        return
    top, total = max(rates), len(rates)
    area = sum(rates) / total / top
    peak = rates.index(top)
    gone = next((i for i in range(peak, total) if rates[i] < GONE * top), total)
    if area >= AREA or gone > 0.6 * total or max(rates[gone:]) > 10 * GONE * top:
        return
    yield Finding(
        "lr_decay_too_fast",
        f"the schedule falls below {GONE:.0%} of its highest rate ({top:.3g}) at step {gone} of "
        f"{total}; its mean is {area:.1%} of it",
        "stretch the schedule over the whole run, such as half a cosine; check whether it is meant "
        "to step once an epoch and not once a batch",
        evidence={"highest": top, "area": area, "gone_at": gone, "steps": total,
                  "rates": rates[:: max(1, total // 32)]},
        strength=AREA / area,
        repairs=(
            Repair("cosine over the whole run", cosine(top), setting="schedule",
                   edit=f"torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {total}), "
                   "stepped after every batch"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train until the schedule's rate is used up, and as long with a schedule of full length."""
    exp = facts.exp
    total, gone = exp.total_steps, int(finding.evidence["gone_at"])
    steps = min(total, max(30, min(160, max(round(0.3 * total), 2 * gone))))
    change = finding.repairs[0].change
    trial = compared(exp, {"own": None, "stretched": change}, steps=steps)
    facts.passes += 2 * steps
    if trial.missed("own", "stretched") < MISSED or not trial.sure("own", "stretched"):
        return None
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_as_is": trial.end("own"),
                  "loss_stretched": trial.end("stretched")},
    )  # fmt: skip


RULE = Rule(
    code="lr_decay_too_fast",
    title="the learning rate decays too fast",
    looks="the loss falls at first and then stands still, though the net could learn more",
    why="how far weights can go is the sum of all rates; a schedule that is used up in a tenth of "
    "the run makes the other nine tenths idle",
    do="let the schedule end where the run ends; step it as often as it was made for",
    source="Loshchilov and Hutter 2017, arXiv:1608.03983; Li et al. 2020, arXiv:1905.04753",
    before=before,
    confirm=confirm,
    passes=120,
    causes=("lr_too_low", "plateau", "underfit"),
)
