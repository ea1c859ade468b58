"""Published weights on published data: the score in their README comes out to the last row."""

from __future__ import annotations

import json

import pytest

from gipi.cli import main


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "accuracy"),
    [
        ("resnet20", "resnet20-12fca82f.th", 0.9173),
        ("resnet32", "resnet32-d509ac18.th", 0.9263),
    ],
)
def test_the_cifar_checkpoints_score_their_published_test_error(
    data_folder, capsys, name, file, accuracy
):
    path = data_folder / "checkpoints" / file
    if not path.exists() or not (data_folder / "cifar10").exists():
        pytest.skip("no checkpoints or no cifar10 among the data sets")
    command = ["evaluate", "cifar10", "--model", name, "--weights", str(path)]
    assert main([*command, "--set", "normalise=imagenet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"] == 10_000
    assert found["metrics"]["test/accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert found["metrics"]["test/loss"] < 0.5  # plain, not smoothed as our recipe would train
