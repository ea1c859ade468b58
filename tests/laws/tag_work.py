"""The work of the laws on tags and answers: tiny nets, rows of very different length.

Run as a script under torchrun it trains with the ranks it finds and saves the weights (rank 0):
    torchrun --nproc-per-node 2 tag_work.py OUT.pt FOLDER CASE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from gipi import models, tasks
from gipi.core import dist
from gipi.core.config import Recipe
from gipi.core.device import pick_device
from gipi.data import DataOptions, Dataset, RowStream, open_data
from gipi.train import Setup, fit
from tests.data.sentences import asked, tagged, write_conll, write_squad

STEPS = 25
SMALL: dict[str, dict[str, Any]] = {
    "bilstm-tagger": {"embedding": 8, "letter": 4, "filters": 5, "shape": 3, "width": 6,
                      "dropout": 0.0, "word_dropout": 0.0},
    "bert": {"width": 8, "layers": 1, "heads": 2, "dropout": 0.0},
}  # fmt: skip
CASES = ("bilstm-tagger", "bert", "answer")


def opened(case: str, folder: Path) -> Dataset:
    if case == "answer":
        file = folder / "people.json"
        if not file.exists():
            write_squad(file, asked(20, fill=8))
        return open_data(file, DataOptions(tokenizer="word", max_length=32, val=0, test=0))
    file = folder / "people.conll"
    if not file.exists():
        write_conll(file, [row * (1 + k % 3) for k, row in enumerate(tagged(60))])
    units: Any = "words" if case == "bilstm-tagger" else "pieces"
    return open_data(file, DataOptions(units=units, val=0, test=0))


def trained(case: str, found: Dataset, stream: RowStream, **recipe: Any) -> torch.Tensor:
    name = "bert" if case == "answer" else case
    task = tasks.answer() if case == "answer" else tasks.tag()
    options = {k: v for k, v in recipe.items() if k in ("out", "resume")}
    settings = {k: v for k, v in recipe.items() if k not in options}
    signature = found.signature(task.outputs(found.schema))
    model = models.build(name, signature, options={**SMALL[name], **settings.pop("model", {})})
    values = {"steps": STEPS, "optimizer": "sgd", "lr": 0.1, **settings}
    fit(model.double(), task, stream, Recipe(**values), schema=found.schema, setup=Setup(),
        device="cpu", **options)  # fmt: skip
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def main() -> None:
    """Train as one of several ranks."""
    out, folder, case = sys.argv[1:4]
    dist.start(pick_device("cpu"))
    found = opened(case, Path(folder))
    stream = found.stream("train", batch_size=12, rank=dist.rank(), world=dist.world())
    vector = trained(case, found, stream)
    if dist.rank() == 0:
        torch.save(vector, out)
    dist.stop()


if __name__ == "__main__":
    main()
