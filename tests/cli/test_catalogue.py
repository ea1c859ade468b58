"""`gipi list` and `gipi show`: everything is listed, and every part explains itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import Field

from gipi.cli import catalogue, main
from gipi.cli.options import Option, choices, meanings, option_rows, words
from gipi.core.registry import Record


def shown(name, capsys):
    assert main(["show", name]) == 0
    return capsys.readouterr().out


# ------------------------------------------------------------------------ every part


@pytest.mark.parametrize("kind", list(catalogue.KINDS))
def test_every_kind_is_listed_completely(kind, capsys):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == catalogue.registry(kind).names()
    assert all(len(line.split()) > 1 for line in lines)


@pytest.mark.parametrize("kind", list(catalogue.KINDS))
def test_everything_can_be_shown_with_its_source(kind, capsys):
    for record in catalogue.registry(kind):
        one = catalogue.describe(kind, record)
        json.dumps(one)
        text = shown(record.name, capsys)
        first = "models" if kind == "backbones" else kind  # a backbone is a model and shown as one
        assert f"{record.name} ({first})" in text
        for value in one["facts"].values():
            if isinstance(value, str):
                assert value.split()[-1] in text
        for name, row in one["options"].items():
            assert name == row["name"]
            assert name in text


@pytest.mark.parametrize("kind", ["activations", "inits", "norms", "layers", "losses", "metrics",
                                  "optimizers"])  # fmt: skip
def test_every_part_has_a_formula_and_a_source(kind):
    records = list(catalogue.registry(kind))
    assert [r.name for r in records if not r.facts.get("formula")] == []
    assert [r.name for r in records if not r.citation] == []


def test_a_problem_of_the_doctor_is_explained(capsys):
    text = " ".join(shown("dead_relu", capsys).split())
    for said in (
        "what is seen many units are 0", "why it hurts where a ReLU is closed",
        "looked for before the first step and after 10 %, 25 %, 50 % and all of a run",
        "brings about vanishing_gradient", "may come from", "Maas, Hannun and Ng",
    ):  # fmt: skip
        assert said in text
    assert "lr_too_high" in text.split("may come from")[1]
    assert "may come from" not in shown("nan_in_data", capsys)


def test_all_there_is_to_say_about_relu(capsys):
    text = shown("relu", capsys)
    for line in ("max(x, 0)", "[0, ∞)", "1 where x > 0, else 0", "when to use it", "how it fails",
                 "torch.nn.ReLU", "Nair and Hinton 2010"):  # fmt: skip
        assert line in text


def test_other_names_lead_to_the_same_page(capsys):
    assert shown("swish", capsys) == shown("silu", capsys)
    assert "identity (activations)" in shown("linear", capsys)


# ------------------------------------------------------------------------ options


def test_options_of_lenet5_have_type_values_default_and_meaning(capsys):
    text = shown("lenet5", capsys)
    assert "variant     modern, 1998 (default 'modern')" in text
    assert "activation  text (default 'auto')" in text
    rows = {r.name: r for r in option_rows(catalogue.registry("models").get("lenet5"))}
    assert rows["variant"].values == ("modern", "1998")
    assert rows["variant"].meaning.startswith("modern (max pooling")
    assert all(r.meaning and r.default for r in rows.values())


def test_options_of_functions_classes_and_optimizers():
    def of(kind, name):
        return {r.name: r for r in option_rows(catalogue.registry(kind).get(name))}

    assert of("activations", "leaky-relu") == {
        "negative_slope": Option("negative_slope", "float", (), "0.01")
    }
    assert of("layers", "conv")["padding_mode"].values == (
        "zeros", "reflect", "replicate", "circular",
    )  # fmt: skip
    assert of("layers", "conv")["in_channels"].default == "required"
    assert of("optimizers", "adam")["eps"] == Option("eps", "float", (), "1e-08")
    assert of("optimizers", "sgd") == {}
    assert of("activations", "step")["straight_through"].values == ("true", "false")


def test_every_option_of_every_model_is_explained():
    silent = [
        f"{record.name}.{row.name}"
        for record in catalogue.registry("models")
        for row in option_rows(record)
        if not (row.meaning and row.default and (row.type or row.values))
    ]
    assert silent == []


@dataclass(frozen=True)
class Own:
    """Own.

    size   of the thing,
           in pixels
    kind   which
    """

    size: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    kind: Literal["auto", "a", "b"] = "auto"
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5


def test_types_in_words():
    rows = option_rows(Record("own", Own, "", facts={"config": Own}))
    assert rows == (
        Option("size", "list of int > 0 or none", (), "None", "of the thing, in pixels"),
        Option("kind", "text", ("auto", "a", "b"), "'auto'", "which"),
        Option("share", "float >= 0 and < 1", (), "0.5", ""),
    )
    assert words("Sequence[float] | None") == "list of float or none"
    assert choices("Literal['x', 'y']") == ("x", "y")
    assert choices(str) == ()


def test_meanings_end_where_the_list_ends():
    text = "Do.\n\na   one\n    more\n\nNot this.\nb   two"
    assert meanings(text) == {"a": "one more", "b": "two"}
    assert catalogue.without_meanings(text, {"a"}) == "Do.\n\n\nNot this.\nb   two"


def test_the_builder_of_a_part_is_named():
    names = {
        ("activations", "relu"): "torch.nn.ReLU",
        ("activations", "softmax"): "torch.nn.Softmax",
        ("optimizers", "adamw"): "torch.optim.AdamW",
        ("layers", "drop-path"): "gipi.nn.branches.DropPath",
        ("norms", "batch"): "",
        ("advice", "relu-first"): "",
    }
    for (kind, name), said in names.items():
        assert catalogue.built_by(catalogue.registry(kind).get(name)) == said


def test_the_beginning_of_several_names_gets_all_of_them(capsys):
    assert main(["show", "densenet1"]) == 2
    assert "did you mean one of densenet121, densenet161, densenet169?" in capsys.readouterr().err
    assert main(["show", "densnet121"]) == 2
    assert "did you mean 'densenet121'?" in capsys.readouterr().err
