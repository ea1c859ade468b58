"""What is chosen for texts, and what it leaves to the user."""

from __future__ import annotations

import pytest

from gipi import models
from gipi.core.errors import ModelError
from gipi.core.registry import Record
from gipi.core.schema import Field, Schema
from gipi.train import text_recipes
from gipi.train.recipes import guess_model, recipe_for

TARGET = Field("y", "category", "target", classes=("a", "b"))
ONE = Schema((Field("t", "text", "input"), TARGET))
TWO = Schema((Field("t", "text", "input"), Field("u", "text", "input"), TARGET))


def test_the_model_follows_from_the_texts_with_a_reason() -> None:
    assert guess_model(ONE)[0] == "textcnn"
    assert "the input is text:" in guess_model(ONE)[1]
    assert "pairs of texts" in guess_model(TWO)[1]


@pytest.mark.parametrize("model", ["textcnn", "lstm", "gru", "rnn", "fasttext", "another"])
def test_batch_and_epochs_follow_from_the_rows(model: str) -> None:
    few = recipe_for("classify", model, ONE, 200).values
    many = recipe_for("classify", model, ONE, 1_000_000).values
    assert few["batch_size"] < many["batch_size"] == 64
    assert few["epochs"] > many["epochs"] >= 4
    assert few["lr"] < many["lr"]


def test_the_users_optimizer_drops_what_does_not_go_with_it() -> None:
    values = recipe_for("classify", "textcnn", ONE, 500, optimizer="sgd").values
    assert "weight_decay" not in values
    assert values["lr"] == 0.1


def test_a_model_that_reads_no_text_is_refused() -> None:
    with pytest.raises(ModelError, match="the model 'mlp' reads no text, and 't' is text") as error:
        text_recipes.check_reads(models.MODELS.get("mlp"), ONE, models.MODELS)
    assert "textcnn" in error.value.needed
    writer = Record("gpt", None, "writes", tags=("text", "language"))
    with pytest.raises(ModelError, match="'gpt' writes tokens, and the task is to classify"):
        text_recipes.check_reads(writer, ONE, [*models.MODELS, writer])
    text_recipes.check_reads(models.MODELS.get("lstm"), ONE, models.MODELS)
    text_recipes.check_reads(models.MODELS.get("mlp"), Schema((TARGET,)), models.MODELS)


def test_few_texts_are_said_to_be_few() -> None:
    assert "are few" in text_recipes.honest(ONE, 100)
    assert text_recipes.honest(ONE, 100_000) == ""
    assert text_recipes.honest(Schema((TARGET,)), 100) == ""
