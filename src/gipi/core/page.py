"""Pages of gipi: one HTML file that loads nothing from outside; light, dark and phone.

The report and the lab are such pages. Charts in them are drawn by `gipi.core.svg`; a chart can
also stand alone as a file, with its colours in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.svg import text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDE, NARROW = 540, 340
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

COLOURS = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#566373;--faint:#dfe4ea;--hair:#e9edf1;
--c1:#2563c9;--c2:#d4570a;--c3:#0f8a6d;--c4:#9334b8;--c5:#b58a00;--c6:#c2255c;
--hit:#2563c9;--miss:#d4380d;--on:#fff;--shade:rgba(20,32,46,.06)}
@media (prefers-color-scheme:dark){:root{--bg:#10151b;--card:#19212a;--ink:#e8edf3;--soft:#9aa8b7;
--faint:#34404d;--hair:#26303b;--c1:#79aaff;--c2:#ff9d57;--c3:#4fd1ae;--c4:#cf9bf0;--c5:#e6c34a;
--c6:#ff86a8;--hit:#5b95f5;--miss:#ff7350;--on:#0d1218;--shade:rgba(0,0,0,.25)}}
"""
"""Every colour by name, for light and for dark surroundings."""

MARKS = """
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
fill:var(--soft);font-variant-numeric:tabular-nums}
svg .axis{font-size:12px}
svg .title{font-size:12.5px;font-weight:600;fill:var(--ink)}
svg .grid{stroke:var(--hair);stroke-width:1}
svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
svg .line.c0{stroke:var(--faint)}
svg .line.c1{stroke:var(--c1)}svg .line.c2{stroke:var(--c2)}svg .line.c3{stroke:var(--c3)}
svg .line.c4{stroke:var(--c4)}svg .line.c5{stroke:var(--c5)}svg .line.c6{stroke:var(--c6)}
svg .dot{stroke:var(--card);stroke-width:1}
svg .dot.c1{fill:var(--c1)}svg .dot.c2{fill:var(--c2)}svg .dot.c3{fill:var(--c3)}
svg .dot.c4{fill:var(--c4)}svg .dot.c5{fill:var(--c5)}svg .dot.c6{fill:var(--c6)}
svg .mark{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
svg .marked{fill:var(--ink)}
svg .lost{stroke:var(--miss);stroke-width:2;fill:none}
svg .ideal{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:5 4}
svg .stem{stroke:var(--c1);stroke-width:1.4;opacity:.55}
svg .bubble{fill:var(--c1);fill-opacity:.75;stroke:var(--card)}
svg .speck{fill:var(--c1);fill-opacity:.4}
svg .bar{fill:var(--c1);fill-opacity:.8}
svg .band{fill:var(--c3);fill-opacity:.12}
svg .hit{fill:var(--hit)}svg .miss{fill:var(--miss)}
svg .count{fill:var(--ink)}svg .count.on{fill:var(--on);font-weight:600}
"""
"""How the parts of a chart look, by their classes."""

STYLE = (
    COLOURS
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans KR",sans-serif;
-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header{display:flex;gap:12px;align-items:baseline;padding-top:22px}
.brand{font-weight:700;letter-spacing:.02em;color:var(--c1)}
.run,.quiet,footer{color:var(--soft);font-size:14px}
footer{padding-top:12px;padding-bottom:40px}
section{margin:34px 0 0}
h2{font-size:21px;line-height:1.3;margin:0 0 12px;font-weight:650}
h3{font-size:15px;line-height:1.35;margin:0 0 8px;font-weight:600;display:flex;flex-wrap:wrap;
gap:4px 14px;align-items:baseline}
p{margin:0 0 10px;max-width:72ch}
ul,ol{margin:0 0 12px;padding-left:22px;max-width:80ch}
li{margin:3px 0}
a{color:var(--c1)}
.missing{color:var(--soft);font-style:italic}
.card{background:var(--card);border-radius:14px;box-shadow:0 1px 3px var(--shade)}
.cards{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px}
.cards.flow{display:block;columns:2;column-gap:16px}
.cards.flow .card{break-inside:avoid;margin-bottom:16px}
.card{margin:0;padding:18px 18px 14px;min-width:0}
.card figcaption{font-size:14px;color:var(--soft);margin-top:6px}
.card svg{display:block;max-width:100%;height:auto;margin:0 auto}
.narrow{display:none}
.legend{display:inline-flex;flex-wrap:wrap;gap:2px 12px;font-weight:400;font-size:13px;
color:var(--soft);margin:0}
.key{display:inline-flex;align-items:center;gap:6px}
.key:before{content:"";width:14px;height:4px;border-radius:2px;background:currentColor}
.key.c1:before{background:var(--c1)}.key.c2:before{background:var(--c2)}
.key.c3:before{background:var(--c3)}.key.c4:before{background:var(--c4)}
.key.c5:before{background:var(--c5)}.key.c6:before{background:var(--c6)}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:6px 14px 6px 0;border-bottom:1px solid var(--hair);
vertical-align:top;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
thead th{color:var(--soft);font-weight:500;font-size:13px;white-space:nowrap}
tbody th{font-weight:600}
details{margin:8px 0}
summary{cursor:pointer;color:var(--c1);font-size:14px}
@media (max-width:1179px){.wide{display:none}.narrow{display:block}
.cards{grid-template-columns:repeat(auto-fit,minmax(330px,1fr))}}
@media (max-width:760px){.cards.flow{columns:1}
header,main,footer{padding-left:14px;padding-right:14px}
.cards{grid-template-columns:minmax(0,1fr)}.card{padding:14px 10px 12px}
section{margin-top:28px}}
@media print{.card{box-shadow:none;border:1px solid var(--faint);break-inside:avoid}}
"""
    + MARKS
)
"""What every page looks like."""


def both(draw: Callable[[int], str]) -> str:
    """Return a chart drawn twice: for a desktop's card and for a phone."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def legend(keys: Sequence[tuple[str, int]]) -> str:
    """Return the names of a chart's lines, each with its colour; nothing where there are none."""
    said = "".join(f'<span class="key c{c}">{text(name)}</span>' for name, c in keys)
    return f"<span class=legend>{said}</span>" if said else ""


def card(title: str, body: str, note: str = "", *, keys: Sequence[tuple[str, int]] = ()) -> str:
    """Return a titled box. `body` and `note` are HTML, `title` and the keys are text."""
    foot = f"<figcaption>{note}</figcaption>" if note else ""
    return f'<figure class="card"><h3>{text(title)}{legend(keys)}</h3>{body}{foot}</figure>'


def page(title: str, name: str, body: str, *, style: str = STYLE, foot: str = "") -> str:
    """Return a whole page as HTML.

    title  of the window; text, as are `name` and `foot`
    name   beside the brand at the head
    body   HTML of the main part
    """
    return _PAGE.format(
        title=text(title), policy=POLICY, style=style, name=text(name), body=body, foot=text(foot)
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><span class="brand">gipi</span><span class="run">{name}</span></header>
<main>
{body}
</main>
<footer>{foot} This page loads nothing from outside.
</footer>
</body>
</html>
"""
