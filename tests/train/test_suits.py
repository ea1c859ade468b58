"""Every model beside every kind of data: it is taken, or refused in words that name both."""

from __future__ import annotations

import pytest

from gipi.core.errors import ModelError
from gipi.core.registry import Record
from gipi.core.schema import Field, Schema
from gipi.models import MODELS
from gipi.train import recipes, suits
from gipi.train.suits import suited

CLASS = Field("y", "category", "target", classes=("a", "b"))
PICTURE = Field("p", "image", "input", shape=(3, 32, 32))
TEXT = Field("t", "text", "input", stats={"vocab": 9, "length": 8, "pad": 0})
WORDS = Field("t", "text", "input", stats={"vocab": 9, "length": 8, "pad": 0, "words": ["a"]})
SCHEMAS = {
    "table": Schema((Field("a", "number", "input"), CLASS)),
    "pictures": Schema((PICTURE, CLASS)),
    "masks": Schema((PICTURE, Field("m", "mask", "target")), "segment"),
    "boxes": Schema((PICTURE, Field("b", "boxes", "target")), "detect"),
    "points": Schema((PICTURE, Field("k", "keypoints", "target")), "pose"),
    "texts": Schema((TEXT, CLASS)),
    "tags": Schema((WORDS, Field("g", "tags", "target", classes=("O", "B-X"))), "tag"),
    "questions": Schema((TEXT, Field("c", "text", "input"), Field("z", "answers", "target")),
                        "answer"),
    "pairs": Schema((TEXT, Field("u", "text", "input")), "embed"),
    "parallel": Schema((TEXT, Field("u", "text", "target")), "translate"),
    "running text": Schema((TEXT,), "generate"),
    "hidden words": Schema((TEXT,), "masked"),
}  # fmt: skip
TAKEN = {
    "table": {"perceptron", "linear", "mlp"},
    "pictures": {"perceptron", "linear", "mlp", "lenet5", "resnet20", "lightnet", "densenet121"},
    "masks": {"unet", "deeplabv3", "fcn"},
    "boxes": {"fcos", "retinanet"},
    "points": {"heatmap", "landmarks"},
    "texts": {"rnn", "lstm", "gru", "textcnn", "fasttext", "bert", "pretrained"},
    "tags": {"bilstm-tagger", "bert", "pretrained"},
    "questions": {"bilstm-reader", "bert", "pretrained"},
    "pairs": {"embedder", "pretrained"},
    "parallel": {"transformer", "rnn", "lstm", "gru", "t5"},
    "running text": {"gpt2", "llama", "rnn", "lstm", "gru"},
    "hidden words": {"bert"},
}
"""Some of those that must be taken; of small kinds all of them."""
WHOLE = set(SCHEMAS) - {"pictures"}


def refusal(name: str, schema: Schema) -> ModelError | None:
    """Return what is said against a model; None where it is taken."""
    try:
        assert suited(name, schema) == name
    except ModelError as error:
        return error
    return None


@pytest.mark.parametrize("kind", SCHEMAS)
def test_each_model_is_taken_or_refused_in_words(kind: str) -> None:
    refused = {r.name: error for r in MODELS if (error := refusal(r.name, SCHEMAS[kind]))}
    for name, error in refused.items():
        assert f"'{name}'" in error.found
        assert error.needed
        assert "--model" in error.do
    taken = {r.name for r in MODELS} - set(refused)
    assert taken >= TAKEN[kind]
    assert kind not in WHOLE or taken == TAKEN[kind]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_what_is_guessed_suits(kind: str) -> None:
    if kind == "running text":  # its recipe needs a window, not looked at here
        assert suited("gpt2", SCHEMAS[kind]) == "gpt2"
        return
    name, _ = recipes.guess_model(SCHEMAS[kind])
    assert suited(name, SCHEMAS[kind]) == name


@pytest.mark.parametrize("name", ["resnet18", "mlp"])
def test_columns_beside_a_picture_are_refused_by_name(name: str) -> None:
    size = Field("size", "number", "input")
    with pytest.raises(ModelError, match="is a picture, and beside it stand the columns 'size'"):
        suited(name, Schema((PICTURE, size, CLASS)))
    kind = Field("kind", "category", "input", stats={"classes": ["a"]})
    both = Schema((PICTURE, kind, CLASS))
    if name == "mlp":
        assert suited(name, both) == name  # it embeds categories
        return
    with pytest.raises(ModelError) as error:
        suited(name, both)
    assert "schema.kind=ignored" in error.value.do
    assert "schema.p=ignored" in error.value.do


def test_a_model_of_someone_elses_is_not_judged_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Known:
        def get(self, name: str) -> Record:
            return Record(name, None, "strange")  # type: ignore[arg-type]

    monkeypatch.setattr(suits, "MODELS", Known())
    assert suited("strange", SCHEMAS["table"]) == "strange"
    assert suited("strange", SCHEMAS["pictures"]) == "strange"
