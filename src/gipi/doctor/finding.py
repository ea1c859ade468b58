"""What the doctor says: findings, and the repairs that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

Severity = Literal["problem", "hint"]
Mode = Literal["auto", "ask", "advise"]
Proof = Literal["better", "not worse", "exact"]
Change = Callable[["Experiment"], str]
Restored = Callable[["Experiment", "Experiment"], tuple[bool, str]]
"""Asked of the treated and the untreated run: whether what was harmed is restored, with figures."""


SHOWN, WIDE = 4, 72
"""Names of modules or columns, and characters of a message, that stand in one line."""


@dataclass(frozen=True)
class Measure:
    """What a repair is judged by where the loss as asked may rightly get worse.

    name  for people; of: (outputs, targets) -> score, more is better
    """

    name: str
    of: Callable[[Any, Any], float]


@dataclass(frozen=True)
class Repair:
    """One change that may cure a finding.

    name    a few words, such as "lr / 10"
    change  alters a *copy* of the experiment in place and says what it did; raises `CannotRepair`
    mode    "auto": the doctor may do it; "ask": proposed, needs a yes; "advise": only told
    proof   what must hold for it to be kept: validation "better" by more than its noise,
            "not worse" by more than it, or "exact": its rule is asked again and does not find the
            fault any more, whatever the score says
    edit    the exact edit that a person would make in his own code
    measure what the proof goes by; None: the metric, or the loss as asked
    setting the key of a `gipi train` configuration that the change comes to, "lr" or "model.init";
            empty where no key says it
    """

    name: str
    change: Change | None
    mode: Mode = "auto"
    proof: Proof = "better"
    edit: str = ""
    measure: Measure | None = None
    setting: str = ""


class CannotRepair(Exception):  # noqa: N818  read where it is raised, never seen by users
    """A repair does not fit this experiment; the next one is tried."""


@dataclass(frozen=True, repr=False)
class Finding:
    """One thing that is wrong, or looks as if it were.

    code       the name in the catalogue
    severity   "problem": it hurts, or will; "hint": worth a look, or brought about by a problem
    message    what was found, with its numbers, for people
    advice     what to do
    where      names of modules, parameters, columns
    rows       numbers of training rows
    evidence   numbers and short lists, fit for JSON
    confirmed  a counter-experiment or an exact test showed it
    phase      "before" the first step, during "steps", or after an "epoch"
    step       when it was first suspected
    strength   how far beyond the threshold, 1 is at it: orders findings of equal rank
    parents    codes of the findings that cause this one
    repairs    in the order in which they are tried
    restored   asks a treated run for what the finding harmed, where its score does not show that
    """

    code: str
    message: str
    advice: str
    severity: Severity = "problem"
    where: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    confirmed: bool = False
    phase: Literal["before", "steps", "epoch"] = "before"
    step: int = 0
    strength: float = 1.0
    parents: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()
    restored: Restored | None = None

    def __str__(self) -> str:
        by = f" (brought about by {', '.join(self.parents)})" if self.parents else ""
        lines = [f"{self.severity}: {self.code}{by}: {self.message}"]
        if self.where and not any(name in self.message for name in self.where):
            more = ", ..." if len(self.where) > SHOWN else ""
            lines.append(f"  in: {', '.join(self.where[:SHOWN])}{more}")
        return "\n".join([*lines, f"  do: {self.advice}"])

    def __repr__(self) -> str:
        sure = "confirmed" if self.confirmed else "suspected"
        return f"<Finding {self.code}: {self.severity}, {sure}; {shortened(self.message)}>"

    @property
    def repair(self) -> Repair | None:
        """The first repair, or None where only a person can help."""
        return self.repairs[0] if self.repairs else None

    def but(
        self,
        *,
        severity: Severity | None = None,
        confirmed: bool | None = None,
        message: str | None = None,
        where: tuple[str, ...] | None = None,
        rows: tuple[int, ...] | None = None,
        evidence: Mapping[str, Any] | None = None,
        step: int | None = None,
        parents: tuple[str, ...] | None = None,
        repairs: tuple[Repair, ...] | None = None,
        restored: Restored | None = None,
    ) -> Finding:
        """Return the finding with some fields changed; None leaves a field as it is."""
        asked: dict[str, Any] = {
            "severity": severity, "confirmed": confirmed, "message": message, "where": where,
            "rows": rows, "evidence": evidence, "step": step, "parents": parents,
            "repairs": repairs, "restored": restored,
        }  # fmt: skip
        return replace(self, **{k: v for k, v in asked.items() if v is not None})

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Finding:
        """Return what `as_dict` said, without its repairs: those were functions."""
        known = ("code", "severity", "confirmed", "message", "advice", "evidence", "phase", "step")
        values: dict[str, Any] = {k: found[k] for k in known if k in found}
        values |= {k: tuple(found.get(k, ())) for k in ("where", "rows", "parents")}
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return what `findings.json` holds."""
        return {
            "code": self.code, "severity": self.severity, "confirmed": self.confirmed,
            "message": self.message, "advice": self.advice, "where": list(self.where),
            "rows": list(self.rows), "evidence": dict(self.evidence), "phase": self.phase,
            "step": self.step, "parents": list(self.parents),
            "repairs": [{"name": r.name, "mode": r.mode, "edit": r.edit} for r in self.repairs],
        }  # fmt: skip


def shortened(text: str, width: int = WIDE) -> str:
    """Return a text cut at a word, with dots, where it is longer than `width`."""
    return text if len(text) <= width else f"{text[:width].rpartition(' ')[0]} ..."
