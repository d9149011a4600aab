"""The style of a trace's page: system fonts, light and dark, printable. Nothing else."""

STYLE = """
:root{--ink:#1b2330;--muted:#5c6675;--line:#dfe3e9;--paper:#f5f6f8;--card:#fff;--blue:#2f6fb3;--amber:#c2700a;
--green:#1d8a5f;--red:#c0392b;--soft:#e9edf3;--soft-amber:#f6e3c8}
@media (prefers-color-scheme:dark){:root{--ink:#e7eaf0;--muted:#9aa5b5;--line:#323b49;--paper:#12161d;--card:#1a202a;
--blue:#6ea8e6;--amber:#e8a24a;--green:#4fc294;--red:#ee7a6b;--soft:#27303d;--soft-amber:#4a3a22}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 22px 60px}
header{display:flex;flex-wrap:wrap;gap:8px 28px;align-items:flex-end;justify-content:space-between;margin-bottom:18px}
h1{font-size:40px;line-height:1.1;margin:2px 0 0;letter-spacing:-.02em}
h2{font-size:16px;margin:0 0 2px}
.over{color:var(--muted);font-size:13px;letter-spacing:.04em;text-transform:uppercase}
.facts{color:var(--muted);text-align:right;font-size:14px}
.facts code{color:var(--ink)}
code{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.badges{display:flex;flex-wrap:wrap;gap:8px;margin:0 0 20px;padding:0;list-style:none}
.badges li{border:1px solid var(--line);background:var(--card);border-radius:999px;padding:3px 12px;font-size:14px}
.badges .good{border-color:var(--green);color:var(--green)}
.badges .bad{border-color:var(--red);color:var(--red)}
.badges .amber{border-color:var(--amber);color:var(--amber)}
.badges .blue{border-color:var(--blue);color:var(--blue)}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 16px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;min-width:0;
margin-bottom:16px}
section p{margin:2px 0 10px;color:var(--muted)}
section p strong{color:var(--ink)}
@media (max-width:820px){.grid{grid-template-columns:1fr}.facts{text-align:left}}
svg{width:100%;height:auto;display:block;overflow:visible}
svg text{font:14px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
svg .muted{fill:var(--muted);font-size:13px}
svg .strong{font-weight:600}
svg .end{text-anchor:end}
svg .middle{text-anchor:middle}
.bar.taken,.bar.up{fill:var(--green)}
.bar.other{fill:var(--blue);opacity:.55}
.bar.off{fill:var(--soft);stroke:var(--muted);stroke-dasharray:4 3}
.bar.down{fill:var(--red)}
.axis,.grid-line{stroke:var(--muted);stroke-width:1}
line.grid{stroke:var(--line);stroke-width:1}
.tick{stroke:var(--ink);stroke-width:2}
.track,rect.stable{fill:var(--soft)}
.beyond{fill:var(--blue);opacity:.45}
rect.canary{fill:var(--amber)}
.mark{fill:var(--ink);stroke:var(--card);stroke-width:2.5}
.area{fill:var(--soft-amber)}
.line{fill:none;stroke:var(--amber);stroke-width:2.5;stroke-linejoin:round}
.now{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
.dot{stroke:var(--card);stroke-width:1.5;fill:var(--muted)}
.dot.advance{fill:var(--green)}
.dot.rollback{fill:var(--red)}
table{width:100%;border-collapse:collapse;font-size:14px}
th{text-align:left;font-weight:600;color:var(--muted);font-size:13px;padding:4px 10px 4px 0;
border-bottom:1px solid var(--line)}
td{padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
td.name{white-space:nowrap}
tr:last-child td{border-bottom:0}
td.key{color:var(--muted);white-space:nowrap;width:1%}
td.number{text-align:right;font-variant-numeric:tabular-nums}
.advance{color:var(--green);font-weight:600}
.rollback{color:var(--red);font-weight:600}
.hold{color:var(--amber);font-weight:600}
a{color:var(--blue)}
details{margin-top:10px;color:var(--muted);font-size:14px}
details ul{margin:6px 0 0;padding-left:20px}
summary{cursor:pointer}
footer{color:var(--muted);font-size:13px;margin-top:18px}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
