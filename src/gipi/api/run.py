"""A run folder and what can be asked of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gipi import report as report_
from gipi.core import rundir
from gipi.core.rows import read_rows
from gipi.deploy.language import LanguageModel, of_predictor
from gipi.deploy.predict import load as load_predictor
from gipi.train.record import RESULT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from gipi.deploy.generate import Generated
    from gipi.deploy.predict import Predictor
    from gipi.deploy.predictions import Predictions
    from gipi.deploy.score import Scores


@dataclass(frozen=True)
class Run:
    """A run folder and what can be asked of it.

    path    the folder
    result  what `gipi train --json` prints; empty while the run is not finished
    module  the user's own module, where the model has no name
    """

    path: Path
    result: dict[str, Any] = field(default_factory=dict)
    module: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Scores such as {"test/accuracy": 0.98}; of the last evaluation while unfinished."""
        if self.result:
            return dict(self.result["metrics"])
        last: dict[str, Any] = next(
            (r for r in reversed(self.rows) if any(k.startswith("val/") for k in r)), {}
        )
        return {k: v for k, v in last.items() if k.startswith("val/")}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Everything that was logged, one dictionary a row."""
        return read_rows(self.path / rundir.ROWS)

    @cached_property
    def predictor(self) -> Predictor:
        """The trained model with all that prediction needs."""
        return load_predictor(self.path, module=self.module)

    @property
    def model(self) -> nn.Module:
        """The trained model: a plain `torch.nn.Module` in evaluation mode."""
        if self.module is not None and self.result:
            return self.module.eval()
        return self.predictor.model

    def predict(self, data: Any, *, tta: Sequence[str] = ()) -> Predictions:
        """Return the answers for a file, folder, table, frame, arrays, one row, or texts.

        tta  views of each picture whose answers are merged, such as ["flip", "zoom"]
        """
        return self.predictor.seeing(tta).predict(data)

    @cached_property
    def language(self) -> LanguageModel:
        """The trained language model with its tokenizer; `RequestError` for another task."""
        return of_predictor(self.predictor)

    def generate(
        self,
        texts: str | Sequence[str],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        beams: int | None = None,
        samples: int | None = None,
        seed: int | None = None,
    ) -> list[Generated]:
        """Return how the language model goes on with texts; see `deploy.generation.Generation`."""
        return self.language.generate(
            texts, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k,
            top_p=top_p, beams=beams, samples=samples, seed=seed,
        )  # fmt: skip

    def score(self, texts: str | Sequence[str], *, stride: int | None = None) -> Scores:
        """Return perplexity, bits per byte and the surprise of each token of texts."""
        return self.language.score(texts, stride=stride)

    def report(self, *, samples: bool = True) -> Path:
        """Write report.html again and return its path; `samples` False hides data rows."""
        return report_.write_report(self.path, samples=samples)

    def summary(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return self.result or {"run": str(self.path), "metrics": self.metrics}

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        page = self.path / rundir.REPORT
        if not page.exists():
            return f"<code>{self.path}</code>"
        text = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
        return f'<iframe srcdoc="{text}" width="100%" height="640" style="border:0"></iframe>'


def load(run: str | Path, *, model: nn.Module | None = None) -> Run:
    """Open a run: its folder, its name in runs/, or "runs/last".

    model  a module of your own that the run was started with, to be filled with its weights

    Raises `RequestError` with the nearest name when there is none, `ModelError` where the weights
    do not fit the module.
    """
    folder = rundir.resolve_run(run)
    result = folder / RESULT
    opened = Run(folder, json.loads(result.read_text()) if result.exists() else {}, model)
    if model is not None:
        _ = opened.predictor  # fills it now, not when it is first asked
    return opened
