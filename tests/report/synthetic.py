"""Run folders as a training writes them, made up quickly and reproducibly."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import torch

from gipi.core import rundir
from gipi.core.rows import Rows
from gipi.core.schema import Field, Schema
from gipi.deploy.evidence import write_evidence
from gipi.tasks import classify, regress
from gipi.train.evaluate import Evaluation

LAYERS = ("features.conv1", "features.conv2", "head.fc1", "head.fc2")


def schema_of(kind, classes):
    if kind == "image":
        fields = (
            Field("image", "image", "input", "every row is a picture of 8 × 8", (1, 8, 8)),
            Field("digit", "category", "target", "10 whole numbers", classes=classes),
        )
        return Schema(fields, "classify", "the target has 10 distinct whole numbers")
    fields = (
        Field("age", "number", "input", "numbers", stats={"mean": 40.0, "std": 12.0}),
        Field("city", "category", "input", "5 distinct words", classes=("a", "b", "c", "d", "e")),
        Field("price", "number", "target", "numbers", stats={"mean": 200.0, "std": 80.0}),
    )
    return Schema(fields, "regress", "the target holds 812 distinct numbers")


class FakeRows:
    """A data set that shows rows: names, raw values, pictures."""

    def __init__(self, prefix="photos/"):
        self.prefix = prefix

    def row_names(self, ids):
        return [f"{self.prefix}{int(i):05d}.png" for i in ids]

    def raw(self, ids):
        return [{"age": 30 + int(i) % 40, "city": "abcde"[int(i) % 5], "price": 1.0} for i in ids]

    def picture(self, row):
        yy, xx = np.mgrid[:8, :8]
        wave = np.sin(xx * (1 + row % 3) / 2) * np.cos(yy * (1 + row % 4) / 3)
        return ((wave + 1) * 127).astype(np.uint8)[:, :, None]


def write_rows(run, *, task="classify", epochs=20, per_epoch=30, broken=False):
    draw = np.random.default_rng(0)
    score, top = ("accuracy", 0.98) if task == "classify" else ("rmse", 40.0)
    with Rows(run / rundir.ROWS) as rows:
        for step in range(3, epochs * per_epoch + 1, 3):
            share = step / (epochs * per_epoch)
            loss = 2.2 * math.exp(-5 * share) + 0.03 + 0.03 * draw.random()
            better = top * (1 - math.exp(-7 * share))
            row = {
                "step": step,
                "epoch": step // per_epoch,
                "progress": share,
                "lr": 0.01 * math.sin(math.pi * share) + 1e-5,
                "train/loss": math.nan if broken and step in (300, 303) else loss,
                f"train/{score}": better if task == "classify" else 120 - better + 5,
                "grad_norm": 3 * math.exp(-3 * share) * (0.7 + 0.6 * draw.random()),
                "samples_per_s": 31000 * (0.9 + 0.1 * draw.random()),
                "data_wait": 0.02 + 0.02 * draw.random(),
                "memory_bytes": 4e8,
                "seconds": 0.02 * step,
            }
            if step % 15 == 0:
                row["layers"] = {
                    name: {
                        "grad_norm": math.exp(-2 * share) * (i + 1) * (0.8 + 0.4 * draw.random()),
                        "update_ratio": 2e-3 / (i + 1) * math.exp(-2 * share),
                    }
                    for i, name in enumerate(LAYERS)
                }
            rows.write(row)
            if step % per_epoch == 0:
                late = 0.12 * max(0.0, share - 0.7)
                good = better * 0.985 - late * 0.1
                rows.write(
                    {
                        "step": step,
                        "epoch": step // per_epoch,
                        "val/loss": 2.1 * math.exp(-4.6 * share) + 0.1 + late,
                        f"val/{score}": good if task == "classify" else 128 - better,
                    }
                )
        if broken:
            reason = "loss is nan in 2 of 128 rows; the step was skipped"
            rows.write({"step": 300, "event": "skipped", "reason": reason})


def write_about(run, schema, *, name="digits"):
    rundir.write_config(
        run,
        {"data": name, "model": "lenet5", "epochs": 20, "batch_size": 48, "lr": 0.01,
         "task_options": {"label_smoothing": 0.05}},
        origins={"epochs": "--epochs", "lr": "recipe", "task.label_smoothing": "recipe"},
        about={
            "versions": {"gipi": "0.1.0"},
            "machine": {"cpu": "a processor", "cores": 2, "torch": "2.13.0", "python": "3.11.2"},
            "data": name,
            "fingerprint": "3f2a" * 16,
            "citation": "Alpaydin and Kaynak 1998, doi:10.24432/C50P49.",
            "licence": "CC BY 4.0",
            "rows": {"train": 1438, "val": 160, "test": 199},
            "split": "stratified by class",
            "notes": ["pictures have one channel", "2 exact duplicates kept on one side"],
            "choices": ["model: lenet5 (the input is a picture)",
                        "activation relu, initial weights he: half of the signal goes through"],
            "citations": ["Loshchilov and Hutter 2019, arXiv:1711.05101"],
            "parameters": 61706,
        },
    )  # fmt: skip
    setup = {
        "precision": "fp32", "threads": 2, "layout": "contiguous", "step_s": 0.0031,
        "trial": [["fp32 2 threads", 0.0031], ["fp32 1 thread", 0.0039]],
    }  # fmt: skip
    (run / rundir.SETUP).write_text(json.dumps(setup))
    (run / "result.json").write_text(json.dumps({"model": "lenet5", "seconds": 12.4}))
    model = {"format_version": 1, "schema": schema.to_dict(), "weights_sha256": "ab" * 32}
    (run / rundir.MODEL).mkdir(exist_ok=True)
    (run / rundir.MODEL / "model.json").write_text(json.dumps(model))


def judged(task, schema, outputs, target, weight=None):
    return Evaluation(
        {"loss": 0.1}, len(outputs), 0.1, outputs, target, weight, torch.arange(len(outputs))
    )


def classify_run(run, *, classes=tuple("0123456789"), samples=True, broken=False, name="digits"):
    """Write a whole folder of a classification of pictures."""
    run.mkdir(parents=True, exist_ok=True)
    schema, task = schema_of("image", classes), classify()
    gen = torch.Generator().manual_seed(0)
    target = torch.randint(len(classes), (400,), generator=gen)
    outputs = torch.randn(400, len(classes), generator=gen) * 1.3
    outputs[torch.arange(400), target] += 4.6
    write_rows(run, broken=broken)
    write_about(run, schema, name=name)
    found = judged(task, schema, outputs, target)
    write_evidence(
        run / rundir.EVALUATION, found, task, schema, split="test", rows=FakeRows(), samples=samples
    )
    return SimpleNamespace(run=run, schema=schema, task=task, judged=found)


def regress_run(run, *, samples=True, loss="mse"):
    """Write a whole folder of a regression on a table."""
    run.mkdir(parents=True, exist_ok=True)
    schema, task = schema_of("table", ()), regress(loss=loss)
    gen = torch.Generator().manual_seed(0)
    target = torch.randn(500, generator=gen)
    outputs = (target + 0.35 * torch.randn(500, generator=gen))[:, None]
    if loss == "gaussian_nll":
        outputs = torch.cat([outputs, torch.full_like(outputs, math.log(0.35) * 2)], 1)
    write_rows(run, task="regress")
    write_about(run, schema, name="houses.csv")
    found = judged(task, schema, outputs, target)
    write_evidence(
        run / rundir.EVALUATION, found, task, schema, split="test", rows=FakeRows("row "),
        samples=samples,
    )  # fmt: skip
    return SimpleNamespace(run=run, schema=schema, task=task, judged=found)
