"""How a net ends: the last call before its outputs, and what the loss does to them first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.doctor.rewire import Edited, Ended, Skip, replace_module
from gipi.doctor.tape import same_numbers

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Change
    from gipi.doctor.tape import Op


def last_call(facts: Facts) -> Op | None:
    """Return the call that computed the outputs, None where it is not one that the tape knows."""
    said = facts.outputs
    return facts.tape.source_of(said) if isinstance(said, Tensor) and said.ndim else None


def within_loss(facts: Facts, *, kinds: tuple[str, ...], into: str) -> Op | None:
    """Return the call of `kinds` that the loss function puts between the outputs and `into`."""
    tape = facts.loss_tape
    for op in tape.of({into}) if tape is not None else ():
        fed = tape.source_of(op.inputs[0]) if tape is not None and op.inputs else None
        if fed is not None and fed.kind in kinds and same_numbers(fed.inputs[0], facts.outputs):
            return fed
    return None


def class_width(facts: Facts) -> tuple[int, int] | None:
    """Return (dimension, number) of classes among the outputs of a loss of classes.

    (N, C), (N, C, places) as torch's own losses take it, or (N, places, C).
    """
    said, y = facts.outputs, facts.batch[1]
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or said.ndim < 2:
        return None
    if said.ndim == 2 or said.shape == y.shape:
        dim = 1
    elif said.ndim == y.ndim + 1:
        first = tuple(said.shape[:1] + said.shape[2:]) == tuple(y.shape)
        last = tuple(said.shape[:-1]) == tuple(y.shape)
        dim = 1 if first and (isinstance(facts.exp.loss, nn.Module) or not last) else said.ndim - 1
    else:
        dim = said.ndim - 1
    return dim, said.shape[dim]


def words_of(op: Op) -> str:
    """Return where a call stands, for people."""
    return f"'{op.place}'" if op.module else f"{op.kind}() in the model's forward"


def take_out(facts: Facts, op: Op, *, instead: nn.Module | None = None) -> Change:
    """Return the change that leaves one call out, or puts a module where it was.

    A module that does nothing else is replaced; a call by name is passed by, wherever it stands.
    """
    nth = [id(o) for o in facts.tape.of({op.kind})].index(id(op))
    alone = sum(o.module == op.module for o in facts.tape.ops) == 1

    def change(exp: Experiment) -> str:
        module = exp.model.get_submodule(op.module) if op.module else exp.model
        own = type(module).__module__.startswith("torch.nn.modules.activation")
        if op.module and own and alone:
            replace_module(exp.model, op.module, by=instead or nn.Identity())
            return f"took {op.kind} '{op.module}' out of the model"
        exp.model = Edited(exp.model, Skip(op.kind, nth))
        if instead is not None:
            exp.model = Ended(exp.model, instead)
        return f"the model's forward passes {op.kind} number {nth + 1} by"

    return change


def ended(end: nn.Module, *, said: str) -> Change:
    """Return the change that puts a function behind the model."""

    def change(exp: Experiment) -> str:
        exp.model = Ended(exp.model, end)
        return said

    return change
