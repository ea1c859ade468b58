"""The promises of a tokenizer: what comes back, where tokens stand, and what nobody can type."""

from __future__ import annotations

import json
import pickle
import unicodedata
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Core
from tokenizers import models, pre_tokenizers, trainers

from gipi.core.errors import DataError, UnknownName
from gipi.text import Tokenizer, guard, train_tokenizer
from gipi.text.bytelevel import to_bytes
from gipi.text.guard import guarded
from gipi.text.normalise import Normalisation, normalise, normaliser, of_kind

KINDS = ("bpe", "unigram", "wordpiece", "word", "char")
TEXTS = (
    "The cat sat on the mat. The dog sat on the cat!",
    "나는 학교에 갑니다. 너는 학교에 간다, 그리고 나는 집에 간다.",
    "Café, naïve, Ångström; 東京へ行く 東京 [CLS] <pad> ▁",
    "thinking, sinking, linking: the thinker thinks\n\ta tab and  two spaces",
    "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ [](){}<>!?.,;:'\"-_/",
) * 3
HARD = (
    "",
    " ",
    "a",
    "\x00",
    "a\x00b",
    "\ufeffbom",
    unicodedata.normalize("NFD", "각각의 한글"),  # jamo, not syllables
    "👩‍👩‍👧‍👦 and 🏳️‍🌈",  # emoji held together by joiners
    "e\u0301\u0323 o\u0308\u0308\u0308",  # several marks on one letter
    "نمی‌خواهم",
    "हिन्दी में",
    "\u2028\u2029\x85\xa0",
    "a" * 5000,
    "한" * 2000,
    "[PAD][UNK][CLS][SEP][MASK][BOS][EOS]",
    "ends in spaces   \n\n",
)
any_text = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=60)


def test_many_special_tokens_are_guarded_in_one_reading(monkeypatch):
    """Models of today have hundreds of them, and long files."""
    extra = tuple(f"<extra_{i}>" for i in range(50))
    tokenizer = train_tokenizer(TEXTS, kind="unigram", vocab=700, extra=extra)
    read = []
    loads = guard.json.loads
    monkeypatch.setattr(guard.json, "loads", lambda text: read.append(1) or loads(text))
    core = guard.guarded(tokenizer.to_json(), (*extra, "[CLS]"))
    assert len(read) <= 2
    assert core.token_to_id("<extra_7>") not in core.encode("a <extra_7> b").ids


def least(kind: str) -> int | None:
    return None if kind == "unigram" else 1  # it has no counts


@cache
def made(kind: str) -> Tokenizer:
    return train_tokenizer(TEXTS * 2, kind=kind, vocab=700, min_count=least(kind))


def examples(test):
    for text in HARD:
        test = example(text)(test)
    return settings(max_examples=60, deadline=None)(test)


# ------------------------------------------------------------------------ round trip


@examples
@given(any_text)
def test_bytes_bring_every_text_back(text):
    tokenizer = made("bpe")
    assert tokenizer.lossless
    found = tokenizer.encode(text)
    assert tokenizer.decode(found.ids) == text
    assert tokenizer.unk not in found.ids


@examples
@given(any_text)
def test_characters_come_back_where_they_are_known(text):
    tokenizer = made("char")
    known = set(tokenizer.core.get_vocab())
    found = tokenizer.encode(text, special=False)
    assert len(found) == len(text)
    assert [i == tokenizer.unk for i in found.ids] == [c not in known for c in text]
    assert tokenizer.decode(found.ids) == "".join(c for c in text if c in known)


@examples
@given(any_text)
def test_unigram_brings_the_normalised_text_back(text):
    tokenizer = made("unigram")
    found = tokenizer.encode(text)
    if tokenizer.unk in found.ids:
        return
    # ▁ is how a space is written, so it comes back as one
    want = normalise(text, of_kind("unigram")).replace("▁", " ")
    assert tokenizer.decode(found.ids).split() == want.split()
    if "▁" not in text:
        assert tokenizer.decode(found.ids) == want


@pytest.mark.parametrize("kind", ["wordpiece", "word"])
@examples
@given(text=any_text)
def test_words_come_back_with_one_space_between(kind, text):
    tokenizer = made(kind)
    found = tokenizer.encode(text)
    if tokenizer.unk in found.ids:
        return
    core = tokenizer.core
    clean = normalise(text, of_kind(kind))
    words = [w for w, _ in core.pre_tokenizer.pre_tokenize_str(clean)]
    assert tokenizer.decode(found.ids) == " ".join(words)
    assert tokenizer.encode(tokenizer.decode(found.ids)).ids.tolist() == found.ids.tolist()


def test_only_bytes_without_normalising_are_called_lossless():
    assert [made(kind).lossless for kind in KINDS] == [True, False, False, False, False]
    small = train_tokenizer(TEXTS, kind="bpe", vocab=300, lowercase=True)
    assert not small.lossless
    assert small.decode(small.encode("ABC").ids) == "abc"
    body = json.loads(made("bpe").to_json())
    body["pre_tokenizer"]["add_prefix_space"] = True
    assert not Tokenizer.from_json(json.dumps(body)).lossless


# ------------------------------------------------------------------------ offsets


@pytest.mark.parametrize("kind", KINDS)
@examples
@given(text=any_text)
def test_offsets_point_at_the_characters_of_a_token(kind, text):
    tokenizer = made(kind)
    found = tokenizer.encode(text)
    assert ((found.offsets >= 0) & (found.offsets <= len(text))).all()
    own = found.offsets[~found.special_mask]
    assert (own[1:, 0] >= own[:-1, 0]).all()
    clean = of_kind(kind)
    tokens = tokenizer.tokens(found.ids)
    for token, i, (a, b), added in zip(
        tokens, found.ids, found.offsets, found.special_mask, strict=True
    ):
        if added:
            assert (a, b) == (0, 0)
        elif kind == "char":
            assert b == a + 1
            assert token == text[a:b] or i == tokenizer.unk
        elif kind == "bpe":
            assert to_bytes(token) in text[a:b].encode()
        elif i != tokenizer.unk and text.isascii() and text.isprintable():
            bare = token.removeprefix("##").replace("▁", " ").strip()
            # a space that was put before the text stands at its first character
            assert not bare or normalise(text[a:b], clean).strip() == bare
    if kind == "bpe":  # every character is covered
        assert {c for a, b in own for c in range(a, b)} == set(range(len(text)))


def test_offsets_survive_normalising():
    text = "Ｃafé 각"
    found = made("wordpiece").encode(text, special=False)
    spans = [text[a:b] for a, b in found.offsets]
    assert "".join(spans).replace(" ", "") in {text.replace(" ", ""), "é각", "Ｃafé각"}
    assert found.words.tolist() == sorted(found.words.tolist())


# ------------------------------------------------------------------------ special tokens


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_can_type_a_special_token(kind):
    tokenizer = made(kind)
    forbidden = set(tokenizer.special_tokens.values()) - {tokenizer.unk}
    for token in tokenizer.special_tokens:
        for text in (token, f"a{token}b", f" {token} ", f"{token}{token}", f"{token[0]}{token}"):
            ids = tokenizer.encode(text, special=False).ids.tolist()
            assert not forbidden & set(ids), (token, text, tokenizer.tokens(ids))
            batch = tokenizer.encode_batch([text], special=False)
            assert batch.values.tolist() == ids
    masked = tokenizer.encode("the [MASK] sat", parse=True)
    assert tokenizer.mask in masked.ids


def test_a_vocabulary_that_holds_special_tokens_as_pieces_is_guarded():
    """Without the guard the piece is found: the fault that this file is there for."""
    core = Core.from_str(made("unigram").to_json())
    core.encode_special_tokens = True
    assert core.token_to_id("[SEP]") in core.encode("a[SEP]b", add_special_tokens=False).ids
    safe = guarded(made("unigram").to_json(), ("[SEP]",))
    assert core.token_to_id("[SEP]") not in safe.encode("a[SEP]b", add_special_tokens=False).ids
    words = models.WordLevel({"[PAD]": 0, "[UNK]": 1, "hello": 2}, "[UNK]")
    foreign = Core(words)
    foreign.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    read = Tokenizer.from_json(foreign.to_str())
    assert 0 in foreign.encode("hello [PAD]").ids
    assert 0 not in read.encode("hello [PAD]").ids


def test_the_guard_changes_no_other_text():
    tokenizer = made("unigram")
    plain = tokenizer._plain
    for text in (*TEXTS[:2], *TEXTS[3:4], "[ CLS ] (x) [y]", *HARD[:14]):
        assert tokenizer.encode(text).ids.tolist() == plain.encode(text).ids


@pytest.mark.parametrize("kind", KINDS)
def test_roles_and_template(kind):
    tokenizer = made(kind)
    assert tokenizer.pad == 0
    roles = [tokenizer.pad, tokenizer.unk, tokenizer.cls, tokenizer.sep, tokenizer.mask,
             tokenizer.bos, tokenizer.eos]  # fmt: skip
    assert roles == list(range(7))
    found = tokenizer.encode("a", "b")
    assert found.ids[0] == tokenizer.cls
    assert [t for t in found.ids if t == tokenizer.sep] == [tokenizer.sep] * 2
    second = found.ids.tolist().index(tokenizer.sep) + 1
    assert found.segments.tolist() == [0] * second + [1] * (len(found) - second)
    assert found.special_mask.sum() == 3
    assert (found.words[found.special_mask] == -1).all()


def test_special_tokens_as_told():
    model = train_tokenizer(
        TEXTS, kind="bpe", vocab=300, special=("eos", "bos"), extra=("<x0>", "<x1>")
    )
    assert model.special_tokens == {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "<x0>": 3, "<x1>": 4}
    assert (model.cls, model.unk, model.mask) == (None, None, None)
    assert model.tokens(model.encode("a").ids) == ["[BOS]", "a", "[EOS]"]
    assert model.id_of("<x1>") == 4
    with pytest.raises(UnknownName, match=r"no token '<x2>'[\s\S]*<x"):
        model.id_of("<x2>")
    bare = train_tokenizer(TEXTS, kind="word", vocab=50, special=())
    assert bare.special_tokens == {"[PAD]": 0, "[UNK]": 1}
    assert bare.encode("the").special_mask.sum() == 0


# ------------------------------------------------------------------------ batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_rows(kind):
    tokenizer = made(kind)
    texts = [*HARD, *TEXTS[:5]]
    pairs = texts[::-1]
    batch = tokenizer.encode_batch(texts, pairs, spans=True, words=True)
    assert batch.values.dtype == np.int32
    assert batch.offsets.dtype == np.int64
    assert len(batch) == len(texts)
    for row, (a, b) in enumerate(zip(texts, pairs, strict=True)):
        one = tokenizer.encode(a, b)
        here = slice(batch.offsets[row], batch.offsets[row + 1])
        assert batch[row].tolist() == one.ids.tolist()
        assert batch.segments[here].tolist() == one.segments.tolist()
        assert batch.spans[here].tolist() == one.offsets.tolist()
        assert batch.words[here].tolist() == one.words.tolist()
    plain = tokenizer.encode_batch(texts)
    assert [r.tolist() for r in plain] == [tokenizer.encode(t).ids.tolist() for t in texts]
    assert plain.segments is plain.spans is plain.words is None


@examples
@given(any_text)
def test_the_table_of_characters_is_only_quicker(text):
    tokenizer = made("char")
    assert tokenizer._table is not None
    texts = [text, "", text[::-1], "\U0010ffff", text + "a"]
    for special in (True, False):
        quick = tokenizer.encode_batch(texts, special=special)
        slow = tokenizer.encode_batch(texts, special=special, spans=True)
        assert (quick.values.dtype, quick.offsets.dtype) == (np.int32, np.int64)
        assert quick.values.tolist() == slow.values.tolist()
        assert quick.offsets.tolist() == slow.offsets.tolist()
    assert len(tokenizer.encode_batch([])) == 0
    for other in KINDS[:4]:
        assert made(other)._table is None
    small = train_tokenizer(["Ab"], kind="char", vocab=20, lowercase=True)
    assert small._table is None
    assert small.encode_batch(["A"], special=False).values.tolist() == [small.id_of("a")]


@pytest.mark.parametrize("texts", [["a", None], ["a\ud800"]])
def test_characters_of_what_is_no_text(texts):
    with pytest.raises(DataError, match="row"):
        made("char").encode_batch(texts)


def test_an_empty_batch_and_rows_from_the_end():
    empty = made("bpe").encode_batch([], [], spans=True, words=True)
    assert len(empty) == 0
    assert empty.spans.shape == (0, 2)
    batch = made("bpe").encode_batch(["a", "bc"])
    assert batch[-1].tolist() == batch[1].tolist()
    with pytest.raises(IndexError):
        batch[2]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a", None], "row 1 is None (NoneType)"),
        (["a", "b", float("nan")], "row 2 is nan (float)"),
        (["a\ud800b"], r"row 0 holds half of a surrogate pair, '\\ud800' at character 1"),
    ],
)
def test_what_is_no_text_is_named_with_its_row(texts, words):
    with pytest.raises(DataError) as error:
        made("bpe").encode_batch(texts)
    assert words.replace("\\\\", "\\") in error.value.found
    with pytest.raises(DataError, match="row"):
        made("bpe").encode(texts[-1])
    with pytest.raises(DataError, match="row"):
        train_tokenizer(texts, kind="bpe", vocab=300)


def test_a_wrong_second_text_and_a_wrong_number_are_named():
    with pytest.raises(DataError, match="second text of row 1 is 5"):
        made("bpe").encode_batch(["a", "b"], ["c", 5])
    with pytest.raises(DataError, match="2 first texts and 1 second texts"):
        made("bpe").encode_batch(["a", "b"], ["c"])
    with pytest.raises(DataError, match=r"id 700[\s\S]*0 to"):
        made("bpe").decode([700])


# ------------------------------------------------------------------------ files


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_survives_its_file(kind, tmp_path):
    tokenizer = made(kind)
    path = tokenizer.save(tmp_path / "deep" / "t.json")
    read = Tokenizer.from_file(path)
    assert read == tokenizer
    assert hash(read) == hash(tokenizer)
    assert (read.kind, read.roles, read.lossless) == (kind, tokenizer.roles, tokenizer.lossless)
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer
    assert read != made(KINDS[KINDS.index(kind) - 1])
    other = train_tokenizer(TEXTS, kind=kind, vocab=700, extra=("<x>",), min_count=least(kind))
    assert other.fingerprint != tokenizer.fingerprint


def test_a_file_that_cuts_and_pads_is_read_without_that(tmp_path):
    core = Core.from_str(made("wordpiece").to_json())
    core.enable_truncation(4)
    core.enable_padding(length=64)
    core.save(str(tmp_path / "tokenizer.json"))
    read = Tokenizer.from_file(tmp_path)
    text = "the cat sat on the mat"
    assert read.encode(text).ids.tolist() == made("wordpiece").encode(text).ids.tolist()
    assert len(read.encode_batch([text])[0]) == 8
    assert len(read.encode(text, parse=True)) == 8


def test_roles_of_other_peoples_files(tmp_path):
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator(TEXTS, trainer)
    usual = Tokenizer.from_json(core.to_str())
    assert (usual.bos, usual.pad, usual.eos, usual.mask, usual.cls) == (0, 1, 2, 3, None)
    core.save(str(tmp_path / "tokenizer.json"))
    roles = {"cls_token": "<s>", "sep_token": {"content": "</s>"}, "pad_token": "<pad>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    told = Tokenizer.from_file(tmp_path)
    assert (told.cls, told.sep, told.pad) == (0, 2, 1)
    roles["mask_token"] = "<nowhere>"
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    with pytest.raises(DataError, match="mask token '<nowhere>' is not in the vocabulary"):
        Tokenizer.from_file(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text("{")
    with pytest.raises(DataError, match="special_tokens_map.json cannot be read"):
        Tokenizer.from_file(tmp_path)


def test_files_that_are_no_tokenizers(tmp_path):
    with pytest.raises(DataError, match="no tokenizer"):
        Tokenizer.from_json("{}")
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read"):
        Tokenizer.from_file(tmp_path / "nowhere.json")
    (tmp_path / "t.json").write_text("[1]")
    with pytest.raises(DataError, match=r"t\.json: this is no tokenizer"):
        Tokenizer.from_file(tmp_path / "t.json")


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_was_saved(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    made(kind).save(tmp_path)
    read = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert (read.pad_token_id, read.mask_token_id, read.eos_token_id) == (0, 4, 6)
    for text in TEXTS[:2]:
        assert read(text)["input_ids"] == made(kind).encode(text).ids.tolist()


# ------------------------------------------------------------------------ normalising


@pytest.mark.parametrize(
    "wanted",
    [
        of_kind("unigram"),
        of_kind("wordpiece"),
        Normalisation("NFC"),
        Normalisation(clean=True),
        Normalisation("NFKC", clean=True, lowercase=True, accents=True, ideographs=True),
    ],
)
@examples
@given(text=any_text)
def test_the_fast_normaliser_is_the_readable_one(wanted, text):
    # The tables of Unicode are of different years: what either does not know yet is left out.
    known = "".join(c for c in text if unicodedata.category(c) != "Cn" and ord(c) < 0x1_0000)
    known = known if wanted.form or wanted.lowercase else text
    assert normaliser(wanted).normalize_str(known) == normalise(known, wanted)


def test_what_is_kept_and_what_is_changed():
    uncased = of_kind("wordpiece")
    assert normalise("Ça VA, İstanbul, Ἀθῆναι", uncased) == "ca va, istanbul, αθηναι"
    assert normalise("がぎ", uncased) == "がぎ"  # a mark that makes another letter stays
    assert normalise(unicodedata.normalize("NFD", "한글"), uncased) == "한글"
    assert normalise("a\x00b\x07\u200d", uncased) == "ab\u200d"
    assert normalise(" a \t\n b ", of_kind("unigram")) == "a b"
    assert of_kind("word", lowercase=False) == Normalisation("NFC", clean=True, ideographs=True)
    assert of_kind("bpe").lossless
    assert normaliser(of_kind("char")) is None
