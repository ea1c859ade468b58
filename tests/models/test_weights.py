"""Weights from elsewhere: every tensor of the file and of the model is accounted for."""

from __future__ import annotations

import random
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import gipi
from gipi import models
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Signature
from gipi.models import compare_weights, load_weights


def net(classes=4, seed=0, name="resnet20", **options):
    signature = Signature(image=(3, 8, 8), outputs=classes)
    return models.build(name, signature, seed=seed, options=options)


def same(a: nn.Module, b: nn.Module, but: tuple[str, ...] = ()) -> bool:
    other = b.state_dict()
    return all(torch.equal(t, other[n]) for n, t in a.state_dict().items() if n not in but)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".th", ".safetensors"])
def test_every_kind_of_file_fills_every_tensor(tmp_path, ending):
    source, target = net(seed=1), net(seed=2)
    source.bn1.running_mean.fill_(3.0)
    path = tmp_path / f"w{ending}"
    (save_file if ending == ".safetensors" else torch.save)(source.state_dict(), path)
    report = load_weights(target, path)
    assert same(source, target)
    assert report.complete
    assert list(report.loaded) == list(source.state_dict())
    assert report.lines() == [f"weights {path}: {len(report.loaded)} tensors loaded"]


@pytest.mark.parametrize(
    ("wrap", "stripped"),
    [
        (lambda s: {"state_dict": s}, ()),
        (lambda s: {"model": {"state_dict": s}}, ()),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, ("module.",)),
        (lambda s: {f"model.{k}": v for k, v in s.items()}, ("model.",)),
        (lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()}, ("module.", "_orig_mod.")),
        (lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()}, ("_orig_mod.", "module.")),
        (lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 3},
         ("model.",)),
    ],
)  # fmt: skip
def test_wrappers_and_prefixes_come_off(tmp_path, wrap, stripped):
    source, target = net(seed=1), net(seed=2)
    torch.save(wrap(source.state_dict()), tmp_path / "w.pt")
    report = load_weights(target, tmp_path / "w.pt")
    assert same(source, target)
    assert report.stripped == stripped
    assert report.complete


def test_a_prefix_of_the_models_own_names_stays(tmp_path):
    source = nn.ModuleDict({"model": nn.Linear(2, 1)})
    torch.save(source.state_dict(), tmp_path / "w.pt")
    report = load_weights(nn.ModuleDict({"model": nn.Linear(2, 1)}), tmp_path / "w.pt")
    assert report.stripped == ()
    assert report.complete


def test_what_lies_beside_the_weights_is_named(tmp_path):
    torch.save({"state_dict": net().state_dict(), "epoch": 3, "best_prec1": 0.5}, tmp_path / "w.pt")
    report = load_weights(net(), tmp_path / "w.pt")
    assert report.beside == ("epoch", "best_prec1")
    assert "  beside the weights, not read: epoch, best_prec1" in report.lines()


def test_other_tensors_beside_a_prefix_are_unexpected_not_lost(tmp_path):
    state = {f"model.{k}": v for k, v in net(seed=1).state_dict().items()}
    torch.save({**state, "criterion.weight": torch.ones(4)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"unexpected: criterion\.weight"):
        load_weights(net(), tmp_path / "w.pt")
    target = net(seed=2)
    report = load_weights(target, tmp_path / "w.pt", partial=True)
    assert report.unexpected == ("criterion.weight",)
    assert same(net(seed=1), target)


def test_counters_that_old_files_lack_are_no_difference(tmp_path):
    state = {k: v for k, v in net(seed=1).state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pt")
    report = load_weights(net(seed=2), tmp_path / "w.pt")
    assert report.complete
    assert len(report.counters) == 19
    assert "  batch counters that old files lack, left at 0: 19" in report.lines()


def test_a_head_for_other_classes_is_refused_unless_asked(tmp_path):
    torch.save(net(10, seed=1).state_dict(), tmp_path / "w.pt")
    target = net(4, seed=2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ModelError, match="only the head differs") as caught:
        load_weights(target, tmp_path / "w.pt")
    assert "linear.weight [10, 64] in the file, [4, 64] in the model" in caught.value.found
    assert "as many classes as the weights have (10)" in caught.value.do
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())
    report = load_weights(target, tmp_path / "w.pt", partial=True)
    assert [name for name, *_ in report.resized] == ["linear.weight", "linear.bias"]
    assert same(net(10, seed=1), target, but=("linear.weight", "linear.bias"))
    assert torch.equal(target.linear.weight, before["linear.weight"])
    line = next(one for one in report.lines() if "of another size" in one)
    assert "linear.bias [10] in the file, [4] in the model" in line


def test_missing_tensors_are_all_named(tmp_path):
    state = net(seed=1).state_dict()
    for key in ("layer3.2.conv2.weight", "bn1.bias"):
        del state[key]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"missing: bn1\.bias, layer3\.2\.conv2\.weight"):
        load_weights(net(), tmp_path / "w.pt")
    assert compare_weights(net(), tmp_path / "w.pt").missing == (
        "bn1.bias", "layer3.2.conv2.weight",
    )  # fmt: skip


def test_an_error_stays_short_and_counts_the_rest(tmp_path):
    torch.save(net(name="resnet32").state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="and 68 more") as caught:
        load_weights(net(), tmp_path / "w.pt")
    assert len(str(caught.value).splitlines()) < 12
    assert "compare_weights lists every name" in caught.value.do
    assert len(compare_weights(net(), tmp_path / "w.pt").unexpected) == 72


@pytest.mark.parametrize("partial", [False, True])
def test_a_file_of_which_nothing_fits_is_refused_whatever_was_asked(tmp_path, partial):
    torch.save({"w": torch.ones(3)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="no tensor in"):
        load_weights(net(), tmp_path / "w.pt", partial=partial)


def test_the_names_of_2017_fill_a_densenet(tmp_path):
    source, target = (net(name="densenet-bc", seed=s, depth=16) for s in (1, 2))
    old = {}
    for key, tensor in source.state_dict().items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")  # noqa: PLW2901
        old[key] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    report = load_weights(target, tmp_path / "w.pth")
    assert report.complete
    assert same(source, target)
    assert "features.denseblock1.denselayer1.norm.1.weight" in report.renamed


def test_half_precision_weights_are_widened(tmp_path):
    state = {
        k: v.half() if v.is_floating_point() else v for k, v in net(seed=1).state_dict().items()
    }
    torch.save(state, tmp_path / "w.pt")
    target = net()
    load_weights(target, tmp_path / "w.pt")
    assert target.conv1.weight.dtype == torch.float32
    assert torch.equal(target.conv1.weight, net(seed=1).conv1.weight.half().float())


class Bomb:
    """What a file of someone else may hold."""

    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Bomb(), r"cannot be read: it holds objects that are no tensors, such as \S*print"),
        (
            {"state_dict": {"a": torch.ones(1)}, "args": Bomb()},
            r"cannot be read: .* as \S*print",
        ),
        ([torch.ones(1)], "more than named tensors"),
        ({"conv1.weight": 3}, "more than named tensors"),
        ({3: torch.ones(1)}, "more than named tensors"),
    ],
)
def test_a_file_of_code_or_of_something_else_is_refused(tmp_path, capsys, content, words):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=words):
        load_weights(net(), tmp_path / "w.pt")
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", None])
def test_a_file_that_is_none_is_refused(tmp_path, ending, content):
    path = tmp_path / f"w{ending}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(net(), path)


@pytest.mark.parametrize(("name", "words"), [("none.pt", "there is no such file"),
                                             ("none.safetensors", "there is no such file"),
                                             ("folder.safetensors", "it is a folder")])  # fmt: skip
def test_a_wrong_path_is_not_taken_for_a_wrong_content(tmp_path, name, words):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ModelError, match=words) as caught:
        load_weights(net(), tmp_path / name)
    assert caught.value.do == "correct the path"


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_bytes_are_refused_whatever_they_break(tmp_path, kind):
    """Within the names and shapes, where the reader's own errors are of every kind."""
    source = tmp_path / f"w.{'safetensors' if kind == 'safetensors' else 'pt'}"
    state = nn.Linear(3, 2).state_dict()
    if kind == "safetensors":
        save_file(state, source)
    else:
        torch.save(state, source, _use_new_zipfile_serialization=kind == "zip")
    whole, generator = source.read_bytes(), random.Random(0)
    for _ in range(150):
        bad = bytearray(whole)
        for _ in range(generator.choice((1, 3, 9))):
            bad[generator.randrange(len(bad))] = generator.randrange(256)
        source.write_bytes(bad[: generator.choice((len(bad), generator.randrange(len(bad))))])
        with suppress(ModelError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_weights(nn.Linear(3, 2), source)


@pytest.mark.parametrize("content", [b"0", b"K", b"((((", b"a", b"\x80\x02}q\x00X", b"I1\n."])
def test_texts_that_look_like_a_pickle_are_refused(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read: damaged, or written by something else"):
        load_weights(net(), tmp_path / "w.pt")


def test_two_layouts_in_one_file_lose_no_tensor(tmp_path):
    """A name of 2017 beside the name that it would be translated to."""
    state = net(name="densenet-bc", seed=1, depth=16).state_dict()
    key = "features.denseblock1.denselayer1.norm1.weight"
    torch.save({**state, key.replace("norm1", "norm.1"): state[key] + 1}, tmp_path / "w.pt")
    target = net(name="densenet-bc", seed=2, depth=16)
    report = load_weights(target, tmp_path / "w.pt", partial=True)
    assert report.unexpected == (key.replace("norm1", "norm.1"),)
    assert torch.equal(target.state_dict()[key], state[key])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"classes": -1}, "classes=-1"),
        ({"classes": "10"}, "classes='10'"),
        ({"classes": 2.5}, "classes=2.5"),
        ({"channels": 0}, "channels=0"),
        ({"image": (3, 0, 5)}, r"image=\(3, 0, 5\)"),
        ({"image": (3, 8)}, r"image=\(3, 8\)"),
        ({"image": (3, 8, 8), "numbers": 4}, "a picture beside numbers"),
        ({"channels": 3, "vocab": 4}, "a picture beside numbers"),
    ],
)
def test_gipi_model_names_what_no_net_has(given, words):
    with pytest.raises(ConfigError, match=words):
        gipi.model("resnet20", **given)


def test_gipi_model_takes_whole_numbers_of_numpy():
    assert gipi.model("resnet20", classes=np.int64(3)).linear.out_features == 3


def test_gipi_model_takes_weights_variant_and_channels(tmp_path, capsys):
    source = gipi.model("resnet20", classes=5, channels=1, seed=1)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    filled = gipi.model("resnet20", classes=5, channels=1, weights=tmp_path / "w.pt")
    assert same(source, filled)
    assert f"{len(source.state_dict())} tensors loaded" in capsys.readouterr().out
    other = gipi.model("resnet20", classes=3, channels=1, weights=tmp_path / "w.pt", partial=True)
    assert other.linear.out_features == 3
    assert "of another size, not used: linear.weight [5, 64]" in capsys.readouterr().out
    with pytest.raises(ModelError, match="only the head differs"):
        gipi.model("resnet20", classes=3, channels=1, weights=tmp_path / "w.pt")


def test_gipi_model_has_the_published_picture_by_default():
    net18 = gipi.model("resnet18", classes=10)
    assert net18.config.stem == "imagenet"
    assert gipi.model("resnet18", channels=1, options={"norm": "group"}).conv1.in_channels == 1
    assert gipi.model("resnet18", image=(3, 32, 32)).config.stem == "cifar"
    assert gipi.model("resnet50", variant="v1").config.variant == "v1"
    with pytest.raises(ConfigError, match="variant"):
        gipi.model("resnet20", variant="v1")
    with pytest.raises(ConfigError, match="channels=1"):
        gipi.model("resnet18", channels=1, image=(3, 32, 32))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file"), [("resnet20", "resnet20-12fca82f.th"), ("resnet32", "resnet32-d509ac18.th")]
)
def test_the_published_checkpoints_load_whole(data_folder, name, file):
    path = data_folder / "checkpoints" / file
    if not path.exists():
        pytest.skip(f"no {file} among the data sets")
    model = models.build(name, Signature(image=(3, 32, 32), outputs=10))
    report = load_weights(model, path)
    assert report.complete
    assert report.stripped == ("module.",)
    assert report.beside == ("best_prec1",)
    assert model.linear.weight.abs().max() > 1  # trained: far from its initial values


def test_counters_of_batches_alone_are_no_weights(tmp_path):
    """They are numbers without a shape, so they fit every net with layers of the same names."""
    narrow = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    wide = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    torch.save(narrow.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="no tensor in"):
        load_weights(wide, tmp_path / "w.pt", partial=True)
