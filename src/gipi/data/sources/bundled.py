"""Data sets that come with scikit-learn: digits, iris, wine, breast-cancer, diabetes.

They need no network and no folder; `digits` is what ``gipi train`` trains on when nothing is named.
This file is the one that wraps scikit-learn's data.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gipi.data.source import Column, Source, hash_columns

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = (
    "Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits. "
    "UCI Machine Learning Repository."
)
IRIS = (
    "Fisher, R. A. (1936). The use of multiple measurements in taxonomic problems. "
    "Annals of Eugenics 7, 179-188."
)
WINE = "Aeberhard, S. and Forina, M. (1992). Wine. UCI Machine Learning Repository."
BREAST = (
    "Wolberg, W., Mangasarian, O., Street, N. and Street, W. (1995). "
    "Breast Cancer Wisconsin (Diagnostic). UCI Machine Learning Repository."
)
DIABETES = (
    "Efron, B., Hastie, T., Johnstone, I. and Tibshirani, R. (2004). Least angle regression. "
    "Annals of Statistics 32, 407-499."
)
CC_BY = "CC BY 4.0"


def digits() -> Source:
    """Return 1,797 handwritten digits, 8x8 grey pictures in 10 classes.

    The original grey values 0..16 are spread over 0..255 (v * 255 / 16, rounded).
    """
    table = _digits_table()
    images = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return _source(
        "digits", {"image": images, "digit": table[:, -1].astype(np.int64)}, target="digit",
        citation=DIGITS, hints={"image": "image"},
    )  # fmt: skip


def _digits_table() -> np.ndarray:
    """Return (1797, 65) values 0..16 and the digit, read from scikit-learn's own file.

    Importing scikit-learn takes over a second, more than anything else in the first command that
    people type; where its files lie elsewhere, it is asked instead.
    """
    spec = importlib.util.find_spec("sklearn")
    places = spec.submodule_search_locations if spec is not None else None
    path = Path(places[0]) / "datasets" / "data" / "digits.csv.gz" if places else None
    if path is not None and path.is_file():
        with gzip.open(path, "rt") as lines:
            return np.array([line.split(",") for line in lines], dtype=np.float64)
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.column_stack([found.data, found.target])


def iris() -> Source:
    """Return 150 iris flowers: 4 lengths and widths in cm, 3 species."""
    from sklearn.datasets import load_iris

    return _table("iris", load_iris, "species", IRIS)


def wine() -> Source:
    """Return 178 wines: 13 chemical measurements, 3 cultivars."""
    from sklearn.datasets import load_wine

    return _table("wine", load_wine, "cultivar", WINE)


def breast_cancer() -> Source:
    """Return 569 tumours: 30 measurements of cell nuclei, malignant or benign."""
    from sklearn.datasets import load_breast_cancer

    return _table("breast-cancer", load_breast_cancer, "diagnosis", BREAST)


def diabetes() -> Source:
    """Return 442 patients: 10 measurements and the progression of the disease after a year."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    columns = {str(n): found.data[:, i].copy() for i, n in enumerate(found.feature_names)}
    columns["progression"] = found.target.astype(np.float64)
    return _source(
        "diabetes", columns, target="progression", citation=DIABETES, task="regress",
        licence="not stated",
    )  # fmt: skip


def _table(name: str, load: Callable[[], object], target: str, citation: str) -> Source:
    found: dict[str, object] = load()  # type: ignore[assignment]
    data, codes = np.asarray(found["data"], dtype=np.float64), np.asarray(found["target"])
    features = [str(n) for n in found["feature_names"]]  # type: ignore[attr-defined]
    labels = tuple(str(n) for n in found["target_names"])  # type: ignore[attr-defined]
    columns: dict[str, np.ndarray] = {n: data[:, i].copy() for i, n in enumerate(features)}
    columns[target] = np.array(labels, dtype=object)[codes]
    return _source(name, columns, target=target, citation=citation, classes={target: labels})


def _source(
    name: str,
    columns: dict[str, np.ndarray],
    *,
    target: str,
    citation: str,
    task: str = "classify",
    licence: str = CC_BY,
    classes: dict[str, tuple[str, ...]] | None = None,
    hints: dict[str, str] | None = None,
) -> Source:
    all_columns: dict[str, Column] = dict(columns)
    return Source(
        name=name,
        columns=all_columns,
        rows=len(columns[target]),
        target=target,
        task=task,
        classes=classes or {},
        schema_hints=hints or {},
        fingerprint=hash_columns(all_columns),
        citation=citation,
        licence=licence,
    )
