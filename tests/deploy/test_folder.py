"""Model folders: the same bits come back, ties stay tied, damage and strangers are refused."""

import json

import pytest
import torch
from torch import nn

from gipi import models
from gipi.core.atomic import read_folder, write_folder
from gipi.core.errors import CheckpointError, ConfigError, ModelError
from gipi.core.schema import Field, Schema, Signature
from gipi.deploy import load_model_folder, save_model_folder, weights_sha256
from gipi.deploy.folder import MODEL_JSON, WEIGHTS, fingerprint, is_model_folder, unwrapped

TABLE = Signature(numbers=3, cardinalities=(4, 3), outputs=5)
IMAGE = Signature(image=(1, 8, 8), outputs=10)
SCHEMA = Schema(
    (
        Field("age", "number", "input", stats={"mean": 1.5, "std": 2.0}),
        Field("size", "category", "target", classes=("small", "große", "큰")),
    ),
    "classify",
    "3 distinct words",
)
CASES = [
    (record.name, signature)
    for record in models.MODELS
    for kind, signature in (("table", TABLE), ("image", IMAGE))
    if kind in record.tags
]


def save(path, model, *, name=None, options=None, signature=TABLE, **more):
    return save_model_folder(
        path, model=model, model_name=name, options=options or {}, signature=signature,
        schema=SCHEMA, task_spec=("classify", {"label_smoothing": 0.1}), **more,
    )  # fmt: skip


def changed(path, change):
    """Write the folder again with another model.json and a manifest that fits it."""
    files = read_folder(path)
    about = json.loads(files[MODEL_JSON])
    change(about)
    write_folder(path, {**files, MODEL_JSON: json.dumps(about).encode()})


def same(a, b):
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


class Tied(nn.Module):
    """A module of a user's own with every difficulty: ties, buffers, odd layouts and dtypes."""

    def __init__(self, width=4):
        super().__init__()
        self.embed = nn.Embedding(6, width)
        self.head = nn.Linear(width, 6, bias=False)
        self.head.weight = self.embed.weight
        self.turned = nn.Parameter(torch.randn(3, 5).T)
        self.norm = nn.BatchNorm1d(width)
        flat = torch.arange(10.0)
        self.register_buffer("first", flat[:4])
        self.register_buffer("rest", flat[4:])
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("other_none", torch.zeros(0))
        self.register_buffer("brief", torch.randn(3).bfloat16())
        self.register_buffer("wave", torch.randn(3, dtype=torch.complex64))
        self.register_buffer("scalar", torch.tensor(2.5, dtype=torch.float64))

    def forward(self, x):
        return self.head(self.norm(self.embed(x)))


@pytest.mark.parametrize("name, signature", CASES)
def test_every_model_comes_back_bit_for_bit(tmp_path, name, signature):
    model = models.build(name, signature, seed=3)
    sha = save(tmp_path / "model", model, name=name, signature=signature)
    got = load_model_folder(tmp_path / "model")
    assert same(got.model.state_dict(), model.state_dict())
    assert sha == got.weights_sha256 == weights_sha256(got.model) == weights_sha256(model)
    assert not got.model.training
    assert (got.model_name, got.signature, got.schema) == (name, signature, SCHEMA)
    assert got.task.spec == ("classify", got.task.spec[1])
    assert got.task.spec[1]["label_smoothing"] == 0.1
    gen = torch.Generator().manual_seed(0)
    if signature.image:
        inputs = (torch.randn(7, *signature.image, generator=gen),)
    else:
        codes = torch.stack([torch.randint(c, (7,), generator=gen) for c in (4, 3)], 1)
        inputs = (torch.randn(7, 3, generator=gen), codes)
    model.eval()
    assert torch.equal(got.model(*inputs), model(*inputs))


def test_options_are_kept(tmp_path):
    options = {"widths": [8, 4], "activation": "tanh"}
    model = models.build("mlp", TABLE, options=options)
    save(tmp_path / "m", model, name="mlp", options=options, extra={"scores": [0.5]})
    got = load_model_folder(tmp_path / "m")
    assert same(got.model.state_dict(), model.state_dict())
    assert got.model.config == model.config
    assert got.extra == {"scores": [0.5]}


def test_a_model_trained_in_another_precision_keeps_it(tmp_path):
    model = models.build("mlp", TABLE).double()
    save(tmp_path / "m", model, name="mlp")
    got = load_model_folder(tmp_path / "m").model
    assert same(got.state_dict(), model.state_dict())


def test_ties_are_stored_once_and_stay_tied(tmp_path):
    torch.manual_seed(0)
    model = Tied()
    save(tmp_path / "m", model)
    about = json.loads((tmp_path / "m" / MODEL_JSON).read_text())
    assert about["tensors"]["tied"] == {"head.weight": "embed.weight"}
    one = (tmp_path / "m" / WEIGHTS).stat().st_size
    model.head.weight = nn.Parameter(model.embed.weight.detach().clone())
    save(tmp_path / "untied", model)
    assert (tmp_path / "untied" / WEIGHTS).stat().st_size >= one + 6 * 4 * 4
    fresh = Tied()
    got = load_model_folder(tmp_path / "m", module=fresh).model
    assert got is fresh
    assert got.head.weight is got.embed.weight
    assert torch.equal(got.embed.weight, model.embed.weight)


def test_buffers_views_layouts_and_dtypes_come_back(tmp_path):
    torch.manual_seed(0)
    model = Tied()
    model(torch.arange(6))  # the norm's running figures move
    sha = save(tmp_path / "m", model)
    got = load_model_folder(tmp_path / "m", module=Tied()).model
    assert same(got.state_dict(), model.state_dict())
    assert weights_sha256(got) == sha


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while compile is imported
def test_the_weights_do_not_depend_on_memory_format_or_wrapping(tmp_path):
    model = models.build("lenet5", IMAGE)
    plain = weights_sha256(model)
    assert weights_sha256(model.to(memory_format=torch.channels_last)) == plain
    assert weights_sha256(torch.compile(model)) == plain
    assert unwrapped(torch.compile(model)) is model
    save(tmp_path / "m", torch.compile(model), name="lenet5", signature=IMAGE)
    assert weights_sha256(load_model_folder(tmp_path / "m").model) == plain


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["a"].view(torch.int32).bitwise_xor_(torch.tensor([0, 0, 0, 1])),
        lambda s: s.update(a=s["a"].reshape(2, 2)),
        lambda s: s.update(a=s["a"].view(torch.int32)),
        lambda s: s.update(b=s.pop("a")),
    ],
)
def test_the_hash_sees_name_dtype_shape_and_every_bit(change):
    class Bag(nn.Module):
        def __init__(self, tensors):
            super().__init__()
            for name, tensor in tensors.items():
                self.register_buffer(name, tensor)

    tensors = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    before = weights_sha256(Bag(tensors))
    change(tensors)
    assert weights_sha256(Bag(tensors)) != before


def test_nothing_is_pickled_and_the_folder_is_three_files(tmp_path):
    save(tmp_path / "m", Tied())
    assert {p.name for p in (tmp_path / "m").iterdir()} == {WEIGHTS, MODEL_JSON, "manifest.json"}
    assert is_model_folder(tmp_path / "m")
    assert not is_model_folder(tmp_path)
    json.loads((tmp_path / "m" / MODEL_JSON).read_text())
    assert b"pickle" not in (tmp_path / "m" / WEIGHTS).read_bytes()


# ---------------------------------------------------------------------------- refusals


def test_a_module_of_ones_own_must_be_passed(tmp_path):
    save(tmp_path / "m", Tied())
    with pytest.raises(ModelError, match="module of your own") as caught:
        load_model_folder(tmp_path / "m")
    assert "module=Tied" in caught.value.do


def test_another_module_is_refused_with_the_difference(tmp_path):
    save(tmp_path / "m", Tied())
    with pytest.raises(ModelError, match=r"'embed.weight' is float32 \(6, 8\) in the module"):
        load_model_folder(tmp_path / "m", module=Tied(8))
    with pytest.raises(ModelError, match=r"is not in the weights.*and 1[0-9] more"):
        load_model_folder(tmp_path / "m", module=nn.Linear(2, 2))
    with pytest.raises(ModelError, match="float64"):
        load_model_folder(tmp_path / "m", module=Tied().double())


def test_another_class_with_equal_tensors_is_refused(tmp_path):
    class Other(Tied):
        pass

    save(tmp_path / "m", Tied())
    with pytest.raises(ModelError, match="trained in a Tied"):
        load_model_folder(tmp_path / "m", module=Other())
    assert fingerprint(Tied()) == fingerprint(Tied()) != fingerprint(Other())


@pytest.mark.parametrize("file", [WEIGHTS, MODEL_JSON, "manifest.json"])
def test_damage_is_named(tmp_path, file):
    save(tmp_path / "m", Tied())
    path = tmp_path / "m" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        load_model_folder(tmp_path / "m", module=Tied())


def test_a_newer_format_is_refused_in_words(tmp_path):
    save(tmp_path / "m", models.build("mlp", TABLE), name="mlp")
    changed(tmp_path / "m", lambda about: about.update(format_version=2))
    with pytest.raises(CheckpointError, match="format_version 2") as caught:
        load_model_folder(tmp_path / "m")
    assert "upgrade gipi" in caught.value.do


@pytest.mark.parametrize("key", ["model", "signature", "schema", "task", "tensors"])
@pytest.mark.parametrize("value", [None, 3, [], "text", {}])
def test_a_description_of_nonsense_is_no_traceback(tmp_path, key, value):
    save(tmp_path / "m", models.build("mlp", TABLE), name="mlp")
    changed(tmp_path / "m", lambda about: about.update({key: value}))
    with pytest.raises(CheckpointError):
        load_model_folder(tmp_path / "m")


@pytest.mark.parametrize("value", [None, [], "text", {}])
def test_a_format_version_of_nonsense_is_no_traceback(tmp_path, value):
    save(tmp_path / "m", models.build("mlp", TABLE), name="mlp")
    changed(tmp_path / "m", lambda about: about.update(format_version=value))
    with pytest.raises(CheckpointError, match="not a model's description"):
        load_model_folder(tmp_path / "m")


def test_weights_that_are_no_safetensors_are_damage(tmp_path):
    save(tmp_path / "m", Tied())
    files = read_folder(tmp_path / "m")
    write_folder(tmp_path / "m", {**files, WEIGHTS: b"\x80\x04pickle?"})
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_model_folder(tmp_path / "m", module=Tied())


def test_another_folder_is_no_model_folder(tmp_path):
    with pytest.raises(ConfigError, match="no model folder"):
        load_model_folder(tmp_path / "gone")
    write_folder(tmp_path / "x", {"a": b"b"})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is missing"):
        load_model_folder(tmp_path / "x")


def test_state_that_is_no_tensor_is_never_pickled(tmp_path):
    class Strange(nn.Module):
        def get_extra_state(self):
            return {"secret": object()}

    with pytest.raises(ModelError, match="no plain tensor"):
        save(tmp_path / "m", Strange())
    assert not (tmp_path / "m").exists()
    with torch.device("meta"):
        ghost = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="meta device"):
        save(tmp_path / "m", ghost)


def test_extra_facts_must_be_plain(tmp_path):
    with pytest.raises(ModelError, match="cannot be written"):
        save(tmp_path / "m", Tied(), extra={"x": object()})
