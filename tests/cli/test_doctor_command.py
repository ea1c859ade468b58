"""`gipi doctor RUN`: what people read, what programs read, and a run that never took a step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.commands import FIXED

import gipi
from gipi.api import doctoring
from gipi.cli import main
from gipi.core.rundir import resolve_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))
    asked = ["--model", "linear", "--steps", "4", "--doctor", "off", "--out", "run", *FIXED]
    assert main(["train", "iris", *asked]) == 0
    return Path("run")


def test_a_run_is_examined_from_its_folder(run, capsys):
    capsys.readouterr()
    assert main(["doctor", "run", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert Path(found["run"]) == run
    assert [f["code"] for f in found["findings"]] == [
        f["code"] for f in json.loads((run / "findings.json").read_text(encoding="utf-8"))
    ]
    assert "run: run" in said.err
    assert "no step of it was logged" not in said.err


def test_a_run_without_a_step_is_not_called_healthy(run, capsys):
    (run / "rows.jsonl").unlink()
    assert main(["doctor", "run"]) == 0
    said = capsys.readouterr().out
    assert "no step of it was logged: its data, settings and first weights were looked at" in said
    assert main(["doctor", "run", "--apply", "--json"]) == 0
    said = capsys.readouterr()
    if not json.loads(said.out.splitlines()[-1])["findings"]:
        assert "there is nothing to change" in said.err


def test_a_run_that_broke_ends_in_words_and_its_cause_is_named_afterwards(run, capsys):
    hot = ["--lr", "500", "--steps", "12", "--doctor", "advise", "--out", "hot", *FIXED]
    capsys.readouterr()
    assert main(["train", "wine", "--model", "mlp", *hot]) in (0, 1)
    assert "a defect of gipi" not in capsys.readouterr().err
    assert main(["doctor", "hot", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    assert found[0]["code"] == "lr_too_high"
    assert found[0]["confirmed"]


def test_what_was_said_while_a_run_trained_is_said_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))
    hot = ["--model", "mlp", "--lr", "0.5", "--steps", "40", "--doctor", "off", *FIXED]
    assert main(["train", "wine", *hot, "--out", "hot"]) == 0
    capsys.readouterr()
    assert main(["doctor", "hot", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "lr_too_high" in [f["code"] for f in found["findings"]]  # though its loss fell
    assert found["recorded"] == []
    path = tmp_path / "hot" / "findings.json"
    old = {"code": "duplicate_rows", "severity": "problem", "message": "rows repeat"}
    path.write_text(json.dumps([*json.loads(path.read_text(encoding="utf-8")), old]))
    assert main(["doctor", "hot"]) == 0
    assert "while it trained: problem [duplicate_rows]: rows repeat" in capsys.readouterr().out
    assert old in json.loads(path.read_text(encoding="utf-8"))


def test_a_rehearsal_that_would_cost_more_than_the_run_is_left_out_and_said(
    run, capsys, monkeypatch
):
    monkeypatch.setattr(doctoring, "COST_S", 0.0)
    monkeypatch.setattr(doctoring, "rehearsed", None)  # it is not called
    capsys.readouterr()
    assert main(["doctor", "run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "(its first 24 steps were not trained again, that would take longer than 50%" in said


def test_after_a_refused_run_the_doctor_speaks_of_that_one(run, capsys):
    asked = ["--model", "mlp", "--steps", "60", "--out", "hot", *FIXED]
    capsys.readouterr()
    assert main(["train", "wine", "--lr", "500", *asked]) == 2
    said = capsys.readouterr()
    assert "[lr_too_high]" in said.err
    last = resolve_run("runs/last")
    assert last.name.endswith("-wine-refused")
    assert not Path("hot").exists()  # the folder that was chosen is free for the next try
    left = json.loads((last / "findings.json").read_text(encoding="utf-8"))
    assert (left[0]["code"], left[0]["confirmed"]) == ("lr_too_high", True)
    assert left[0]["evidence"]["loss_at"]
    assert main(["doctor", "runs/last", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])
    assert "it was refused before its first step: at a learning rate of 500" in shown.err
    assert found["refused"].startswith("at a learning rate of 500")
    assert found["findings"][0]["code"] == "lr_too_high"
    Path("new.csv").write_text("alcohol\n12.5\n", encoding="utf-8")
    for command in ("resume", "evaluate", "predict"):
        more = ["new.csv"] if command == "predict" else []
        assert main([command, "runs/last", *more]) == 2
        assert "was refused before its first step: at a learning" in capsys.readouterr().err
    assert main(["report", "runs/last"]) == 0
    assert main(["train", "wine", "--lr", "0.01", *asked]) == 0
    capsys.readouterr()
    assert main(["doctor", "runs/last"]) == 0
    assert "refused before" not in capsys.readouterr().out


def test_of_a_run_on_objects_it_says_how_they_are_diagnosed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))
    g = np.random.default_rng(0)
    data = g.normal(size=(80, 4)).astype("float32"), g.integers(0, 2, 80)
    gipi.train(data, steps=2, quiet=True, out="own", settings={"doctor": "off"})
    assert main(["doctor", "own"]) == 2
    said = capsys.readouterr().err
    assert "started with its own data" in said
    assert "gipi.diagnose(gipi.Experiment(model" in said
    assert "gipi.resume" not in said


def test_a_forecast_by_default_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))
    g, t = np.random.default_rng(0), np.arange(1200)
    sold = 10 + 3 * np.sin(2 * np.pi * t / 24) + 0.002 * t + g.normal(0, 0.3, 1200)
    hours = np.datetime64("2024-01-01T00:00") + t.astype("timedelta64[h]")
    rows = "\n".join(f"{h},{s:.3f}" for h, s in zip(hours, sold, strict=True)).replace("T", " ")
    (tmp_path / "sales.csv").write_text(f"time,sales\n{rows}\n")
    asked = ["--task", "forecast", "--set", "horizon=24", "--epochs", "2", "--out", "run", *FIXED]
    assert main(["train", "sales.csv", *asked]) == 0
    assert main(["doctor", "run", "--json"]) == 0
    said = capsys.readouterr()
    assert "doctor:" not in said.out + said.err
    assert "could not look" not in said.out + said.err
    assert json.loads(said.out.splitlines()[-1])["findings"] == []
