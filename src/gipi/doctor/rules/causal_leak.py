"""An output that is to be foretold from the past sees the future."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.copies import renewed_optimizer
from gipi.doctor.facts import Facts, first_rows
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rewire import Edited, NoFuture, replace_module
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.sequences import asks_for_next, by_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment

LEAKS = 1e-3
"""Standard deviations by which an output must move when later places are changed."""


def before(facts: Facts) -> Iterator[Finding]:
    """Change the second half of rows and see whether outputs of the first half move."""
    if not asks_for_next(facts) or facts.base is None:
        return
    moved = leak(facts)
    if moved is None or float(moved.max()) <= LEAKS:
        return
    half = len(moved)
    yield Finding(
        "causal_leak",
        f"outputs of the first {half} places move by up to {float(moved.max()):.3g} standard "
        "deviations when later places are changed, and what is asked at a place is the next one: "
        "the net reads the answer off its input",
        "let no place see later ones: a causal mask in attention, one direction in recurrent "
        "layers, padding on the left alone in convolutions",
        evidence={"moves_by_place": [round(float(v), 6) for v in moved[:64]]},
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair("a causal mask", causal, proof="exact",
                   edit="attn_mask=torch.ones(T, T).triu(1).bool(), or is_causal=True"),
        ),
    )  # fmt: skip


def leak(facts: Facts) -> Tensor | None:
    """Return how far the output of each place of the first half moves with later inputs."""
    x, base = facts.few, facts.base
    if not isinstance(x, Tensor) or base is None or x.ndim < 2 or len(x) < 2:
        return None
    half = x.shape[1] // 2
    changed = x.clone()
    changed[:, half:] = x.roll(1, 0)[:, half:]
    if torch.equal(changed, x):
        return None
    said = facts.shown(changed)
    if not isinstance(said, Tensor) or said.shape != base.shape:
        return None
    gap = by_place((said - base).abs(), len(x), places=x.shape[1])
    if gap is None:
        return None
    gap = gap[:, :half].transpose(0, 1).flatten(1).amax(1)
    return gap / (base.std() + 1e-12)


def causal(exp: Experiment) -> str:
    """Hide later keys from all self-attention, and pad convolutions along time on the left."""
    convs = [n for n, m in exp.model.named_modules() if _sees_ahead(m)]
    for name in convs:
        old = exp.model.get_submodule(name)
        assert isinstance(old, nn.Conv1d)
        replace_module(exp.model, name, by=LeftConv(old))
    both = [n for n, m in exp.model.named_modules()
            if isinstance(m, nn.RNNBase) and m.bidirectional and m.num_layers == 1]  # fmt: skip
    for name in both:
        replace_module(exp.model, name, by=OneWay(exp.model.get_submodule(name)))
    if convs or both:
        renewed_optimizer(exp)
    edited = Edited(exp.model, NoFuture())
    for model in (exp.model, edited) if convs or both else (edited,):
        exp.model = model
        try:
            facts = Facts(exp)
            facts.few = first_rows(facts.batch[0], 8)
            moved = leak(facts)
        except (RuntimeError, ValueError, IndexError):
            continue
        if moved is not None and float(moved.max()) <= LEAKS:
            return "later places are hidden"
    message = "a causal mask does not stop the leak: the net looks ahead in another way"
    raise CannotRepair(message)


def _sees_ahead(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1 and module.stride == (1,)
        and module.padding not in (0, (0,), "valid")
    )  # fmt: skip


class LeftConv(nn.Module):
    """A convolution along time whose padding stands on the left, with the weights of another."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv
        self.left = (conv.kernel_size[0] - 1) * conv.dilation[0]
        conv.padding = (0,)
        conv.padding_mode = "zeros"

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of inputs up to each place."""
        said: Tensor = self.conv(nn.functional.pad(x, (self.left, 0)))
        return said


class OneWay(nn.Module):
    """A recurrent layer of two directions whose backward outputs are zero."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return outputs (..., 2 H) of which the second half is zero, and the state."""
        said, last = self.cell(x, state)
        half = said.shape[-1] // 2
        return torch.cat([said[..., :half], torch.zeros_like(said[..., half:])], -1), last


RULE = Rule(
    code="causal_leak",
    title="the net sees the future that it is to foretell",
    looks="the loss falls far below what is possible; generated text is nonsense",
    why="where a place is asked for the next one, a net that sees the next one copies it. In use "
    "the next one is not there yet",
    do="mask attention causally, read in one direction, pad convolutions on the left",
    source="Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3; van den Oord et al. 2016, "
    "arXiv:1609.03499",
    before=before,
    causes=("overfit", "target_leak", "train_val_overlap", *DYNAMICS),
)
