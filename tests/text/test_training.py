"""Training: the same tokenizer everywhere, equal to the readable versions, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Core
from tokenizers import models, pre_tokenizers, trainers

from gipi.core.errors import ConfigError, DataError, UnknownName
from gipi.text import teaching_bpe, teaching_unigram, teaching_wordpiece, train_tokenizer
from gipi.text.bytelevel import ALPHABET, to_bytes, to_characters
from gipi.text.counting import Counted, count_words
from gipi.text.training import CONTINUES, LONGEST, _empty, settle

KINDS = ("bpe", "unigram", "wordpiece", "word", "char")
ENGLISH = (
    "the thinking thinker thinks that the sinking ship was linking things",
    "I'll say it's theirs; they've said they'd sing, we'm all singing    now",
    "low lower lowest new newer newest wide wider widest, slow slower slowest!",
    "a ab aba abab ababa aaaa aaaaa bbbb",
)
KOREAN = (
    "나는 학교에 갑니다 너는 학교에 간다 우리는 학교에서 공부한다",
    "이 영화는 정말 재미있다 저 영화는 정말 재미없다 영화를 또 보고 싶다",
    "각각의 사람은 각자의 생각이 있다 ㅋㅋㅋㅋ 👍👍🏽 café déjà",
)
CORPORA = {"english": ENGLISH * 2, "korean": KOREAN * 2, "both": (*ENGLISH, *KOREAN) * 3}


def vocabulary(tokenizer):
    return sorted(tokenizer.core.get_vocab(), key=tokenizer.core.token_to_id)


def words_of(kind, texts):
    return count_words(texts, _empty(kind, lowercase=None)).words


# ------------------------------------------------------------------------ the readable versions


@pytest.mark.parametrize("texts", CORPORA.values(), ids=CORPORA)
@pytest.mark.parametrize("more", [10, 60, 1000])
def test_bpe_learns_the_same_merges_and_cuts_the_same(texts, more):
    vocab = 7 + 256 + more
    fast = train_tokenizer(texts, kind="bpe", vocab=vocab)
    learned = [tuple(m) for m in json.loads(fast.to_json())["model"]["merges"]]
    alphabet = [*fast.special_tokens, *sorted(ALPHABET)]
    slow = teaching_bpe.learn(teaching_bpe.count(texts), alphabet, vocab=vocab)
    assert learned == slow
    assert len(slow) > 5
    for text in (*texts, *CORPORA["both"], "unseen words: zebra!  \n\n x"):
        assert fast.tokens(fast.encode(text, special=False).ids) == teaching_bpe.encode(text, slow)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab ", min_size=1, max_size=12), min_size=1, max_size=6))
def test_bpe_agrees_where_pairs_overlap_and_tie(texts):
    fast = train_tokenizer(texts, kind="bpe", vocab=300, min_count=1)
    alphabet = [*fast.special_tokens, *sorted(ALPHABET)]
    slow = teaching_bpe.learn(teaching_bpe.count(texts), alphabet, vocab=300, least=1)
    assert [tuple(m) for m in json.loads(fast.to_json())["model"]["merges"]] == slow


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab Z09'stre \t\n\xa0가\u0301é!.()🙂\x1c\x85"), max_size=20))
def test_words_are_cut_as_the_fast_one_cuts_them(text):
    fast = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert [to_bytes(w).decode() for w, _ in fast] == teaching_bpe.cut(text)
    assert "".join(teaching_bpe.cut(text)) == text


@pytest.mark.parametrize("texts", CORPORA.values(), ids=CORPORA)
@pytest.mark.parametrize("more", [5, 60, 1000])
def test_wordpiece_learns_the_same_pieces_and_cuts_the_same(texts, more):
    words = words_of("wordpiece", texts)
    vocab = 7 + len(teaching_wordpiece.alphabet(words)) + more
    fast = train_tokenizer(texts, kind="wordpiece", vocab=vocab)
    slow = teaching_wordpiece.learn(words, list(fast.special_tokens), vocab=vocab)
    assert vocabulary(fast) == slow
    for word in [*words, "unseen", "zebra", "학", "x" * (LONGEST + 1), "s" * LONGEST]:
        want = teaching_wordpiece.segment(word, set(slow), unknown="[UNK]")
        assert fast.tokens(fast.encode(word, special=False).ids) == want


def test_wordpiece_equals_the_plain_package_where_nothing_ties():
    """The alphabet is given as special tokens, which must not change what is learned."""
    words = {"hugging": 100, "hugs": 57, "bugs": 31, "mugs": 17, "hub": 9, "mud": 5}
    core = Core(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=40, special_tokens=["[PAD]", "[UNK]"], show_progress=False, min_frequency=2
    )
    core.train_from_iterator([" ".join([w] * n) for w, n in words.items()], trainer)
    texts = [" ".join([w] * n) for w, n in words.items()]
    ours = train_tokenizer(texts, kind="wordpiece", vocab=40, special=("pad", "unk"))
    assert set(core.get_vocab()) == set(ours.core.get_vocab())


@pytest.mark.parametrize("texts", CORPORA.values(), ids=CORPORA)
@pytest.mark.parametrize("more", [3, 20, 60, 1000])
def test_unigram_learns_the_same_pieces_and_cuts_the_same(texts, more):
    words = words_of("unigram", texts)
    vocab = 7 + len({c for w in words for c in w}) + more
    fast = train_tokenizer(texts, kind="unigram", vocab=vocab)
    learned = dict(json.loads(fast.to_json())["model"]["vocab"][7:])
    slow = dict(teaching_unigram.learn(words, vocab=vocab, special=7))
    assert set(learned) == set(slow)
    assert max(abs(learned[p] - slow[p]) for p in slow) <= 2e-4
    for word in [*words, "▁unseen", "▁zzz가Qx"]:
        found = fast.encode(word[1:], special=False)
        want = teaching_unigram.segment(word, learned)
        assert [p if p in learned else "[UNK]" for p in want] == fast.tokens(found.ids)


@example({"a": -1.0, "b": -1.0, "ab": -2.0}, "abab")
@example({"a": -1.0, "b": -1.0, "c": -1.0, "ab": -2.0, "bc": -2.0, "abc": -3.0}, "abcabdc")
@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=4), st.integers(-4, -1).map(float), min_size=1
    ),
    st.text("abcd", min_size=1, max_size=10),
)
def test_the_most_likely_cut_is_the_same_ties_included(scores, word):
    core = Core(models.Unigram([("[UNK]", 0.0), *scores.items()], 0))
    assert core.encode(word).tokens == teaching_unigram.segment(word, scores)


def test_the_textbook_formula_prunes_other_pieces_than_the_package():
    """Documented as a difference: it must be one, or the sentence about it is wrong."""
    words = words_of("unigram", CORPORA["both"])
    pieces = teaching_unigram.seeds(words)
    for _ in range(2):
        pieces = teaching_unigram.maximise(teaching_unigram.expect(words, pieces), pieces)
    kept = [
        list(teaching_unigram.prune(words, pieces, most=150, exact=exact))
        for exact in (True, False)
    ]
    assert kept[0] != kept[1]


def test_expectation_counts_every_cut():
    expected = teaching_unigram.expect({"ab": 3}, {"a": -1.0, "b": -1.0, "ab": -2.0})
    assert expected == pytest.approx({"a": 1.5, "b": 1.5, "ab": 1.5})


def test_bytes_as_characters():
    assert len(set(ALPHABET)) == 256
    assert set(ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet())
    data = bytes(range(256))
    assert to_bytes(to_characters(data)) == data


# ------------------------------------------------------------------------ the same everywhere


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer(kind):
    first = [train_tokenizer(iter(CORPORA["both"]), kind=kind, vocab=400) for _ in range(3)]
    assert len({t.fingerprint for t in first}) == 1
    assert first[0].pad == 0


def test_another_process_gives_the_same_tokenizer():
    """Hash tables are read in another order in another process: that is where it would differ."""
    code = (
        "from gipi.text import train_tokenizer\n"
        f"texts = {CORPORA['both']!r}\n"
        "for k in ('bpe', 'unigram', 'wordpiece', 'word', 'char'):\n"
        "    print(train_tokenizer(texts, kind=k, vocab=400).fingerprint)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [train_tokenizer(CORPORA["both"], kind=k, vocab=400).fingerprint for k in KINDS]
    assert out.stdout.split() == here


def test_the_plain_package_is_not_the_same_each_time():
    """Why words are counted first: this is what would be trained without."""

    def plain():
        core = Core(models.WordPiece(unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        core.train_from_iterator(
            CORPORA["both"], trainers.WordPieceTrainer(vocab_size=400, show_progress=False)
        )
        return core.to_str()

    assert len({plain() for _ in range(6)}) > 1


def test_settling_takes_chance_out():
    left = [("ab", -1.00001), ("c", -4.0), ("d", -3.9999), ("e", -3.9998), ("f", -2.0)]
    right = [("ab", -1.00002), ("d", -4.0), ("e", -3.9999), ("c", -3.9998), ("f", -2.0)]
    assert settle(left) == settle(right)
    assert settle(left) == [("ab", -1.0), ("f", -2.0), ("c", -4.0), ("d", -4.0), ("e", -4.0)]


def test_words_are_counted_as_cutting_every_text_would():
    core = _empty("wordpiece", lowercase=None)
    texts = (*ENGLISH, *KOREAN, "A\x1cB c\xa0d\u3000e 東京へ É", " \n", "")
    direct: dict[str, int] = {}
    for text in texts:
        for word, _ in core.pre_tokenizer.pre_tokenize_str(core.normalizer.normalize_str(text)):
            direct[word] = direct.get(word, 0) + 1
    found = count_words(texts, core)
    assert dict(found.words) == direct
    assert found.texts == len(texts)
    lines = "\n".join(Counted({"a": 100_000, "b": 2}, 1).lines()).split("\n")
    assert (lines.count("a"), lines.count("b")) == (100_000, 2)


# ------------------------------------------------------------------------ what a kind learns


def test_words_and_characters_by_how_often_they_occur():
    texts = ["b a b c", "b a d"]
    word = train_tokenizer(texts, kind="word", vocab=10, special=())
    assert vocabulary(word) == ["[PAD]", "[UNK]", "b", "a"]
    every = train_tokenizer(texts, kind="word", vocab=5, special=(), min_count=1)
    assert vocabulary(every) == ["[PAD]", "[UNK]", "b", "a", "c"]
    char = train_tokenizer(["aab\n"], kind="char", vocab=5, special=())
    assert vocabulary(char) == ["[PAD]", "[UNK]", "a", "\n", "b"]


def test_case_is_kept_where_asked():
    kept = train_tokenizer(["Ab Ab É É"], kind="word", vocab=20, lowercase=False)
    assert {"Ab", "É"} <= set(vocabulary(kept))
    small = train_tokenizer(["Ab Ab É É"], kind="word", vocab=20)
    assert {"ab", "e"} <= set(vocabulary(small))
    unigram = train_tokenizer(["ABAB abab"] * 3, kind="unigram", vocab=30, lowercase=True)
    assert unigram.tokens(unigram.encode("AB", special=False).ids) == unigram.tokens(
        unigram.encode("ab", special=False).ids
    )


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_rare_characters_are_left_out_where_asked(kind):
    texts = ["abab abba baab"] * 50 + ["aab\u2603 zq"]
    every = train_tokenizer(texts, kind=kind, vocab=40)
    most = train_tokenizer(texts, kind=kind, vocab=40, coverage=0.99)
    for character, known in (("a", True), ("\u2603", False), ("z", False)):
        assert every.unk not in every.encode(character).ids
        assert (most.unk not in most.encode(character).ids) == known
    with pytest.raises(ConfigError, match=r"coverage = 0[\s\S]*0\.9995"):
        train_tokenizer(texts, kind=kind, vocab=40, coverage=0)
    with pytest.raises(ConfigError, match="--coverage"):
        train_tokenizer(texts, kind=kind, vocab=8)


def test_no_more_ids_than_asked_for():
    for kind in KINDS:
        for vocab in (320, 333):
            assert train_tokenizer(CORPORA["both"], kind=kind, vocab=vocab).vocab_size <= vocab


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], ["", "  \n"]])
def test_a_corpus_without_text(kind, texts):
    blank = any(t.strip(" \n") != t for t in texts)
    if blank and kind in {"bpe", "char"}:  # to these, white space is text
        assert train_tokenizer(texts, kind=kind, vocab=300).vocab_size > 7
        return
    with pytest.raises(DataError) as error:
        train_tokenizer(texts, kind=kind, vocab=300)
    want = f"{len(texts)} texts without a character" if texts else "no text at all"
    assert error.value.found == want


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bpe", "at least 263: 7 special tokens and 256 bytes"),
        ("unigram", "at least 12: 7 special tokens and 5 characters"),
        ("wordpiece", "at least 14: 7 special tokens and 7 characters that begin or continue"),
        ("word", "at least 8: 7 special tokens"),
        ("char", "at least 8: 7 special tokens"),
    ],
)
def test_a_vocabulary_that_is_too_small(kind, words):
    with pytest.raises(ConfigError) as error:
        train_tokenizer(["abcd dcb"] * 2, kind=kind, vocab=7)
    assert words in error.value.needed
    least = int(error.value.needed.split(":")[0].split()[-1])
    assert f"--vocab {least}" in error.value.do
    assert train_tokenizer(["abcd dcb"] * 2, kind=kind, vocab=least).vocab_size <= least


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("unigram", {"min_count": 2}, "min_count for the kind unigram"),
        ("bpe", {"coverage": 0.99}, "coverage for the kind bpe"),
        ("char", {"coverage": 0.99}, "coverage for the kind char"),
    ],
)
def test_options_that_would_change_nothing_are_refused(kind, options, words):
    with pytest.raises(ConfigError, match=words):
        train_tokenizer(["abcd dcb"] * 2, kind=kind, vocab=300, **options)


def test_names_that_nobody_knows():
    with pytest.raises(UnknownName, match=r"called 'bpee'[\s\S]*did you mean 'bpe'"):
        train_tokenizer(["a"], kind="bpee", vocab=300)
    with pytest.raises(UnknownName, match=r"called 'masc'[\s\S]*did you mean 'mask'"):
        train_tokenizer(["a"], kind="bpe", vocab=300, special=("masc",))
    for extra in (("[PAD]",), ("x", "x"), ("",)):
        with pytest.raises(ConfigError, match="extra special tokens"):
            train_tokenizer(["a"], kind="bpe", vocab=300, extra=extra)
    with pytest.raises(DataError, match=r"nothing occurs 2 times in 1 texts[\s\S]*min_count=1"):
        train_tokenizer(["a b c"], kind="word", vocab=300)


def test_marks_of_the_kinds():
    assert CONTINUES == "##"
