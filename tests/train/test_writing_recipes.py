"""The default net and recipe of tasks that write texts."""

from __future__ import annotations

import pytest

from gipi import models
from gipi.core.errors import ModelError
from gipi.core.schema import Field, Schema
from gipi.train.recipes import guess_model, recipe_for
from gipi.train.text_recipes import check_reads
from gipi.train.writing_recipes import shape

SCHEMA = Schema((Field("a", "text", "input"), Field("b", "text", "target")), "translate")


@pytest.mark.parametrize("rows", [50, 3_000, 29_000, 1_000_000])
@pytest.mark.parametrize("model", ["transformer", "gru"])
def test_a_recipe_for_any_number_of_pairs(rows: int, model: str) -> None:
    values = recipe_for("translate", model, SCHEMA, rows).values
    assert 8 <= values["batch_size"] <= 128
    assert 4 <= values["epochs"] <= 60
    assert values["clip_norm"] == 1.0
    if model == "gru":
        assert values["model_options"]["topology"] == "encoder-decoder"
    else:
        assert values["model_options"] == shape(rows)


def test_another_optimizer_gets_a_rate_of_its_own() -> None:
    assert recipe_for("translate", "transformer", SCHEMA, 29_000).values["lr"] == 0.02
    other = recipe_for("translate", "transformer", SCHEMA, 29_000, optimizer="adamw").values
    assert other["lr"] == 3e-3
    assert "optimizer" not in other
    assert (
        recipe_for("translate", "transformer", SCHEMA, 29_000, optimizer="sgd").values["lr"] == 0.1
    )


def test_a_text_for_a_text_is_written_by_a_transformer() -> None:
    assert guess_model(SCHEMA)[0] == "transformer"


def test_models_that_answer_once_are_refused() -> None:
    with pytest.raises(ModelError, match="(?s)'bert' writes no text.*transformer.*leave --model"):
        check_reads(models.MODELS.get("bert"), SCHEMA, models.MODELS)
    check_reads(models.MODELS.get("lstm"), SCHEMA, models.MODELS)
    once = Schema((SCHEMA.fields[0], Field("y", "category", "target")), "classify")
    check_reads(models.MODELS.get("lstm"), once, models.MODELS)
    with pytest.raises(ModelError, match="'transformer' writes tokens"):
        check_reads(models.MODELS.get("transformer"), once, models.MODELS)
