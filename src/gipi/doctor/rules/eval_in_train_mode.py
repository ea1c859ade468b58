"""Rows are judged while dropout still drops, or while batch norm still looks at the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call, outputs, whole
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.tape import recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

ROWS = 64
DROPS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where modules are in training mode, or functions drop, in evaluation."""
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


def _seen(exp: Experiment, X: Any) -> tuple[dict[str, str], set[str]]:
    """Return modules in training mode and places that drop, while the user's evaluation runs."""
    training: dict[str, str] = {}
    handles = []
    for name, m in exp.model.named_modules():
        live = (isinstance(m, DROPS) and m.p > 0) or (
            isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats  # noqa: SLF001
        )
        if not live:
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
    do="model.eval() before judging, model.train() after",
    source="Srivastava et al. 2014, JMLR 15; Ioffe and Szegedy 2015, arXiv:1502.03167",
    before=before,
    causes=("bn_stats_mismatch",),
)
