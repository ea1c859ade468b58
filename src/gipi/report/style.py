"""The look of the report: one style sheet, colours as variables for light and dark pages."""

from __future__ import annotations

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#566373;--faint:#dfe4ea;--hair:#e9edf1;
--c1:#2563c9;--c2:#d4570a;--c3:#0f8a6d;--c4:#9334b8;--c5:#b58a00;--c6:#c2255c;
--hit:#2563c9;--miss:#d4380d;--on:#fff;--shade:rgba(20,32,46,.06)}
@media (prefers-color-scheme:dark){:root{--bg:#10151b;--card:#19212a;--ink:#e8edf3;--soft:#9aa8b7;
--faint:#34404d;--hair:#26303b;--c1:#79aaff;--c2:#ff9d57;--c3:#4fd1ae;--c4:#cf9bf0;--c5:#e6c34a;
--c6:#ff86a8;--hit:#5b95f5;--miss:#ff7350;--on:#0d1218;--shade:rgba(0,0,0,.25)}}
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
.hero,.card,.sample{background:var(--card);border-radius:14px;box-shadow:0 1px 3px var(--shade)}
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
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
fill:var(--soft);font-variant-numeric:tabular-nums}
svg .axis{font-size:12px}
svg .grid{stroke:var(--hair);stroke-width:1}
svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
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
.share{display:block;width:100%;min-width:48px;height:5px;margin-top:2px}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:6px 14px 6px 0;border-bottom:1px solid var(--hair);
vertical-align:top;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
thead th{color:var(--soft);font-weight:500;font-size:13px;white-space:nowrap}
tbody th{font-weight:600}
details{margin:8px 0}
summary{cursor:pointer;color:var(--c1);font-size:14px}
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
.sample .name{font-size:13px;color:var(--soft);margin-top:4px}
.sample dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:0 12px;margin:6px 0 0;
font-size:13px}
.sample dt{color:var(--soft)}.sample dd{margin:0}
@media (max-width:1179px){.wide{display:none}.narrow{display:block}
.cards{grid-template-columns:repeat(auto-fit,minmax(330px,1fr))}}
@media (max-width:760px){.cards.flow{columns:1}
header,main,footer{padding-left:14px;padding-right:14px}
.cards{grid-template-columns:minmax(0,1fr)}.hero{padding:20px 16px 18px}
.card{padding:14px 10px 12px}
.score .value{font-size:46px}.verdict{font-size:18px}section{margin-top:28px}}
@media print{.hero,.card,.sample{box-shadow:none;border:1px solid var(--faint);break-inside:avoid}}
"""
