"""Recipes for tags and answers: the net, the pace, and what is said of few questions."""

from __future__ import annotations

import pytest

from gipi import models
from gipi.core.config import Config
from gipi.core.errors import ModelError
from gipi.core.schema import Field, Schema
from gipi.train import text_recipes
from gipi.train.prepare import units

WORDS = Schema((Field("tokens", "text", "input", stats={"kind": "words"}),), "tag")
PIECES = Schema((Field("tokens", "text", "input", stats={"tokenizer": "{}"}),), "tag")
ASKED = Schema((Field("question", "text", "input"), Field("context", "text", "input")), "answer")


def test_the_net_follows_from_what_is_read() -> None:
    found = [text_recipes.guess(schema) for schema in (WORDS, PIECES, ASKED)]
    assert [f[0] for f in found if f is not None] == ["bilstm-tagger", "bert", "bert"]
    assert all(f is not None and f[1] for f in found)


def test_what_is_read_follows_from_the_net() -> None:
    assert units(Config()) == "words"
    assert units(Config(tokenizer="bpe")) == "pieces"
    assert units(Config(model="bilstm-tagger")) == "words"
    assert units(Config(model="bert")) == "pieces"


def test_the_pace_of_the_tagger() -> None:
    large = text_recipes.recipe("tag", "bilstm-tagger", WORDS, 13_678)
    assert (large["batch_size"], large["clip_norm"], large["epochs"]) == (32, 5.0, 13)
    assert large["lr"] == pytest.approx(0.00495, abs=1e-5)
    small = text_recipes.recipe("tag", "bilstm-tagger", WORDS, 100)
    assert (small["batch_size"], small["epochs"]) == (8, 40)


def test_few_questions_are_said() -> None:
    assert "far too few" in text_recipes.honest(ASKED, 5_000)
    assert text_recipes.honest(ASKED, 80_000) == ""


@pytest.mark.parametrize("schema", [WORDS, ASKED])
def test_models_without_the_head_are_refused_with_those_that_have_it(schema: Schema) -> None:
    text_recipes.check_reads(models.MODELS.get("bert"), schema, models.MODELS)
    with pytest.raises(ModelError, match="no head for the task") as error:
        text_recipes.check_reads(models.MODELS.get("textcnn"), schema, models.MODELS)
    assert "bert" in error.value.needed
