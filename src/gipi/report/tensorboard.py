"""TensorBoard as a further reader of the rows: live as an observer, or of a run that is over.

    gipi.train("photos/", observers=[TensorBoard("runs/board")])
    board_of(Path("runs/last-run"))          # then: tensorboard --logdir runs/last-run/tensorboard

Needs the extra `track`. Non-finite values are written as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi.core.errors import missing_extra
from gipi.core.rows import read_rows
from gipi.core.rundir import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gipi.core.events import Action, Step

FOLDER = "tensorboard"
_NO_SCALARS = ("step", "event", "reason", "layers")


class TensorBoard:
    """An observer that writes every row's numbers as scalars and every event as text.

    A resumed run goes on in the same folder: what was written after its checkpoint is hidden.
    Raises `MissingExtra` where the package is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open = _writer_class()
        self._writer: Any = None

    def __call__(self, step: Step) -> Action | None:
        """Write the row of one event; never asks the loop for anything."""
        self.write(step.row, step.step)
        if step.when == "end":
            self.close()
        return None

    def write(self, row: Mapping[str, Any], step: int) -> None:
        """Write one row at `step`."""
        if self._writer is None:
            self._writer = self._open(str(self.folder), purge_step=step)
        if row.get("event"):
            self._writer.add_text(str(row["event"]), str(row.get("reason", "")), step)
        for name, value in scalars(row):
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is pending and close the file; a later row opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield (name, value) of every number of a row; layers as "layers/NAME/FIGURE"."""
    for name, value in row.items():
        if name not in _NO_SCALARS and _is_number(value):
            yield name, float(value)
    layers = row.get("layers")
    if isinstance(layers, dict):
        for layer, figures in layers.items():
            for figure, value in figures.items():
                if _is_number(value):
                    yield f"layers/{layer}/{figure}", float(value)


def board_of(run: Path, folder: Path | None = None) -> Path:
    """Write the rows of a run for TensorBoard and return the folder (default: in the run)."""
    board = TensorBoard(folder or run / FOLDER)
    for row in read_rows(run / ROWS):
        board.write(row, int(row.get("step", 0)))
    board.close()
    return board.folder


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing_extra("tensorboard", "track", "writing for TensorBoard") from error
    return SummaryWriter
