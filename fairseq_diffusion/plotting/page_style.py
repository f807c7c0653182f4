"""The CSS of the page of ``fairseq-diffusion plot --history``: light mode, dark mode, and print.

The shades of probabilities get lighter (darker in dark mode) from 0 to 1, so their order is kept in black and white and
for readers with any colour vision.  All text has a contrast of 4.5 or more: on a shade it has the full ink or, on the
first ones by night, a dark one, and elsewhere nothing is paler than the quiet ink.
"""

LIGHT_SHADES = "#d9812b #e0944a #e6a667 #ebb784 #efc8a1 #f1d7bd #f0e3d5 #eceae6 #e8eef2 #e4eff6".split()
DARK_SHADES = "#e39a4e #cb8944 #b3793d #825a34 #745132 #674a31 #594331 #453932 #343335 #283440".split()
SHADES = len(LIGHT_SHADES)
DARK_TEXT_SHADES = 3  # this many of the dark mode's shades need dark text


def shades(colours: list[str]) -> str:
    return "".join(f"--c{i}:{colour};" for i, colour in enumerate(colours))


LIGHT_MODE = "--paper:#fdfdfc;--ink:#1f2933;--quiet:#5f6b79;--rule:#e1e5e9;--accent:#2a6f97;--none:#f0f1f2;"
DARK_MODE = "--paper:#14181d;--ink:#dfe5ea;--quiet:#8b98a5;--rule:#2b323a;--accent:#79b4d6;--none:#1e242a;"
DARK_MODE_TEXT = "".join(f".c{i}{{color:#1b1206}}" for i in range(DARK_TEXT_SHADES))

STYLE = (
    f":root{{color-scheme:light dark;{LIGHT_MODE}{shades(LIGHT_SHADES)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{DARK_MODE}{shades(DARK_SHADES)}}}{DARK_MODE_TEXT}}}"
)
STYLE += "".join(f".c{i}{{background:var(--c{i})}}" for i in range(SHADES))
STYLE += """
*{box-sizing:border-box}
body{margin:0 auto;max-width:92rem;padding:1.5rem clamp(.8rem,3vw,2.5rem) 4rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;-webkit-text-size-adjust:100%}
h1{font-size:1.35rem;font-weight:600;margin:0}
h2{font-size:1.05rem;font-weight:600;margin:0 0 .4rem}
h3{font-size:.85rem;font-weight:400;color:var(--quiet);margin:0}
h3 b{color:var(--ink);font-weight:600}
.about{color:var(--quiet);font-size:.9rem;margin:.2rem 0 .8rem;max-width:60rem}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;align-items:center;color:var(--quiet);font-size:.8rem}
.legend .ramp{display:inline-flex;margin:0 .45rem;vertical-align:-.15rem}
.legend .ramp span{width:1.15rem;height:.9rem}
.legend .cell{padding:0 .45rem;color:var(--ink)}
article{border-top:1px solid var(--rule);padding:1.2rem 0 1.6rem;margin-top:1.2rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem .9rem;margin:0 0 1.1rem;max-width:75rem}
dt{color:var(--quiet);font-size:.85rem;line-height:1.75}
dd{margin:0}
.candidates{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1.4rem 2rem}
.candidate{min-width:0}
.text{margin:.1rem 0 .6rem}
.cell,td{font-variant-ligatures:none;white-space:pre}
.u{background:var(--none)}
.n{box-shadow:inset 0 -2px var(--accent)}
.s{font-style:italic}
.q{font-size:.8em}
.strip{display:none;flex-wrap:wrap;gap:.35rem 0;margin:.1rem 0 .7rem}
.cell{display:inline-grid;justify-items:center;padding:.18rem .5rem;margin-right:4px;border-radius:5px;min-width:1.6rem}
.cell.j{margin-right:0;padding-right:.1rem;border-top-right-radius:0;border-bottom-right-radius:0}
.cell.k{padding-left:.1rem;border-top-left-radius:0;border-bottom-left-radius:0}
.cell.gone{visibility:hidden}
.cell>span{grid-area:1/1;visibility:hidden;opacity:0}
.cell>.on{visibility:visible;opacity:1}
.cell.s{font-size:.72rem;align-content:center}
.steps{overflow-x:auto}
summary{cursor:pointer;color:var(--quiet);font-size:.8rem;margin-bottom:.3rem}
table{border-collapse:separate;border-spacing:2px 1px;font-size:.72rem;line-height:1.5}
td{padding:.02rem .4rem;text-align:center;border-radius:3px}
td.j{border-top-right-radius:0;border-bottom-right-radius:0}
td.k{border-top-left-radius:0;border-bottom-left-radius:0}
th{font-weight:400;color:var(--quiet);padding:0 .45rem 0 0;text-align:right;font-variant-numeric:tabular-nums;
position:sticky;left:0;background:var(--paper)}
#bar{display:none}
.live .strip{display:flex}
.live .text{display:none}
.live #bar{display:flex;flex-wrap:wrap;gap:.5rem 1.2rem;align-items:center;position:sticky;top:0;z-index:2;
margin-top:1rem;padding:.6rem 0;background:var(--paper);border-bottom:1px solid var(--rule)}
.live article{border-top:0;margin-top:0}
.live tr.now th{color:var(--accent);font-weight:700}
@media screen{.live tr.later td{color:var(--quiet);background:var(--paper);box-shadow:none}}
#bar div{display:flex;gap:.35rem;align-items:center;min-width:0}
#bar .time{flex:1 1 20rem}
#slider{flex:1;min-width:6rem;accent-color:var(--accent)}
#where{min-width:7.5rem;font-variant-numeric:tabular-nums;color:var(--quiet);font-size:.9rem}
button,select{font:inherit;font-size:.9rem;color:inherit;background:transparent;border:1px solid var(--rule);
border-radius:6px;padding:.22rem .65rem;min-width:2.2rem;max-width:100%;cursor:pointer}
select{width:19rem;text-overflow:ellipsis;background:var(--paper)}
#play{min-width:4.4rem}
button:hover,select:hover{border-color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
@media (prefers-reduced-motion:no-preference){.live .cell{transition:background-color .18s}
.live .cell>span{transition:opacity .18s}.live tr td{transition:background-color .18s}}
@media print{@page{size:landscape}table{font-size:.5rem}.candidates{grid-template-columns:1fr}
body{max-width:none;padding:0;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.live #bar,.live .strip{display:none}.live .text{display:block}article[hidden]{display:block!important}
article{break-inside:avoid}.steps{overflow:visible}}
"""
