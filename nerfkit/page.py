"""The frame of every HTML page: one style, in light and in dark, without a network or a script."""

from __future__ import annotations

from html import escape

STYLE = """
:root{color-scheme:light dark;--paper:#faf9f7;--card:#fff;--ink:#1c1f23;--soft:#687078;--rule:#e7e4df;--a:#0b7a75;
--b:#cf5b3c;--c:#5b6fc9;--d:#9a7b1e;--shade:#0b7a7512}
@media (prefers-color-scheme:dark){:root{--paper:#121416;--card:#1a1d20;--ink:#e9e7e3;--soft:#949ba3;--rule:#2c3034;
--a:#4cc4ba;--b:#ff8d6d;--c:#9aaaf5;--d:#d9b95a;--shade:#4cc4ba18}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:48px 24px 72px}
h1{font-size:30px;line-height:1.15;letter-spacing:-.02em;margin:0 0 6px;font-weight:650}
h2{font-size:13px;letter-spacing:.09em;text-transform:uppercase;color:var(--soft);margin:44px 0 14px;font-weight:600}
p{margin:0;color:var(--soft)}p.note{margin-top:10px;font-size:13px;max-width:100ch}
.tiles{display:grid;grid-template-columns:repeat(8,1fr);gap:1px;background:var(--rule);
border:1px solid var(--rule);border-radius:12px;overflow:hidden;margin-top:28px}
.tile{background:var(--card);padding:16px 18px 14px}
.tile b{display:block;font-size:25px;line-height:1.2;letter-spacing:-.02em;font-weight:620;white-space:nowrap}
.tile b small{font-size:14px;font-weight:500;color:var(--soft);letter-spacing:0;margin-left:3px}
.tile span{font-size:12.5px;color:var(--soft)}.tile.first b{color:var(--a)}
.card{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:14px 16px;margin:0}
.grid2,.grid3,.views{display:grid;gap:14px}.grid2{grid-template-columns:repeat(auto-fit,minmax(340px,1fr))}
.grid3{grid-template-columns:repeat(auto-fit,minmax(290px,1fr))}
.exact{display:grid;gap:14px;grid-template-columns:repeat(auto-fit,minmax(min(520px,100%),1fr))}
figcaption{display:flex;justify-content:space-between;gap:12px;font-size:13.5px;margin-bottom:8px}
figcaption b{font-weight:600}figcaption span{color:var(--soft);overflow-wrap:anywhere}
.trio{display:grid;grid-template-columns:repeat(3,1fr);gap:8px}
.card>img{display:block;max-width:100%}
.trio img{display:block;width:100%;border-radius:6px;outline:1px solid var(--rule)}
.exact .trio{grid-template-columns:1fr 1fr}.exact img{width:auto;max-width:100%}
.trio span{display:block;font-size:12px;color:var(--soft);margin-top:4px}
.scale{display:inline-block;width:120px;height:9px;border-radius:5px;vertical-align:-1px;margin:0 6px}
svg{display:block;width:100%;height:auto}.grid{stroke:var(--rule);fill:none}
.tick{fill:var(--soft);font-size:10.5px}.label{fill:var(--ink);font-size:12px;font-weight:600}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.line.a,.camera.a{stroke:var(--a)}.line.b,.camera.b{stroke:var(--b)}.dot.a{fill:var(--a)}.dot.b{fill:var(--b)}
.line.c{stroke:var(--c)}.line.d{stroke:var(--d)}.dot.c{fill:var(--c)}.dot.d{fill:var(--d)}.dot.faint{fill:var(--rule)}
.offset{fill:var(--a);stroke:var(--rule)}
.line.faint{stroke:var(--a);opacity:.28;stroke-width:1}
.camera{fill:none;stroke-width:1.1;stroke-linejoin:round;opacity:.8}.camera.b{stroke-width:1.5;opacity:1}
.box{fill:var(--shade);stroke:var(--soft);stroke-dasharray:5 4}
.key{display:inline-block;width:14px;height:3px;border-radius:2px;vertical-align:3px;margin:0 5px 0 12px}
.line.dashed{stroke-dasharray:7 4}.line.dotted{stroke-dasharray:.1 4}.line.mixed{stroke-dasharray:9 4 .1 4}
.key.dashed{mask:linear-gradient(90deg,#000 5px,#0000 5px 9px,#000 9px)}
.key.dotted{mask:repeating-linear-gradient(90deg,#000 0 2px,#0000 2px 4px)}
.key.mixed{mask:linear-gradient(90deg,#000 7px,#0000 7px 10px,#000 10px 12px,#0000 12px)}
.key.a{background:var(--a)}.key.b{background:var(--b)}.key.c{background:var(--c)}.key.d{background:var(--d)}
table{border-collapse:collapse;width:100%;font-size:13.5px}
td,th{text-align:left;vertical-align:top;padding:5px 12px 5px 0;border-bottom:1px solid var(--rule);font-weight:400}
tr:last-child>*{border-bottom:0}th{color:var(--soft);white-space:nowrap;width:1%;padding-right:22px}
td{overflow-wrap:anywhere}td.best{color:var(--a);font-weight:600}table.wide th{width:auto}
td s{color:var(--soft);text-decoration:none}
code{font:12.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (max-width:1040px){.tiles{grid-template-columns:repeat(4,1fr)}}
@media (max-width:560px){main{padding:28px 14px}.tiles{grid-template-columns:1fr 1fr}
.trio,.exact .trio{grid-template-columns:1fr}.grid2,.grid3{grid-template-columns:1fr}}
@media print{.card,.tiles{break-inside:avoid}}
"""


def page(title: str, sections: list[str]) -> str:
    """A whole page of sections; empty ones are left out."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """A headed part; an empty string where there is nothing in it."""
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>" if content else ""


def table(rows: list[tuple[str, str]]) -> str:
    """Rows of a key and a value, both HTML."""
    body = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in rows)
    return f'<div class="card"><table>{body}</table></div>'
