"""What `gipi predict` prints: the first answers, how many there are beside, and where they went."""

from __future__ import annotations

import numpy as np

from gipi.cli import output
from gipi.deploy.predictions import Predictions


def answers(rows):
    return Predictions(tuple(map(str, range(rows))), {"value": np.zeros(rows)}, target="y")


def test_more_answers_than_are_shown_say_where_all_of_them_are(tmp_path, capsys):
    output.predictions(answers(25), None, brief=True)
    assert "... and 5 more; --out FILE writes them all\n" in capsys.readouterr().out
    output.predictions(answers(25), tmp_path / "all.csv", brief=True)
    said = capsys.readouterr().out
    assert "... and 5 more\nwritten: " in said
    assert len((tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()) == 26


def test_entities_are_shown_beside_their_sentence_and_a_written_text_stands_alone(tmp_path, capsys):
    found = np.empty(2, dtype=object)
    found[:] = [[{"type": "PER", "text": "Ann", "start": 0, "end": 3}], []]
    texts = np.array(["Ann ran", "no one"], dtype=object)
    values = {"text": texts, "tokens": texts, "tags": texts, "entities": found}
    tagged = Predictions(("Ann ran", "no one"), values)
    output.predictions(tagged, tmp_path / "tagged", brief=True)
    said = capsys.readouterr().out
    assert "Ann ran: PER 'Ann' (0-3)\nno one: no entity\n" in said
    assert not (tmp_path / "tagged" / "predictions.txt").exists()
    written = Predictions(("a", "b"), {"text": np.array(["ein Hund", "ja"], dtype=object)})
    output.predictions(written, tmp_path / "written", brief=True)
    assert capsys.readouterr().out.startswith("ein Hund\nja\n")
    assert (tmp_path / "written" / "predictions.txt").read_text() == "ein Hund\nja\n"


def test_large_numbers_are_written_out(capsys):
    values = np.array([123456.7, 0.000012345, 99999.4, -2.5e6, 1e18])
    output.predictions(Predictions(tuple("abcde"), {"value": values}, target="y"), None, brief=True)
    said = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["123457", "1.2345e-05", "99999", "-2500000", "1e+18"]
