"""What observers ask for: in the order of precedence, and as they meant it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.core.events import Action, Step
from tests.train.work import columns, net, rows_of, run

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def at(step: int, *answer: Any, **more: Any) -> Any:
    """An observer that answers once, at the row of one step."""
    left = [Action(*answer, **more)]

    def observer(seen: Step) -> Action | None:
        row = seen.when == "row" and seen.step == step and "event" not in seen.row
        return left.pop() if row and left else None

    return observer


def vector(model: nn.Module) -> torch.Tensor:
    """All weights as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_actions_of_one_moment_follow_the_precedence(tmp_path: Path) -> None:
    asked = [at(2, kind, "x", 0.5) for kind in ("stop", "note", "save", "scale_lr")]
    run(net(), columns(), out=tmp_path, log_every=1, observers=tuple(asked), steps=5)
    events = [row["event"] for row in rows_of(tmp_path) if "event" in row]
    assert events == ["scale_lr", "save", "note", "stop"]


def test_an_unknown_action_is_named() -> None:
    with pytest.raises(ConfigError, match="'stopp'"):
        run(net(), columns(), log_every=1, observers=(at(2, "stopp", "x"),))


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_after_a_rollback_the_same_steps_come_again(tmp_path: Path, schedule: str) -> None:
    options: dict[str, Any] = {"steps": 12, "log_every": 1, "save_every": 5, "schedule": schedule}
    back, straight = net(), net()
    run(back, columns(), out=tmp_path, observers=(at(7, "rollback", "x"),), **options)
    run(straight, columns(), **options)
    assert torch.equal(vector(back), vector(straight))


def test_a_rollback_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="run folder"):
        run(net(), columns(), log_every=1, observers=(at(2, "rollback", "x"),))


def test_a_replaced_recipe_sets_the_learning_rate(tmp_path: Path) -> None:
    recipe = Recipe(steps=6, optimizer="sgd", lr=0.5, schedule="constant", log_every=1)
    change = at(3, "replace", "x", (net(seed=1).state_dict(), recipe))
    run(net(), columns(), out=tmp_path, log_every=1, observers=(change,), steps=6,
        schedule="constant")  # fmt: skip
    rates = [row["lr"] for row in rows_of(tmp_path) if "lr" in row]
    assert rates == [0.01] * 3 + [0.5] * 3
