"""The optimizer was not given all weights, or was given those of another model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.knowledge import PASSES, judged_still, matrices
from gipi.doctor.reach import matter
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.rules.frozen_layer import join
from gipi.doctor.spoken import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

FEW = 3
"""Calls of backward without a step that are odd."""


def before(facts: Facts) -> Iterator[Finding]:
    """Look for weights that the optimizer lacks, strangers that it has, and layers in lists.

    First of all whether a loop of somebody's own ever steps.
    """
    idle = list(_never_steps(facts))
    if idle:
        yield from idle
        return
    exp, has = facts.exp, facts.in_optimizer
    missing = [n for n, p in exp.model.named_parameters()
               if p.requires_grad and p.numel() and id(p) not in has and not facts.meant_to_stay(n)
               and facts.still(n)]  # fmt: skip
    held = {id(p) for p in exp.model.parameters()}
    if isinstance(exp.loss, nn.Module):
        held |= {id(p) for p in exp.loss.parameters()}
    strangers = len(has - held)
    if missing and not has & held:
        yield _finding(
            missing, f"the optimizer has none of the model's weights; its {strangers} parameters "
            "belong to another model, and training changes nothing",
        ).but(repairs=(
            Repair("the model's weights to the optimizer", take_over, proof="exact",
                   edit="optimizer = Optimizer(model.parameters(), ...), after the last change "
                   "of the model"),
        ), confirmed=True)  # fmt: skip
        return
    listed = unregistered(facts)
    if listed:
        yield Finding(
            "params_not_in_optimizer",
            f"the forward pass uses {counted(len(listed), 'weight')} that the model does not know "
            f"as its own ({', '.join(str(tuple(p.shape)) for p in listed[:3])}): layers in a plain "
            "list or dict are not in model.parameters(), and neither trained nor saved",
            "keep layers in nn.ModuleList or nn.ModuleDict",
            evidence={"shapes": [list(p.shape) for p in listed[:16]]},
            confirmed=True,
            strength=EXACT,
            repairs=(
                Repair("register the layers", register, proof="not worse",
                       edit="self.layers = nn.ModuleList(layers)"),
            ),
        )  # fmt: skip
        return
    if missing and matter(facts, missing):
        word = f", but has {strangers} that the model does not use" if strangers else ""
        found = _finding(missing, f"the optimizer lacks {len(missing)} of the model's trainable "
                         f"parameters{word}: they stay as they are")  # fmt: skip
        small = not matrices(facts, missing)
        if strangers and not small:
            found = found.but(confirmed=True)
        yield found.but(severity="hint" if small else "problem")


def _never_steps(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where a loop calls backward again and again, and the optimizer never."""
    loop = facts.loop
    if loop is None or loop.steps or loop.moved or loop.backwards < FEW:
        return
    names = tuple(n for n, p in facts.exp.model.named_parameters() if p.requires_grad)
    yield Finding(
        "params_not_in_optimizer",
        f"optimizer.step() was never called, and loss.backward() {loop.backwards} times: gradients "
        "arrive, and no weight of the model has moved",
        "call optimizer.step() after loss.backward(), with its parentheses, on the optimizer that "
        "has the model's parameters",
        # However many batches there were, they may be gathered for one step that is to come.
        severity="problem" if loop.cleared else "hint",
        where=names,
        evidence={"steps": 0, "backwards": loop.backwards},
        confirmed=True,
        strength=EXACT,
        repairs=(Repair("step", None, mode="advise",
                        edit="optimizer.zero_grad(); loss.backward(); optimizer.step()"),),
    )  # fmt: skip


def cleared(model: nn.Module) -> bool:
    """Whether a model has no gradient, or zeros alone."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return not any(bool(g.any()) for g in grads)  # sync


def _finding(names: Sequence[str], message: str) -> Finding:
    return Finding(
        "params_not_in_optimizer",
        f"{message} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})",
        "make the optimizer from model.parameters(), after the model is complete",
        where=tuple(names),
        evidence={"missing": len(names)},
        strength=EXACT,
        repairs=(
            Repair("give them to the optimizer", added(tuple(names)), proof="not worse",
                   edit="optimizer = Optimizer(model.parameters(), ...)"),
        ),
    )  # fmt: skip


def added(names: Sequence[str]) -> Change:
    """Return the change that adds parameters to the optimizer's first group."""

    def change(exp: Experiment) -> str:
        join(exp, names)
        return f"the optimizer has {len(names)} more parameters, {names[0]} first"

    return change


def take_over(exp: Experiment) -> str:
    """Give the optimizer the model's weights in place of the strangers, options kept."""
    first, *others = exp.optimizer.param_groups
    first["params"] = [p for p in exp.model.parameters() if p.requires_grad]
    for group in others:
        group["params"] = []
    exp.optimizer.state.clear()
    return "the optimizer has the model's weights, and no others"


def unregistered(facts: Facts) -> list[Tensor]:
    """Return leaf weights that the forward pass uses with a gradient and no module holds."""
    exp = facts.exp
    held = {id(p) for p in exp.model.parameters()} | facts.in_optimizer
    if isinstance(exp.loss, nn.Module):
        held |= {id(p) for p in exp.loss.parameters()}
    found: dict[int, Tensor] = {}
    for op in facts.tape.ops:
        for value in op.inputs:
            if isinstance(value, nn.Parameter) and value.requires_grad and id(value) not in held:
                found[id(value)] = value
    return list(found.values())


def register(exp: Experiment) -> str:
    """Turn plain lists and dicts of modules into ones that the model knows."""
    done = []
    for prefix, module in list(exp.model.named_modules()):
        for name, value in list(vars(module).items()):
            if name.startswith("_"):
                continue
            if isinstance(value, (list, tuple)) and value and _modules(value):
                setattr(module, name, nn.ModuleList(value))
            elif isinstance(value, dict) and value and _modules(value.values()):
                setattr(module, name, nn.ModuleDict({str(k): v for k, v in value.items()}))
            else:
                continue
            done.append(f"{prefix}.{name}" if prefix else name)
    if not done:
        message = "no list or dict of layers was found in the model"
        raise CannotRepair(message)
    names = [n for n, _ in exp.model.named_parameters() if n.startswith(tuple(done))]
    join(exp, names)
    return f"{', '.join(done)}: the layers are registered and {len(names)} weights are trained"


def _modules(values: object) -> bool:
    return all(isinstance(v, nn.Module) for v in values)  # type: ignore[attr-defined]


RULE = Rule(
    code="params_not_in_optimizer",
    title="the optimizer does not have all weights",
    looks="gradients arrive, and the weights do not move",
    why="an optimizer moves what it was given when it was made. Layers that were added, replaced "
    "or kept in a plain list afterwards are not among it",
    do="make the optimizer last, from model.parameters(); keep layers in nn.ModuleList; call "
    "optimizer.step() after backward",
    source="PyTorch documentation, torch.optim (constructing it)",
    before=before,
    confirm=judged_still,
    passes=PASSES,
    causes=(*DYNAMICS, "unused_parameters"),
)
