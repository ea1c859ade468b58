from pathlib import Path

import pytest

from gipi.core.config import Config
from gipi.core.errors import ConfigError
from gipi.core.resolve import (
    layer,
    layer_from_file,
    layer_from_flags,
    layer_from_text,
    layer_from_values,
    resolve,
    seconds,
    to_values,
)
from gipi.core.yamlfile import parse_value, scalar


def flags(*settings, **values):
    return resolve(layer_from_flags(values, settings)).config


def message(call):
    with pytest.raises(ConfigError) as caught:
        call()
    assert len(str(caught.value).splitlines()) < 12
    return str(caught.value)


def test_flags_are_typed_by_their_keys():
    config = flags("model.widths=[256, 128]", "schema.age=number", lr="1e-2", epochs="2.5")
    assert (config.lr, config.epochs) == (0.01, 2.5)
    assert config.model_options == {"widths": [256, 128]}
    assert config.schema_overrides == {"age": "number"}
    assert flags(batch_size="full").batch_size == "full"
    assert flags(steps="1e3").steps == 1000
    assert flags(target="2020").target == "2020"
    assert flags("target=007").target == "007"
    assert flags("normalise=none").normalise == "none"


def test_a_single_word_stands_for_a_list_of_one():
    assert flags("augment=flip").augment == ("flip",)


def test_yaml_means_what_people_mean():
    found = [scalar(t) for t in ("1e-3", "on", "no", "010", "10:30", "2020-01-01", "~", "true")]
    assert found == [0.001, "on", "no", 10, "10:30", "2020-01-01", None, True]
    assert resolve(layer_from_text("compile: on\nlr: 1e-3")).config.compile == "on"
    assert parse_value("[1, a, '2']") == [1, "a", "2"]


def test_precedence_and_origins(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text("lr: 0.1\nbatch_size: 32\nseed: 0\n")
    recipe = layer("recipe", [("lr", 0.5, "recipe mlp"), ("clip_norm", 1.0, "recipe mlp")])
    resolved = resolve(recipe, layer_from_file(file), layer_from_flags({"lr": "0.2"}, ()))
    assert (resolved.config.lr, resolved.config.batch_size) == (0.2, 32)
    assert resolved.config.clip_norm == 1.0
    assert resolved.origins == {
        "lr": "--lr",
        "clip_norm": "recipe mlp",
        "batch_size": f"{file} line 2",
    }  # seed: 0 is the default, wherever it was written


def test_budgets_replace_each_other_across_layers_and_exclude_each_other_within_one():
    recipe = layer("recipe", [("epochs", 10, "recipe")])
    config = resolve(recipe, layer_from_flags({"time": "10m"}, ())).config
    assert (config.epochs, config.steps, config.time) == (None, None, 600.0)
    found = message(lambda: resolve(layer_from_flags({"epochs": "1", "steps": "5"}, ())))
    assert "--epochs and --steps" in found
    with pytest.raises(ValueError, match="only one budget"):
        Config(epochs=1, steps=5)


def test_another_name_drops_the_options_of_the_old_one():
    recipe = layer_from_values({"model": "mlp", "model_options": {"widths": [8]}}, "recipe")
    other = resolve(recipe, layer_from_flags({"model": "lenet5"}, ()))
    assert other.config.model_options == {}
    assert "model.widths" not in other.origins
    same = resolve(recipe, layer_from_flags({"model": "mlp"}, ("model.dropout=0.1",)))
    assert same.config.model_options == {"widths": [8], "dropout": 0.1}


def test_options_can_be_written_in_three_ways():
    nested = resolve(layer_from_text("model: {name: mlp, widths: [3]}")).config
    dotted = resolve(layer_from_text("model: mlp\nmodel.widths: [3]")).config
    plain = resolve(layer_from_text("model: mlp\nmodel_options: {widths: [3]}")).config
    assert nested == dotted == plain


def test_a_run_file_can_be_given_again(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("config: {lr: 0.25}\norigins: {lr: --lr}\nabout: {torch: '2'}\n")
    resolved = resolve(layer_from_file(file))
    assert resolved.config.lr == 0.25
    assert resolved.origins == {"lr": f"{file} line 1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("10m", 600), ("1h30m", 5400), ("2.5s", 2.5), ("1 h", 3600), (5, 5)],
)
def test_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "10x", "-5", "1h30", "ten"])
def test_seconds_refuses(text):
    assert "--time 10m" in message(lambda: seconds(text))


def test_values_survive_a_round_through_yaml():
    config = flags("model.widths=[4]", "augment=[flip, {crop: 2}]", lr="0.2", time="3m")
    assert resolve(layer_from_values(to_values(config))).config == config


def test_every_problem_is_listed():
    found = message(lambda: flags("batch_size=0", lr="-1", epochs="abc", val="2"))
    for part in ("lr = -1 (--lr)", "batch_size = 0", "epochs = 'abc'", "val = 2"):
        assert part in found


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["lrr=1"], ["unknown key 'lrr'", "'lr'"]),
        (["epoch=1"], ["did you mean 'epochs'?"]),
        (["modle.widths=1"], ["unknown section 'modle'", "'model.widths'"]),
        (["model.=1"], ["names no option"]),
        (["lr"], ["has no '='"]),
        (["=3"], ["has no '='"]),
        (["lr=1", "lr=2"], ["given twice"]),
        (["model.a=1", "model.a=2"], ["model.a is given twice"]),
        (["schema.age=numbr"], ["did you mean 'number'?"]),
        (["model.widths=[1, 2"], ["not valid YAML"]),
        (["ema=0.9", "swa=0.5"], ["choose one"]),
        (["val=0.6", "test=0.5"], ["leave rows to train on"]),
        (["compile=maybe"], ["'auto', 'on' or 'off'"]),
        (["lr=.nan"], ["lr = nan"]),
        (["seed=-1"], ["seed = -1", "greater than or equal to 0"]),
    ],
)
def test_wrong_settings_name_the_culprit_and_the_fix(settings, parts):
    found = message(lambda: flags(*settings))
    for part in parts:
        assert part in found


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("epochs: 3\nepocs: 4\n", ["unknown key 'epocs' (f.yaml line 2)", "'epochs'"]),
        ("epochs: 3\n  a: [4\n", ["f.yaml line 2"]),
        ("lr: 0.1\nlr: 0.2\n", ["f.yaml line 2", "given twice"]),
        ("a: &x [1]\nb: *x\n", ["anchors", "f.yaml line 1"]),
        ("a: &x [*x]\n", ["anchors"]),
        ("- 1\n- 2\n", ["line 1 is not a `key: value`"]),
        ("lr: 0.1\n\tseed: 1\n", ["f.yaml line 2"]),
        ("? [1]\n: 2\n", ["a key must be a word"]),
        ("[" * 5000, ["f.yaml"]),
        ("lr: '\x01'\n", ["f.yaml"]),
    ],
)
def test_wrong_files_name_the_line(text, parts):
    found = message(lambda: resolve(layer_from_text(text, "f.yaml")))
    for part in parts:
        assert part in found


def test_files_that_cannot_be_read(tmp_path):
    assert "does not exist" in message(lambda: layer_from_file(tmp_path / "no.yaml"))
    assert "is a folder" in message(lambda: layer_from_file(tmp_path))
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in message(lambda: layer_from_file(binary))
    assert "cannot be read" in message(lambda: layer_from_file(Path("a\0b")))
