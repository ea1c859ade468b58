"""Every family against the package transformers: the same logits, and planted faults are seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models.hot import CASES, PAD, batch, hot_model, theirs, transformers, worst

from gipi import models
from gipi.core.schema import Signature
from gipi.models.pretrained import family_of, load_folder, save_folder
from gipi.nn import activation

CLOSE = 2e-5  # of the spread of what is compared
FAR = 20 * CLOSE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a function that saves a case once and gives its folder and the reference's answers."""
    made = {}

    def make(name):
        if name not in made:
            model = hot_model(name)
            path = tmp_path_factory.mktemp(name)
            model.save_pretrained(path)
            made[name] = path, batch(name), theirs(model, name, batch(name))
        return made[name]

    return make


def answers(model, given):
    with torch.no_grad():
        return model(**given)


@pytest.mark.parametrize("name", CASES)
def test_the_same_answers_at_every_real_token(folder, name):
    path, given, reference = folder(name)
    loaded = load_folder(path)
    assert not loaded.report.missing
    assert not loaded.report.unexpected
    assert not loaded.report.beside
    assert worst(answers(loaded.model, given), reference, given) <= CLOSE


@pytest.mark.parametrize("name", CASES)
def test_the_files_come_back_byte_for_byte_and_open_there(folder, name, tmp_path):
    path, given, reference = folder(name)
    save_folder(tmp_path / "saved", load_folder(path))
    files = sorted(one.name for one in path.iterdir())
    assert files == sorted(one.name for one in (tmp_path / "saved").iterdir())
    for one in files:
        assert (tmp_path / "saved" / one).read_bytes() == (path / one).read_bytes(), one
    again = getattr(transformers(), CASES[name][0]).from_pretrained(tmp_path / "saved").eval()
    for what, tensor in theirs(again, name, given).items():
        assert torch.equal(tensor, reference[what]), what


# ------------------------------------------------------------------------ planted faults


def other_gelu(model):
    for part in model.modules():
        for name, child in list(part.named_children()):
            if type(child).__name__ == "GELU":
                kind = "gelu" if child.approximate == "tanh" else "gelu-tanh"
                setattr(part, name, activation(kind))


def other_scale(model):
    for part in model.modules():
        if hasattr(part, "scale"):
            part.scale = 1.0 if part.scale != 1.0 else part.head_width**-0.5


def other_eps(model):
    for part in model.modules():
        if hasattr(part, "eps"):
            part.eps *= 1.5


def other_offset(model):
    model.embed.config = replace(model.embed.config, offset=model.embed.config.offset + 1)


def other_base(model):
    stack = model.decoder
    stack.config = replace(stack.config, rotary=replace(stack.config.rotary, base=9000.0))


def other_stretch(model):
    stack = model.decoder
    stack.config = replace(stack.config, rotary=replace(stack.config.rotary, kind="default"))


def other_distance(model):
    model.encoder.bias.distance += 40


def both_directions(model):
    model.decoder.bias.both = True


def no_logit_scale(model):
    model.config = replace(model.config, logit_scale=1.0)


def no_final_bias(model):
    model.bias.zero_()


def no_embedding_scale(model):
    model.embed.config = replace(model.embed.config, scale=1.0)


def neighbours_share_keys(model):
    """Give the heads of queries the keys in the order 0 1 0 1 instead of 0 0 1 1."""
    for part in model.modules():
        if hasattr(part, "groups"):
            weight = part.qkv.weight.data
            queries = part.heads * part.head_width
            order = torch.arange(queries).view(2, 2, -1).transpose(0, 1).flatten()
            weight[:queries] = weight[:queries][order]


FAULTS = [
    ("bert-words", other_gelu), ("bert-eps-tanh", other_gelu), ("bert-words", other_scale),
    ("bert-eps-tanh", other_eps), ("bert-words", other_offset), ("bert-pretrain", other_gelu),
    ("roberta-words", other_offset), ("roberta-words", other_gelu), ("roberta-body", other_eps),
    ("distilbert-words", other_gelu), ("distilbert-words", other_scale),
    ("distilbert-classify", other_offset), ("gpt2-words", other_gelu), ("gpt2-words", other_scale),
    ("gpt2-words", other_offset), ("gpt2-by-depth", other_eps), ("llama-untied", other_scale),
    ("llama-untied", other_base), ("llama-tied", other_eps),
    ("llama-untied", neighbours_share_keys), ("llama3", other_stretch),
    ("llama-biased", other_stretch), ("t5-relu-tied", other_scale),
    ("t5-relu-tied", other_distance), ("t5-relu-tied", both_directions),
    ("t5-relu-tied", no_logit_scale), ("t5-gated-untied", other_gelu),
    ("t5-gated-untied", other_eps), ("marian", other_gelu), ("marian", other_scale),
    ("marian", other_offset), ("marian", no_final_bias), ("marian-swish", no_embedding_scale),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fault"), FAULTS, ids=[f"{name}-{fault.__name__}" for name, fault in FAULTS]
)
def test_a_planted_fault_is_seen(folder, name, fault):
    path, given, reference = folder(name)
    model = load_folder(path).model
    with torch.no_grad():
        fault(model)
    assert worst(answers(model, given), reference, given) > FAR


@pytest.mark.parametrize("name", ["bert-words", "roberta-words", "distilbert-classify",
                                  "gpt2-words", "llama-tied", "t5-relu-tied",
                                  "marian"])  # fmt: skip
def test_an_ignored_mask_is_seen(folder, name):
    path, given, reference = folder(name)
    model = load_folder(path).model
    bare = {k: v for k, v in given.items() if k != "attention_mask"}
    assert worst(answers(model, bare), reference, given) > FAR


@pytest.mark.parametrize("name", ["t5-relu-tied", "marian"])
def test_an_ignored_mask_of_the_source_is_seen_in_the_decoder(folder, name):
    path, given, reference = folder(name)
    model = load_folder(path).model
    hidden = answers(model, given).encoder_hidden
    bare = {k: v for k, v in given.items() if k not in {"attention_mask", "input_ids"}}
    out = answers(model, {**bare, "encoder_hidden": hidden})
    kept = {"logits": reference["logits"]}
    assert worst(out, kept, given) > FAR
    out = answers(model, {**bare, "encoder_hidden": hidden,
                          "attention_mask": given["attention_mask"]})  # fmt: skip
    assert worst(out, kept, given) <= CLOSE


def test_positions_follow_the_mask_as_in_their_generate(folder):
    """Left padding moves nothing: the reference without position_ids gives other logits."""
    path, given, reference = folder("gpt2-words")
    model = load_folder(path).model
    index = torch.arange(given["input_ids"].shape[1]).expand_as(given["input_ids"])
    out = answers(model, {**given, "positions": index})
    assert worst(out, reference, given) > FAR
    assert int(given["input_ids"][1, 0]) == PAD


@pytest.mark.parametrize(
    ("record", "family", "options", "case"),
    [
        ("bert", "bert", {"pooling": "first"}, "bert-classify"),
        ("gpt2", "gpt2", {}, "gpt2-words"),
        ("transformer", "marian", {"order": "post"}, "marian"),
    ],
)
def test_a_model_trained_here_opens_there(record, family, options, case, tmp_path):
    signature = Signature(vocab=48, length=12, pad=batch(case)["input_ids"][1, 0].item(), outputs=3)
    options = {"width": 16, "heads": 2, **options}
    body = models.build(record, signature, options=options).body.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in body.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    save_folder(tmp_path / "ours", models.describe(body, family_of(family)))
    again = getattr(transformers(), CASES[case][0]).from_pretrained(tmp_path / "ours").eval()
    given = batch(case)
    assert worst(answers(body, given), {"logits": theirs(again, case, given)["logits"]}, given) <= (
        CLOSE
    )


def test_half_precision_files_keep_their_type_and_bytes(tmp_path):
    model = hot_model("gpt2-words").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    loaded = load_folder(tmp_path / "half")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    save_folder(tmp_path / "again", loaded)
    for one in ("config.json", "model.safetensors"):
        assert (tmp_path / "half" / one).read_bytes() == (tmp_path / "again" / one).read_bytes()


@pytest.mark.parametrize("name", ["gpt2-words", "t5-gated-untied"])
def test_parts_are_read_and_written(folder, name, tmp_path):
    model = hot_model(name)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 2
    _, given, reference = folder(name)
    loaded = load_folder(tmp_path / "parts")
    assert worst(answers(loaded.model, given), reference, given) <= CLOSE
    save_folder(tmp_path / "ours", loaded, shard_bytes=15_000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 2
    again = getattr(transformers(), CASES[name][0]).from_pretrained(tmp_path / "ours").eval()
    for what, tensor in theirs(again, name, given).items():
        assert torch.equal(tensor, reference[what]), what
