"""Folders in Hugging Face form: read without their package, and every fault named."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.small import PAD, SMALL, V, given, write_small

from gipi.core.errors import ModelError, StorageError
from gipi.models.causal import CausalConfig, CausalModel
from gipi.models.pretrained import FAMILIES, describe, family_of, load_folder, save_folder
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig, draw_weights

CLOSE = 2e-5


def difference(model, name, reference):
    inputs = given(name)
    with torch.no_grad():
        logits = model(**inputs).logits
    if logits.ndim == 3 and "decoder_input_ids" not in inputs:
        real = inputs["attention_mask"].bool()
        logits, reference = logits[real], reference[real]
    return ((logits - reference).abs().max() / reference.std()).item()


@pytest.fixture
def small(tmp_path):
    """Return a function that writes the folder of a case, with changes, and returns its path."""

    def make(name, *, config=None, tensors=None):
        write_small(tmp_path / name, name)
        if config:
            edit(tmp_path / name / "config.json", config)
        if tensors:
            path = tmp_path / name / "model.safetensors"
            state = load_file(path)
            for key, change in tensors.items():
                state[key] = change(state.get(key))
            save_file({k: t for k, t in state.items() if t is not None}, path)
        return tmp_path / name

    return make


def edit(path, changes):
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


@pytest.mark.parametrize("name", SMALL)
def test_the_answers_that_the_reference_gave(name, tmp_path):
    reference = write_small(tmp_path, name)
    loaded = load_folder(tmp_path)
    assert difference(loaded.model, name, reference) < CLOSE
    for part in loaded.model.modules():
        if hasattr(part, "scale"):
            part.scale *= 1.01
    assert difference(loaded.model, name, reference) > 10 * CLOSE


@pytest.mark.parametrize("name", SMALL)
def test_weights_come_back_byte_for_byte(name, tmp_path):
    write_small(tmp_path / "a", name)
    save_folder(tmp_path / "b", load_folder(tmp_path / "a"))
    save_folder(tmp_path / "c", load_folder(tmp_path / "b"), shard_bytes=2000)
    save_folder(tmp_path / "d", load_folder(tmp_path / "c"))
    before, after = (load_file(tmp_path / x / "model.safetensors") for x in "ad")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype
        assert torch.equal(tensor, after[key]), key
    assert len(list((tmp_path / "c").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "b/model.safetensors").read_bytes() == (
        tmp_path / "d/model.safetensors"
    ).read_bytes()


def test_a_folder_that_is_written_again_keeps_no_old_parts(small):
    loaded = load_folder(small("gpt2"))
    path = small("gpt2")
    save_folder(path, loaded, shard_bytes=2000)
    assert not (path / "model.safetensors").exists()
    save_folder(path, loaded)
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", SMALL)
def test_a_model_made_here_describes_itself(name, tmp_path):
    write_small(tmp_path / "a", name)
    model = load_folder(tmp_path / "a").model
    save_folder(tmp_path / "b", describe(model, family_of(name)))
    again = load_folder(tmp_path / "b").model
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(**given(name)).logits, model(**given(name)).logits)


def test_what_the_format_has_no_word_for_is_refused():
    stack = StackConfig(8, 1, 2, 16, causal=True, order="pre", final_norm=True, feed_bias=False,
                        activation="gelu-tanh")  # fmt: skip
    embed = EmbedConfig(V, 8, positions=9, count="mask", segments=-1)
    with pytest.raises(ModelError, match="stack.feed_bias is False, would be read as True"):
        describe(CausalModel(CausalConfig(embed, stack)), family_of("gpt2"))


# ------------------------------------------------------------------------ heads and tolerated names


def test_another_head_is_drawn_from_the_seed_and_said(small):
    path = small("bert")
    loaded = load_folder(path, head="classify", outputs=5, seed=3)
    assert loaded.report.missing == ("head.weight", "head.bias")
    assert "cls.predictions.bias" in loaded.report.unexpected
    assert any("cls.seq_relationship.weight" in line for line in loaded.report.lines())
    assert loaded.model(**given("bert")).logits.shape == (3, 5)
    again = load_folder(path, head="classify", outputs=5, seed=3).model
    other = load_folder(path, head="classify", outputs=5, seed=4).model
    assert torch.equal(loaded.model.head.weight, again.head.weight)
    assert not torch.equal(loaded.model.head.weight, other.head.weight)
    save_folder(path, loaded)
    kept = load_folder(path)
    assert kept.report.complete
    assert kept.config["architectures"] == ["BertForSequenceClassification"]
    assert torch.equal(kept.model.head.weight, loaded.model.head.weight)


def test_a_bare_body_serves_a_head(small, tmp_path):
    path = small("bert")
    bare = load_folder(path, head="none")
    save_folder(tmp_path / "bare", bare)
    names = load_file(tmp_path / "bare" / "model.safetensors")
    assert "embeddings.word_embeddings.weight" in names
    loaded = load_folder(tmp_path / "bare", head="tag", outputs=4)
    assert loaded.model(**given("bert")).logits.shape == (3, 6, 4)
    hidden = bare.model(**given("bert")).hidden
    assert torch.equal(loaded.model(**given("bert")).hidden, hidden)


def test_classes_of_another_number_need_to_be_asked_for(small):
    path = small("distilbert", config={"num_labels": 4})
    with pytest.raises(ModelError, match=r"classifier.weight \[3, 8\], needed \[4, 8\]"):
        load_folder(path)
    assert load_folder(path, outputs=4).report.missing == ("head.weight", "head.bias")


def test_a_new_head_has_the_type_of_the_body(small):
    half = dict.fromkeys(load_file(small("bert") / "model.safetensors"), torch.Tensor.bfloat16)
    model = load_folder(small("bert", tensors=half), head="classify", outputs=5).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(**given("bert")).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_an_untied_head_that_nobody_asks_for_is_left_out(small, name):
    path = small(name, tensors={"lm_head.weight": lambda _: torch.ones(V, 8)})
    loaded = load_folder(path, head="none")
    assert loaded.report.unexpected == ("lm_head.weight",)
    assert loaded.model(**given(name)).hidden.isfinite().all()
    if name == "llama":
        found = load_folder(path, head="classify", outputs=4)
        assert found.report.missing == ("head.weight",)
        path = small(name, config={"tie_word_embeddings": True})
        with pytest.raises(ModelError, match="different from what they are tied to: lm_head"):
            load_folder(path, head="none")


def test_an_architecture_that_is_not_known_serves_the_head_that_is_asked_for(small):
    path = small("bert", config={"architectures": ["BertForMultipleChoice"]})
    with pytest.raises(ModelError, match="by head="):
        load_folder(path)
    loaded = load_folder(path, head="classify", outputs=3)
    assert loaded.report.missing == ("head.weight", "head.bias")
    assert loaded.config["architectures"] == ["BertForSequenceClassification"]
    with pytest.raises(ModelError, match="head 'choose' for the family bert"):
        load_folder(path, head="choose")


OLD = {
    "bert": ("bert.embeddings.position_ids", torch.arange(9)[None]),
    "gpt2": ("transformer.h.0.attn.bias", torch.ones(1, 1, 9, 9).tril()),
    "llama": ("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(1)),
    "t5": ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
           torch.ones(6, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_buffers_that_old_files_carry_are_named(small, name):
    key, tensor = OLD[name]
    loaded = load_folder(small(name, tensors={key: lambda _: tensor}))
    assert loaded.report.beside == (key,)
    with pytest.raises(ModelError, match="unexpected: other"):
        load_folder(small(name, tensors={"other": lambda _: tensor}))


def test_names_of_old_and_tied_copies(small):
    def moved(_):
        return load_file(path / "model.safetensors")["bert.embeddings.LayerNorm.weight"]

    path = small("bert")
    reference = write_small(path, "bert")
    tied = load_file(path / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    path = small("bert", tensors={
        "bert.embeddings.LayerNorm.gamma": moved,
        "bert.embeddings.LayerNorm.weight": lambda _: None,
        "cls.predictions.decoder.weight": lambda _: tied.clone(),
    })  # fmt: skip
    loaded = load_folder(path)
    assert loaded.report.renamed == ("bert.embeddings.LayerNorm.gamma",)
    assert loaded.report.beside == ("cls.predictions.decoder.weight",)
    assert difference(loaded.model, "bert", reference) < CLOSE
    path = small("bert", tensors={"cls.predictions.decoder.weight": lambda _: tied + 1})
    with pytest.raises(ModelError, match=r"different from what they are tied to: cls\.pred"):
        load_folder(path)


def test_t5_unties_by_the_tensor_or_by_the_flag(small):
    path = small("t5", tensors={"lm_head.weight": lambda _: torch.ones(V, 8)})
    model = load_folder(path).model
    assert not model.config.tied
    assert model.config.logit_scale == 8**-0.5
    edit(path / "config.json", {"tie_word_embeddings": False})
    assert load_folder(path).model.config.logit_scale == 1.0
    edit(path / "config.json", {"scale_decoder_outputs": True})
    assert load_folder(path).model.config.logit_scale == 8**-0.5
    path = small("t5", config={"tie_word_embeddings": False})
    with pytest.raises(ModelError, match=r"missing: lm_head\.weight"):
        load_folder(path)


def test_a_key_that_nobody_reads_is_said(small):
    loaded = load_folder(small("gpt2", config={"twist": 3, "task_specific_params": {"x": 1}}))
    assert loaded.report.beside == ("key twist of config.json",)
    assert loaded.config["twist"] == 3


# ------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("bert", {"model_type": "bart"}, "model_type 'bart'"),
        ("bert", {"model_type": ...}, "no 'model_type'"),
        ("bert", {"architectures": ["BertForMultipleChoice"]}, "'BertForMultipleChoice'"),
        ("bert", {"vocab_size": V + 1}, f"has {V} rows, config.json says {V + 1}"),
        ("bert", {"hidden_size": ...}, "no 'hidden_size'"),
        ("bert", {"hidden_size": "8"}, "hidden_size='8'"),
        ("bert", {"hidden_size": True}, "hidden_size=True"),
        ("bert", {"num_hidden_layers": 0}, "1 or more"),
        ("bert", {"num_hidden_layers": 3}, r"missing: bert\.encoder\.layer\.2.*12 more"),
        ("bert", {"num_hidden_layers": 1}, r"unexpected: bert\.encoder\.layer\.1"),
        ("bert", {"intermediate_size": 13}, r"\[12, 8\], needed \[13, 8\]"),
        ("bert", {"num_attention_heads": 3}, "3 heads"),
        ("bert", {"position_embedding_type": "relative_key"}, "relative_key.*not implemented"),
        ("bert", {"is_decoder": True}, "is_decoder=True"),
        ("bert", {"hidden_act": "gelu_10"}, "gelu_10"),
        ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("bert", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("roberta", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("distilbert", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("gpt2", {"n_inner": 12}, r"\[8, 32\], needed \[8, 12\]"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling of type 'yarn'"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, "rope_parameters of type 'dyn"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "no number for factor"),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
         "partial_rotary_factor=0.5"),
        ("llama", {"num_key_value_heads": 3}, "4 heads over 3 heads"),
        ("t5", {"relative_attention_num_buckets": 3}, "relative_attention_num_buckets=3"),
        ("t5", {"feed_forward_proj": "gated-cube"}, "'cube'"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder"),
        ("marian", {"decoder_vocab_size": 5}, "decoder_vocab_size=5"),
        ("marian", {"encoder_layerdrop": 0.1}, "encoder_layerdrop=0.1"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused_by_name(small, name, config, words):
    import re

    with pytest.raises(ModelError) as caught:
        load_folder(small(name, config=config))
    assert re.search(words, caught.value.found, re.DOTALL) or words in caught.value.needed
    assert caught.value.needed
    assert caught.value.do


def test_marian_with_trained_positions_is_refused(small):
    name = "model.encoder.embed_positions.weight"
    with pytest.raises(ModelError, match="no table of sines and cosines"):
        load_folder(small("marian", tensors={name: lambda _: torch.ones(9, 8)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p / "config.json").unlink(), "no config.json"),
        (lambda p: (p / "config.json").write_text("{"), "cannot be read"),
        (lambda p: (p / "config.json").write_text("[]"), "holds a list"),
        (lambda p: (p / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"),
         "only pytorch_model.bin"),
        (lambda p: (p / "model.safetensors").write_bytes(b"abc" * 9), "cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused_by_name(small, change, words):
    path = small("gpt2")
    change(path)
    with pytest.raises(ModelError, match=words):
        load_folder(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p / "model-00002-of-00003.safetensors").unlink(),
         r"model-00002-of-00003\.safetensors is missing .* tensors are in it"),
        (lambda p: edit(p / "model.safetensors.index.json", {"weight_map": {"a": "../x"}}),
         "no weight_map"),
        (lambda p: edit(p / "model.safetensors.index.json", {"weight_map": ...}), "no weight_map"),
        (lambda p: save_file({"x": torch.ones(1)}, p / "model-00002-of-00003.safetensors"),
         "that .* names are in no file"),
    ],
)  # fmt: skip
def test_damaged_parts_are_refused_by_name(small, change, words):
    path = small("gpt2")
    loaded = load_folder(path)
    save_folder(path, loaded, shard_bytes=3000)
    assert len(list(path.glob("model-*.safetensors"))) == 3
    change(path)
    with pytest.raises(ModelError, match=words):
        load_folder(path)


def test_unknown_heads_and_families_get_the_nearest_name(small):
    with pytest.raises(ModelError, match="did you mean 'classify'"):
        load_folder(small("bert"), head="classifi")
    with pytest.raises(ModelError, match="did you mean 'roberta'"):
        family_of("robert")
    with pytest.raises(ModelError, match="head 'tag' for the family gpt2"):
        load_folder(small("gpt2"), head="tag")


def test_a_disk_that_refuses_is_said(small, tmp_path, monkeypatch):
    import pathlib

    loaded = load_folder(small("gpt2"))

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "no")

    (tmp_path / "old").mkdir()
    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    with pytest.raises(StorageError, match="no permission"):
        save_folder(tmp_path / "old", loaded, shard_bytes=2000)


def test_a_folder_that_cannot_be_made_is_said(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        save_folder(tmp_path / "file" / "folder", load_folder(small("gpt2")))


@pytest.mark.parametrize(("before", "after"), [(10**9, 2000), (2000, 10**9)])
def test_a_write_that_fails_half_way_leaves_the_model_that_was_there(
    small, monkeypatch, before, after
):
    from gipi.models import hub_folder

    path, whole = small("gpt2"), hub_folder.write_file
    loaded = load_folder(path)
    save_folder(path, loaded, shard_bytes=before)
    written = []

    def failing(file, content):
        if len(written) == (3 if after < before else 0):
            raise StorageError("a full disk", "room", "make room")
        written.append(file)
        whole(file, content)

    monkeypatch.setattr(hub_folder, "write_file", failing)
    with pytest.raises(StorageError, match="a full disk"):
        save_folder(path, loaded, shard_bytes=after)
    for name, tensor in load_folder(path).model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name])


@pytest.mark.parametrize("name", SMALL)
def test_every_family_names_each_tensor_once(small, name):
    """A name twice would overwrite a tensor on saving without a word."""
    family, path = family_of(name), small(name)
    for head in dict.fromkeys(family.heads.values()):
        model = load_folder(path, head=head, outputs=3).model
        entries = family.entries(model.config)
        theirs = [one for entry in entries for one in entry.theirs]
        assert len(set(theirs)) == len(theirs)
        assert sorted(entry.ours for entry in entries) == sorted(model.state_dict())


def test_every_family_is_tested_here():
    assert {family.name for family in FAMILIES} == {*SMALL, "xlm-roberta"}


def test_dropout_is_off_after_loading_and_gradients_flow(small):
    model = load_folder(small("gpt2")).model
    assert not model.training
    model(**given("gpt2")).logits.sum().backward()
    assert all(p.grad is not None and p.is_leaf for p in model.parameters())
    draw_weights(model, torch.Generator().manual_seed(0))
    assert int(given("gpt2")["input_ids"][1, 0]) == PAD
