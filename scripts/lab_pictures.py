"""Draw the lab's pictures for docs/pictures: `python scripts/lab_pictures.py [NAME ...]`.

They are what `gipi lab` draws with seed 0, so they change only when the code does.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from gipi.study import EXPERIMENTS, run_lab

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def main(names: list[str]) -> int:
    """Draw the named experiments, or all."""
    with tempfile.TemporaryDirectory() as place:
        for name in names or list(EXPERIMENTS):
            for path in map(Path, run_lab(name, Path(place))["pictures"]):
                (FOLDER / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
                print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
