"""What an experiment of the lab hands back, and how it becomes files: pictures and one page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gipi.core.atomic import write_file
from gipi.core.page import COLOURS, MARKS, STYLE, legend, page
from gipi.core.svg import CHAR, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GAP, KEYS = 10, 22


@dataclass(frozen=True)
class Picture:
    """One picture: panels of one size, and the words that explain them.

    name     of its file
    about    two to four sentences in plain words
    formula  what is computed, in one line of text
    source   paper and year
    panels   SVG texts, as `gipi.core.svg.close` makes them
    size     width and height of a panel in CSS pixels
    keys     names of the lines with their colours, where all panels share them
    columns  panels side by side in the file (the page lets them flow)
    """

    name: str
    title: str
    about: str
    formula: str
    source: str
    panels: tuple[str, ...]
    size: tuple[int, int]
    keys: tuple[tuple[str, int], ...] = ()
    columns: int = 3


@dataclass(frozen=True)
class Experiment:
    """The result of one experiment: its pictures, and the numbers they are drawn from."""

    name: str
    title: str
    pictures: tuple[Picture, ...]
    numbers: dict[str, Any] = field(default_factory=dict)


def write_lab(
    folder: Path, name: str, experiments: Sequence[Experiment]
) -> tuple[Path, list[Path]]:
    """Write the page NAME.html and every picture as an SVG file; return both paths.

    Files of the same names are replaced, nothing else in the folder is touched. Raises
    `StorageError` where the folder cannot be written.
    """
    pictures = []
    for one in experiments:
        for picture in one.pictures:
            path = folder / f"{picture.name}.svg"
            write_file(path, standalone(picture))
            pictures.append(path)
    path = folder / f"{name}.html"
    write_file(path, lab_page(experiments))
    return path, pictures


def lab_page(experiments: Sequence[Experiment]) -> str:
    """Return the page of some experiments as HTML."""
    links = "".join(f'<a href="#{e.name}">{text(e.title)}</a>' for e in experiments)
    index = f'<nav class="index">{links}</nav>' if len(experiments) > 1 else ""
    sections = [
        f'<section id="{e.name}"><h2>{text(e.title)}</h2>{"".join(map(_box, e.pictures))}</section>'
        for e in experiments
    ]
    title = experiments[0].title if len(experiments) == 1 else "the lab"
    return page(
        f"{title} · gipi lab", "lab", index + "\n".join(sections), style=STYLE + _MARKS + _STYLE,
        foot="Every curve was computed with gipi's own parts by the command gipi lab.",
    )  # fmt: skip


def _box(picture: Picture) -> str:
    panels = "".join(picture.panels)
    width = f"--panel:{picture.size[0]}px"
    return (
        f'<figure class="card lab" id="{picture.name}"><h3>{text(picture.title)}'
        f'{legend(picture.keys)}</h3><div class="panels" style="{width}">{panels}</div>'
        f"<figcaption><p>{text(picture.about)}</p>"
        f'<p class="formula">{text(picture.formula)}</p>'
        f'<p class="quiet">{text(picture.source)}</p></figcaption></figure>'
    )


_STYLE = """
.lab{margin-bottom:16px}
.lab h3{font-size:17px}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(var(--panel),100%),1fr));
gap:14px 10px;justify-items:center}
.lab figcaption{margin-top:14px}
.lab figcaption p{font-size:15.5px;color:var(--ink);max-width:82ch}
.lab figcaption p.quiet{font-size:14px;color:var(--soft);margin:0}
.lab figcaption p.formula{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;
font-size:14px;background:var(--hair);border-radius:8px;padding:8px 12px;max-width:none}
.index{display:flex;flex-wrap:wrap;gap:4px 18px;margin-top:16px}
"""

_MARKS = """
svg .contour{fill:none;stroke:var(--soft);stroke-width:.8;opacity:.45}
svg .star{fill:var(--c5);stroke:var(--ink);stroke-width:.6}
svg .ring{fill:none;stroke-width:2}
""" + "".join(f"svg .ring.c{n}{{stroke:var(--c{n})}}" for n in range(1, 7))


def standalone(picture: Picture) -> str:
    """Return a picture as one SVG file with its colours in it, light and dark."""
    w, h = picture.size
    columns = min(picture.columns, len(picture.panels))
    top = KEYS if picture.keys else 0
    rows = -(-len(picture.panels) // columns)
    width = columns * w + (columns + 1) * GAP
    height = top + rows * h + (rows + 1) * GAP
    parts, x = [], float(GAP + 4)
    for name, colour in picture.keys:
        parts.append(
            f'<rect class="c{colour}" x="{x:.1f}" y="12" width="14" height="4" rx="2"/>'
            f'<text class="axis" x="{x + 20:.1f}" y="18">{text(name)}</text>'
        )
        x += 20 + CHAR * 1.12 * len(name) + 16
    for i, panel in enumerate(picture.panels):
        row, column = divmod(i, columns)
        at = f'x="{GAP + column * (w + GAP)}" y="{top + GAP + row * (h + GAP)}"'
        parts.append(panel.replace("<svg ", f"<svg {at} ", 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{text(picture.title)}">'
        f"<style>{COLOURS}{MARKS}{_MARKS}{_SWATCHES}</style>"
        f'<rect width="{width}" height="{height}" rx="12" style="fill:var(--card)"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


_SWATCHES = "".join(f"rect.c{n}{{fill:var(--c{n})}}" for n in range(1, 7))
