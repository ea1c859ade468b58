"""Vectors learnt from pairs, and text that is found by them: from a file to an answer."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

import gipi
from gipi.core.errors import ConfigError, DataError, ModelError
from gipi.deploy.retrieval import nearest
from tests.data.texts import reviews, write_rows
from tests.folders import WIDTH, tiny_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIXED = {"precision": "fp32", "threads": 1, "gemm": "native"}
COLOURS = ("red", "blue", "green", "black", "white", "brown")
THINGS = ("dog", "cat", "car", "bird", "house", "tree", "boat")
ACTS = ("runs", "sleeps", "jumps", "stands")


def pairs() -> list[list[str]]:
    """Two ways to say one thing."""
    every = list(itertools.product(COLOURS, THINGS, ACTS))
    order = np.random.default_rng(0).permutation(len(every))
    return [[f"a {c} {t} {a} here", f"we saw that {t} of {c} kind which {a}"]
            for c, t, a in (every[i] for i in order)]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("pairs")
    write_rows(root / "pairs.csv", pairs(), ("query", "text"))
    tiny_folder(root / "encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        gipi.train(str(root / "pairs.csv"), task="rank", steps=50, lr=3e-3, seed=0, quiet=True,
                   out=str(root / "run"), settings={**FIXED, "model.width": 32})  # fmt: skip
        yield root


def test_partners_are_found_among_all(place: Path) -> None:
    run = gipi.load(place / "run")
    assert run.result["model"] == "embedder"
    assert run.metrics["test/mrr"] > 0.5  # chance: about 0.15
    assert {"test/recall_at_1", "test/recall_at_10", "test/ndcg"} <= set(run.metrics)
    held = pairs()[:40]
    found = gipi.rank(place / "run", [q for q, _ in held], [t for _, t in held], k=3)
    assert found.index.shape == (40, 3)
    assert (found.index[:, 0] == np.arange(40)).mean() > 0.5
    assert (np.diff(found.score, axis=1) <= 0).all()


def test_the_likeness_of_pairs_is_predicted_and_vectors_are_those_of_training(place: Path) -> None:
    run = gipi.load(place / "run")
    said = run.predict(place / "pairs.csv").values["similarity"][:5]
    rows = pairs()[:5]
    one, two = (gipi.embed(place / "run", [r[i] for r in rows]) for i in (0, 1))
    np.testing.assert_allclose((one * two).sum(1), said, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1.0, atol=1e-5)
    alone = gipi.embed(place / "run", rows[2][0])
    np.testing.assert_allclose(alone[0], one[2], atol=1e-5)
    judged = run.predictor.evaluate(place / "pairs.csv")
    assert judged.metrics["mrr"] > 0.3


def test_a_folder_gives_vectors_and_learns_better_ones(place: Path) -> None:
    before = gipi.embed(place / "encoder", ["a lovely film", "no"])
    assert before.shape == (2, WIDTH)
    run = gipi.train(str(place / "pairs.csv"), task="embed", steps=2, quiet=True,
                     out=str(place / "started"),
                     settings={**FIXED, "pretrained": str(place / "encoder")})  # fmt: skip
    assert run.result["model"] == "pretrained"
    assert gipi.embed(place / "started", ["a lovely film"]).shape == (1, WIDTH)


def test_micro_batches_are_refused(place: Path) -> None:
    with pytest.raises(ConfigError) as error:
        gipi.train(str(place / "pairs.csv"), task="embed", steps=2, quiet=True,
                   settings={**FIXED, "micro_batch": 4})  # fmt: skip
    assert "the loss of task embed mixes the rows of a batch" in error.value.found


def test_what_cannot_be_is_refused(place: Path) -> None:
    write_rows(place / "reviews.csv", reviews(60), ("text", "label"))
    train = {"quiet": True, "steps": 1, "settings": dict(FIXED)}
    with pytest.raises(ModelError) as wrong:
        gipi.train(str(place / "pairs.csv"), task="embed", model="textcnn", **train)
    assert "gives no vector to a text" in wrong.value.found
    with pytest.raises(ConfigError) as frozen:
        gipi.train(str(place / "pairs.csv"), task="embed", quiet=True, steps=1, settings={
            **FIXED, "pretrained": str(place / "encoder"), "transfer": "frozen"})  # fmt: skip
    assert "transfer=frozen with the task embed" in frozen.value.found
    gipi.train(str(place / "reviews.csv"), out=str(place / "cnn"), **train)
    with pytest.raises(ModelError) as cnn:
        gipi.embed(place / "cnn", ["a text"])
    assert "which gives no vectors" in cnn.value.found
    with pytest.raises(ConfigError) as none:
        gipi.rank(place / "run", "a", ["b"], k=0)
    assert none.value.found == "k=0"
    with pytest.raises(DataError) as empty:
        gipi.rank(place / "run", "a", [])
    assert empty.value.found == "no candidates to rank"
    with pytest.raises(ConfigError) as cold:
        gipi.train(str(place / "pairs.csv"), task="embed", quiet=True, steps=1,
                   settings={**FIXED, "task.temperature": 0.0})  # fmt: skip
    assert cold.value.found == "task.temperature=0.0"


def test_the_first_of_equals_comes_first() -> None:
    found = nearest(np.ones((1, 2), np.float32), np.ones((4, 2), np.float32), k=9)
    assert found.index.tolist() == [[0, 1, 2, 3]]
