"""The look of what only the report has; the rest is the look of every page."""

from __future__ import annotations

from gipi.core import page

STYLE = (
    page.STYLE
    + """
.hero,.sample{background:var(--card);border-radius:14px;box-shadow:0 1px 3px var(--shade)}
.hero{padding:26px 28px 22px;margin-top:16px}
.about{font-size:17px;color:var(--soft);margin-bottom:6px}
.about b{color:var(--ink);font-weight:650}
.score{display:flex;flex-wrap:wrap;gap:0 16px;align-items:baseline;margin:0}
.score .value{font-size:56px;line-height:1.1;font-weight:720;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.score .what{font-size:17px;color:var(--soft)}
.interval{margin:2px 0 4px}
.gauge{display:block;width:100%;max-width:560px;height:22px;margin:4px 0 2px}
.gauge .track,.share .track{fill:var(--faint)}
.gauge .span{fill:var(--c1);opacity:.42}.gauge .point{fill:var(--c1)}.gauge .base{fill:var(--soft)}
.verdict{font-size:19px;line-height:1.45;margin:14px 0 8px;font-weight:500}
.hint{border-left:3px solid var(--c2);padding-left:12px;color:var(--soft)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:12px 18px;
margin:18px 0 0;padding-top:16px;border-top:1px solid var(--hair)}
.facts dt{font-size:13px;color:var(--soft)}
.facts dd{margin:0;font-size:17px;font-weight:600;font-variant-numeric:tabular-nums}
.share{display:block;width:100%;min-width:48px;height:5px;margin-top:2px}
td:has(.share){white-space:nowrap}
.pairs{display:grid;grid-template-columns:minmax(90px,max-content) minmax(0,1fr);gap:4px 18px;
margin:0 0 12px;font-size:14px}
.pairs dt{color:var(--soft)}.pairs dd{margin:0}
.trial{max-width:560px}
.splits{display:flex;height:14px;border-radius:7px;overflow:hidden;gap:2px;margin:0 0 8px}
.part{min-width:4px}
.part.c1{background:var(--c1)}.part.c2{background:var(--c2)}.part.c3{background:var(--c3)}
.part.c4{background:var(--c4)}.part.c5{background:var(--c5)}.part.c6{background:var(--c6)}
.events{list-style:none;padding:0}
.events li{padding:5px 0;border-bottom:1px solid var(--hair)}
.worst{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:12px}
.sample{display:flex;gap:14px;padding:12px;min-width:0}
.sample>div{min-width:0;flex:1}
.sample img{width:96px;height:96px;object-fit:contain;border-radius:8px;background:var(--hair);
image-rendering:pixelated;flex:none}
.sample p{margin:0;line-height:1.4;font-size:15px}
.sample .said{color:var(--miss);font-weight:650}.sample .true{font-weight:650}
.sample .read{margin:8px 0 0;font-size:14px;color:var(--soft);overflow-wrap:anywhere}
.sample .name{font-size:13px;color:var(--soft);margin-top:4px}
.sample dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:0 12px;margin:6px 0 0;
font-size:13px}
.sample dt{color:var(--soft)}.sample dd{margin:0}
.tagged{display:grid;gap:12px}
.sentence{background:var(--card);border-radius:14px;box-shadow:0 1px 3px var(--shade);
padding:12px 16px;min-width:0}
.sentence p{margin:0 0 6px;line-height:1.9;overflow-wrap:anywhere}
.sentence .name{font-size:13px;color:var(--soft);margin:0}
.sentence mark{color:inherit;border-radius:5px;padding:2px 4px}
.sentence mark sub{font-size:10px;margin-left:4px;opacity:.75}
.t1{background:color-mix(in srgb,var(--c1) 28%,transparent)}
.t2{background:color-mix(in srgb,var(--c2) 28%,transparent)}
.t3{background:color-mix(in srgb,var(--c3) 28%,transparent)}
.t4{background:color-mix(in srgb,var(--c4) 28%,transparent)}
.t5{background:color-mix(in srgb,var(--c5) 28%,transparent)}
.t6{background:color-mix(in srgb,var(--c6) 28%,transparent)}
.drawn{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:14px}
.pictured{margin:0;background:var(--card);border-radius:14px;padding:10px;min-width:0;
box-shadow:0 1px 3px var(--shade)}
.pictured img{display:block;width:100%;height:auto;border-radius:8px}
.pictured figcaption{font-size:14px;line-height:1.4;color:var(--soft);margin-top:8px}
.pictured b{color:var(--ink);font-weight:600}
.swatch{display:inline-flex;align-items:center;gap:6px}
.swatch i{width:12px;height:12px;border-radius:3px;display:inline-block}
.texts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:12px}
.sample .wrote{white-space:pre-wrap;overflow-wrap:anywhere;font-size:14px}
.bits{background:color-mix(in srgb,var(--c2) var(--share),transparent);border-radius:2px}
@media (max-width:760px){.hero{padding:20px 16px 18px}
.score .value{font-size:46px}.verdict{font-size:18px}}
@media print{.hero,.sample{box-shadow:none;border:1px solid var(--faint);break-inside:avoid}}
"""
)
