"""`gipi lab`: the experiments of the textbooks, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gipi.core.errors import ConfigError, UnknownName, did_you_mean

NAMES = ("activations", "init", "norm", "optimizers", "lr", "all")


def run(name: str, *, out: str, seed: str | None) -> dict[str, Any]:
    """Check the request without torch, run the experiment, and return what `--json` prints."""
    if name not in NAMES:
        raise UnknownName(
            f"no experiment is called '{name}'",
            "one of " + ", ".join(NAMES),
            did_you_mean(name, NAMES),
        )
    seeded = _seed(seed)
    folder = _folder(out)
    from gipi.cli import checks

    checks.prepare_environment()
    from gipi.study import run_lab

    found = run_lab(name, folder, seed=seeded, say=print)
    number = len(found["pictures"])
    print(f"{number} picture{'s' * (number != 1)} in {found['seconds']} s")
    print(f"page: {found['page']}")
    return found


def _seed(value: str | None) -> int:
    if value is None:
        return 0
    if not value.isascii() or not value.isdigit() or int(value) >= 2**63:
        raise ConfigError(f"seed = {value} (--seed)", "a whole number of 0 or more", "use --seed 0")
    return int(value)


def _folder(out: str) -> Path:
    """Return the folder of the pages; it may exist, since only its own files are replaced."""
    path = Path(out)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"out: no folder {out[:80]} can be made ({getattr(error, 'strerror', None) or error})",
            "a place where this user may make folders",
            "choose another --out",
        ) from error
    return path
