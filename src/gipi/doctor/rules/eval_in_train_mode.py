"""Rows are judged in training mode, or the net is trained in evaluation mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call, outputs, whole
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rule import EXACT, Rule
from gipi.doctor.tape import recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

ROWS = 64
NORMS = (nn.modules.batchnorm._BatchNorm,)  # noqa: SLF001
DROPS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
RESTING, SHARE = 10, 0.4
"""Last steps of a loop, and their share of all, that show that evaluation mode was left on."""


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where modules are in training mode, or functions drop, in evaluation.

    Also where a loop of somebody's own took its steps in evaluation mode.
    """
    yield from _left_on(facts)
    exp = facts.exp
    rows = whole(exp.val if exp.val is not None else exp.train, ROWS, exp.device)
    if rows is None:
        return
    facts.passes += 1
    with peeking(exp):
        training, dropping = _seen(exp, rows[0])
    if not training and not dropping:
        return
    names = tuple(sorted(training) or sorted(dropping))
    kinds = sorted(set(training.values())) or ["dropout, called as a function"]
    yield Finding(
        "eval_in_train_mode",
        f"while rows are judged, {', '.join(kinds)} is in training mode ({', '.join(names[:4])})",
        "call model.eval() before judging and model.train() after; give "
        "F.dropout(x, p, training=self.training) its last argument",
        where=names,
        evidence={"modules": dict(training), "functions": sorted(dropping)},
        confirmed=True,
        repairs=(
            Repair("evaluate in evaluation mode", in_eval_mode, proof="exact",
                   edit="model.eval() and torch.no_grad() around evaluation" if training
                   else "F.dropout(x, p, training=self.training)"),
        ),
    )  # fmt: skip


def _left_on(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where a watched loop forgot `model.train()`."""
    loop = facts.loop
    if loop is None or not loop.resting or loop.evaluating < max(RESTING, SHARE * loop.steps):
        return
    modules = dict(facts.exp.model.named_modules())
    kinds = sorted({type(modules[n]).__name__ for n in loop.resting if n in modules})
    norms = [m for n in loop.resting if isinstance(m := modules.get(n), NORMS)]
    # Dropout may be left out on purpose, and means that an earlier training left behind be kept.
    # Norms that had learned none before the loop do not normalise at all.
    sick = any(m.num_batches_tracked is None or not int(m.num_batches_tracked) for m in norms)
    since = loop.steps - loop.evaluating
    yield Finding(
        "eval_in_train_mode",
        f"the model is trained in evaluation mode: {'all' if not since else 'the last'} "
        f"{loop.evaluating} of {loop.steps} steps were taken after model.eval(), so that "
        f"{', '.join(kinds)} ({', '.join(loop.resting[:4])}) did nothing of what training "
        "is to do",
        "call model.train() before the batches of every epoch, and model.eval() only to judge",
        severity="problem" if sick else "hint",
        where=loop.resting,
        evidence={"steps": loop.steps, "in_evaluation_mode": loop.evaluating},
        confirmed=True,
        strength=EXACT if sick else 1.0,
        repairs=(Repair("train in training mode", None, mode="advise",
                        edit="model.train() at the beginning of every epoch"),),
    )  # fmt: skip


def resting(model: nn.Module) -> tuple[str, ...]:
    """Return the modules that drop or keep statistics, if all of them are in evaluation mode.

    Those of a frozen part of the model do not count: they may rest.
    """
    live = {n: m for n, m in model.named_modules() if _drops(m) or _keeps(m)}
    live = {n: m for n, m in live.items() if not _frozen(model, n)}
    return () if any(m.training for m in live.values()) else tuple(live)


def _frozen(model: nn.Module, name: str) -> bool:
    """Whether the innermost module around `name` that has parameters has none that is trained."""
    while name:
        params = list(model.get_submodule(name).parameters())
        if params:
            return not any(p.requires_grad for p in params)
        name = name.rpartition(".")[0]
    return not any(p.requires_grad for p in model.parameters())


def _drops(module: nn.Module) -> bool:
    between = isinstance(module, nn.RNNBase) and module.num_layers > 1 and module.dropout > 0
    return (isinstance(module, DROPS) and module.p > 0) or between


def _keeps(module: nn.Module) -> bool:
    return isinstance(module, NORMS) and module.track_running_stats


def _seen(exp: Experiment, X: Any) -> tuple[dict[str, str], set[str]]:
    """Return modules in training mode and places that drop, while the user's evaluation runs."""
    training: dict[str, str] = {}
    handles = []
    for name, m in exp.model.named_modules():
        if not ((isinstance(m, DROPS) and m.p > 0) or _keeps(m)):
            continue

        def hook(m: nn.Module, *_: Any, name: str = name) -> None:
            if m.training:
                training[name] = type(m).__name__

        handles.append(m.register_forward_pre_hook(hook))
    try:
        with recording(exp.model) as tape:
            outputs(exp, X)
    finally:
        for handle in handles:
            handle.remove()
    modules = dict(exp.model.named_modules())
    dropping = {
        op.place
        for op in tape.of({"dropout"})
        if not isinstance(modules.get(op.module), DROPS)
        and op.inputs
        and op.inputs[0].shape == op.output.shape
        and not torch.equal(op.inputs[0], op.output)
    }
    return training, dropping


def in_eval_mode(exp: Experiment) -> str:
    """Judge in evaluation mode: the user's evaluation if it stays in it, else one plain pass.

    Raises `CannotRepair` where a function drops whatever the mode is.
    """
    own = exp.evaluate
    rows = whole(exp.val if exp.val is not None else exp.train, ROWS, exp.device)
    assert rows is not None

    def evaluate(model: nn.Module, X: Any) -> Any:
        model.eval()
        with torch.no_grad():
            return call(model, X) if own is None else own(model, X)

    for attempt in (evaluate, None):
        said = outputs(exp, rows[0])
        exp.evaluate = attempt
        training, dropping = _seen(exp, rows[0])
        now = outputs(exp, rows[0])
        alike = not isinstance(said, Tensor) or (
            isinstance(now, Tensor) and now.shape == said.shape
        )
        if not training and not dropping and alike:
            return "rows are judged in evaluation mode"
    exp.evaluate = own
    message = "what is in training mode is so within the model: F.dropout without `training`"
    raise CannotRepair(message)


RULE = Rule(
    code="eval_in_train_mode",
    title="evaluation in training mode",
    looks="the same rows get another score each time; a row's prediction depends on its neighbours",
    why="dropout goes on dropping, and batch norm goes on using, and learning from, the rows that "
    "are judged",
    do="model.eval() before judging, model.train() after it: a loop that goes on in evaluation "
    "mode trains without its dropout, and with the statistics of batch norm as they were",
    source="Srivastava et al. 2014, JMLR 15; Ioffe and Szegedy 2015, arXiv:1502.03167",
    before=before,
    causes=("bn_stats_mismatch", "dropout_too_high"),
)
