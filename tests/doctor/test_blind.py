"""The doctor before a run whose targets its rules cannot read: it looks at steps and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests import drawn
from tests.data.pairs import write_parallel
from tests.data.sentences import asked, tagged, write_conll, write_squad
from tests.data.texts import reviews

import gipi
from gipi.api.doctoring import examine
from gipi.api.training import streams_of
from gipi.core import resolve
from gipi.doctor import consult as consulting
from gipi.doctor.own_run import BLIND, opened, own_model, rules_for
from gipi.doctor.rules import RULES
from gipi.train.prepare import Own, Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CPU = torch.device("cpu")
TEXT = {"model.width": 16, "model.heads": 2, "model.layers": 1, "max_length": 24,
        "tokenizer.vocab": 400}  # fmt: skip


def prose(folder: Path) -> Path:
    lines = [f"{text} ." for text, _ in reviews(400)]
    path = folder / "prose.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def conll(folder: Path) -> Path:
    write_conll(folder / "people.conll", tagged(120))
    return folder / "people.conll"


def squad(folder: Path) -> Path:
    write_squad(folder / "people.json", asked(25, none=True, fill=20))
    return folder / "people.json"


def parallel(folder: Path) -> Path:
    write_parallel(folder / "pairs", {"train": 120, "val": 20, "test": 16}, ("de", "en"))
    return folder / "pairs"


WORKS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "segment": (lambda f: drawn.masks(f / "d", 24), {"model.backbone": "resnet20"}),
    "detect": (lambda f: drawn.boxes(f / "d", 24), {"model.backbone": "resnet18"}),
    "pose": (lambda f: drawn.points(f / "d", 24), {"model.backbone": "resnet20"}),
    "tag": (conll, {"model.width": 16, "model.embedding": 16}),
    "answer": (squad, {**TEXT, "max_length": 40, "tokenizer": "word"}),
    "translate": (parallel, {**TEXT, "tokenizer": "word"}),
    "generate": (prose, TEXT),
    "masked": (prose, TEXT),
    "spans": (prose, TEXT),
}


def ready(task: str, folder: Path, **more: Any) -> tuple[Prepared, Any, Any]:
    make, settings = WORKS[task]
    if "tokenizer" in settings:
        settings = {k: v for k, v in settings.items() if k != "tokenizer.vocab"}
    values = {"data": str(make(folder)), "task": task, "epochs": 4, **more}
    if task in ("segment", "detect", "pose"):
        values["image_size"] = 32
    layer = resolve.layer_from_values(values, settings=settings)
    prepared = prepare([layer], Own())
    return prepared, *streams_of(prepared, CPU)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the look all the time that it wants: what is tested is what it says."""
    monkeypatch.setattr(consulting, "LOOK_S", 1e3)
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("task", list(WORKS))
def test_the_defaults_are_healthy(task: str, tmp_path: Path) -> None:
    prepared, train, val = ready(task, tmp_path)
    assert rules_for(prepared.task) != RULES
    result = consulting.consult(prepared, train, val, device=CPU)
    assert result.lines() == []
    assert result.unlooked == ()


@pytest.mark.parametrize("task", ["segment", "tag", "translate", "generate"])
def test_a_rate_that_dooms_is_refused_whatever_the_task(task: str, tmp_path: Path) -> None:
    prepared, train, val = ready(task, tmp_path, lr=20.0)
    before = {k: v.clone() for k, v in prepared.model.state_dict().items()}
    result = consulting.consult(prepared, train, val, device=CPU)
    assert [f.code for f in result.findings][:1] == ["lr_too_high"]
    assert "doomed by lr (" in str(result.refusal)
    now = prepared.model.state_dict()
    assert all(torch.equal(before[k], now[k]) for k in before), "looking changed the model"


def test_weights_drawn_anew_reach_the_model(tmp_path: Path) -> None:
    prepared, train, val = ready("segment", tmp_path)
    with torch.no_grad():
        for p in prepared.model.parameters():
            p.fill_(0.01)
    exp = opened(prepared, train, val, device=CPU)
    assert exp is not None
    assert own_model(exp) is prepared.model
    result = consulting.consult(prepared, train, val, device=CPU)
    assert [f.code for f in result.findings][:1] == ["bad_init_symmetric"]
    assert not all(len(p.unique()) == 1 for p in prepared.model.parameters() if p.ndim > 1)


def test_every_code_of_the_short_list_is_a_rule() -> None:
    assert set(BLIND) <= {rule.code for rule in RULES}


def test_a_finished_run_of_any_task_is_looked_at(tmp_path: Path) -> None:
    gipi.train(str(drawn.masks(tmp_path / "d", 16)), steps=3, quiet=True, out=str(tmp_path / "run"),
               settings={"model.backbone": "resnet20", "image_size": 32})  # fmt: skip
    looked = examine(tmp_path / "run")
    assert looked.folder == tmp_path / "run"
    assert looked.result.broken == {}
    assert [f.code for f in looked.result.problems] == []
