"""Findings and repairs in the words of a configuration: which keys they hang on and come to.

What the user gave by flag or file is his; what a repair does to a copy of the experiment becomes a
value of the key that the repair names.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gipi.doctor.causes import roots
from gipi.doctor.copies import duplicate
from gipi.doctor.finding import CannotRepair, Repair
from gipi.doctor.flags import in_flags
from gipi.doctor.named import field_of
from gipi.doctor.own_run import own_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gipi.doctor.diagnose import Diagnosis
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding
    from gipi.train.prepare import Prepared

KEYS: dict[str, tuple[str, ...]] = {
    "lr_too_high": ("lr",), "lr_too_low": ("lr",), "bad_init_symmetric": ("model.init",),
    "bad_init_scale": ("model.init",), "unnormalised_input": ("normalise",),
    "vanishing_gradient": ("model.activation", "model.widths"),
    "saturated_activation": ("model.activation", "model.init"), "dead_relu": ("model.activation",),
    "dropout_too_high": ("model.dropout",), "weight_decay_too_high": ("weight_decay",),
    "grad_clip_too_small": ("clip_norm",), "lr_decay_too_fast": ("schedule",),
    "bn_batch_too_small": ("batch_size",), "augmentation_destroys_signal": ("augment",),
    "overfit": ("epochs", "model"), "wrong_loss": ("task.loss",),
}  # fmt: skip
"""The settings that a problem hangs on: where one of them was given, it is the user's."""
COLUMNS = "schema"
"""The setting of a repair that leaves columns out."""
MACHINE = ("recipe", "from the data", "doctor")
"""Origins of values that nobody gave."""


@dataclass
class Changed:
    """Configuration keys and their new values, and in words what was changed."""

    settings: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def given(finding: Finding, prepared: Prepared) -> dict[str, str]:
    """Return the settings behind a finding that the user gave: key -> where."""
    found = {}
    for key in KEYS.get(finding.code, ()):
        origin = prepared.origins.get(key)
        if origin is not None and not origin.startswith(MACHINE):
            found[key] = origin
    return found


def in_settings(finding: Finding, prepared: Prepared) -> Finding:
    """Return a finding whose advice, or repair, is the exact edit of a setting where there is one.

    A column that tells the target is left out; a rate that is too high is another one.
    """
    tried = finding.evidence.get("loss_at")
    if finding.code == "lr_too_high" and isinstance(tried, dict):
        best = min(tried, key=lambda name: tried[name])
        rate = prepared.config.lr * float(best.split()[-1])
        said = f"{finding.advice}: of those that were tried --lr {rate:.2g} was best"
        return replace(finding, advice=said)
    if finding.code == "lr_too_low" and isinstance(tried, dict):
        return replace(finding, advice=_raised(finding, tried, prepared))
    names = _left_out(finding, prepared)
    if not names:
        return replace(finding, advice=in_flags(finding, prepared))
    edit = " ".join(f"--set {shlex.quote(_ignored(name))}" for name in names)
    it = "it is not known" if len(names) == 1 else "they are not known"
    said = f"left out {', '.join(names)}"
    return replace(
        finding,
        advice=f"ask when and how {', '.join(names)} comes about; if {it} at the time of "
        f"predicting, leave out: {edit}",
        repairs=(Repair("leave it out", lambda _: said, mode="ask", edit=edit, setting=COLUMNS),),
    )


def _raised(finding: Finding, tried: Mapping[str, float], prepared: Prepared) -> str:
    best = min(tried, key=lambda name: tried[name])
    rate = prepared.config.lr * float(best.split()[-1])
    his = given(finding, prepared).get("lr")
    leave = f", or leave {his} out: one that fits the data is chosen then" if his else ""
    return f"of higher rates that were tried --lr {rate:.2g} was best: take it{leave}"


def _ignored(name: str) -> str:
    """Return the setting that leaves a column out, in a form that its name allows.

    >>> _ignored("age"), _ignored("is = ok")
    ('schema.age=ignored', 'schema={"is = ok": ignored}')
    """
    if "=" not in name and name == name.strip():
        return f"schema.{name}=ignored"
    return f"schema={{{json.dumps(name, ensure_ascii=False)}: ignored}}"  # the form of a file


def _left_out(finding: Finding, prepared: Prepared) -> list[str]:
    """Return the fields to be left out for a finding; none where nothing else would be left."""
    schema = prepared.dataset.schema
    if finding.code != "target_leak":
        return []
    fields = [f for f in (field_of(name, schema) for name in finding.where) if f is not None]
    names = list(dict.fromkeys(f.name for f in fields if not f.shape))
    return names if len(names) < len(schema.inputs) else []


def can_change(finding: Finding, *, yes: bool) -> bool:
    """Whether a repair of the finding comes to a setting; `yes`: also one that needs a yes."""
    return any(_may(repair, yes=yes) for repair in finding.repairs)


def change(
    finding: Finding, exp: Experiment, prepared: Prepared, into: Changed, *, yes: bool
) -> bool:
    """Carry out the first repair that comes to a setting; return whether one did.

    yes  repairs that need a person's word may be made, too

    Repairs act on a copy. Weights that were only drawn anew are taken over.
    """
    for repair in finding.repairs:
        if not _may(repair, yes=yes):
            continue
        assert repair.change is not None
        if repair.setting == COLUMNS:
            names = _left_out(finding, prepared)
            known = into.settings.get("schema_overrides", prepared.config.schema_overrides)
            into.settings["schema_overrides"] = {**known, **dict.fromkeys(names, "ignored")}
            into.said.append(f"{', '.join(names)} is left out ({finding.code})")
            return True
        trial = duplicate(exp)
        try:
            said = repair.change(trial)
        except CannotRepair:
            continue
        settings = CARRIED[repair.setting](exp, trial, prepared)
        if settings is None:
            continue
        into.settings |= settings
        words = f"lr {prepared.config.lr:g} -> {settings['lr']:g}" if "lr" in settings else said
        into.said.append(f"{words} ({finding.code})")
        return True
    return False


def _may(repair: Repair, *, yes: bool) -> bool:
    allowed = repair.mode == "auto" or (yes and repair.mode == "ask")
    return allowed and repair.change is not None and repair.setting in (*CARRIED, COLUMNS)


def _rate(exp: Experiment, trial: Experiment, prepared: Prepared) -> dict[str, Any] | None:
    rate, old = trial.optimizer.param_groups[0]["lr"], exp.optimizer.param_groups[0]["lr"]
    return {"lr": float(f"{prepared.config.lr * rate / old:.3g}")} if rate != old else None


def _epochs(exp: Experiment, trial: Experiment, _: Prepared) -> dict[str, Any] | None:
    if trial.epochs == exp.epochs:
        return None
    return {"epochs": float(trial.epochs), "steps": None, "time": None}


def _init(_exp: Experiment, trial: Experiment, prepared: Prepared) -> dict[str, Any] | None:
    drawn = own_model(trial)
    names = [[n for n, _ in m.named_parameters()] for m in (drawn, prepared.model)]
    if names[0] != names[1] or type(drawn) is not type(prepared.model):
        return None
    prepared.model.load_state_dict(drawn.state_dict())
    options = {k: v for k, v in prepared.config.model_options.items() if k != "init"}
    return {"model_options": options}


def _schedule(*_: object) -> dict[str, Any]:
    return {"schedule": "cosine", "schedule_options": {}}


CARRIED: dict[
    str, Callable[[Experiment, Experiment, Prepared], dict[str, Any] | None]
] = {"lr": _rate, "epochs": _epochs, "model.init": _init, "schedule": _schedule}  # fmt: skip
"""How what a repair did to a copy is read off as settings, by the key that the repair names."""


def changed_settings(diagnosis: Diagnosis, prepared: Prepared) -> Changed:
    """Return the settings that the repairs of a diagnosis come to, and what they do in words."""
    result = Changed()
    for finding in roots(diagnosis.findings):
        change(finding, diagnosis.experiment, prepared, result, yes=True)
    return result


def with_settings(prepared: Prepared, settings: Mapping[str, Any]) -> Prepared:
    """Return the run with settings that the doctor chose; their origin says so."""
    if not settings:
        return prepared
    config = prepared.config.model_copy(update=dict(settings))
    origins = {**prepared.origins, **dict.fromkeys(settings, "doctor")}
    return replace(prepared, config=config, origins=origins)
