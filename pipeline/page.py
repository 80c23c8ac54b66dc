"""One page, one file: the tables, curves and samples of several runs, readable anywhere without a network.

Its parts lie beside this file: `page.html` the frame, `page.css` the looks, `page.js` what moves. All names
and texts come from outside and are escaped; a content policy forbids any script but ours and any connection.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.comparison import Column, Entry, Group, is_best, shown
from pipeline.curves import COLOURS, DASHES, Chart, Curve, svg, thinned
from pipeline.journal import Series

HERE = Path(__file__).parent
QUANTITIES = (  # key, title, unit, whether its axis is logarithmic at first
    ("train/loss", "Training loss", "nats a token", False),
    ("val/perplexity", "Validation perplexity", "a token", True),
    ("val/bits_per_byte", "Validation bits per byte", "bits a byte", False),
    ("val/mse", "Validation MSE", "standardised", False),
    ("val/mae", "Validation MAE", "standardised", False),
)
SAMPLES = 12  # at most, of a run: spread evenly over its training


def render(groups: Sequence[Group]) -> str:
    """The page as HTML."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "groups": "\n".join(section(group, number) for number, group in enumerate(groups)),
        "script": script,
    }
    frame = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], frame)


def text(value: str) -> str:
    """Any text as it may stand in HTML: escaped, and without the characters that HTML does not know."""
    return escape(re.sub(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", value))


def section(group: Group, number: int) -> str:
    """Everything about the runs on one dataset."""
    charts = charts_of(group)
    return "\n".join(
        [
            f'<section class="group" aria-labelledby="group-{number}">',
            f'<h2 id="group-{number}">{text(group.title)}</h2>',
            table(group),
            *([legend(group), '<div class="charts">'] if charts else []),
            *(figure(chart, f"{number}-{place}") for place, chart in enumerate(charts)),
            *(["</div>"] if charts else ["<p>No curves yet.</p>"]),
            samples(group),
            "</section>",
        ]
    )


def table(group: Group) -> str:
    """The figures of all runs, the baseline among them."""
    heads = "".join(f'<th scope="col"{aligned(column)}>{column.title}</th>' for column in group.columns)
    body = []
    for entry in group.rows():
        first, *others = group.columns
        cells = [f'<th scope="row">{text(shown(first, entry))}</th>']
        for column in others:
            value = text(shown(column, entry))
            if is_best(column, entry, group):
                value = f'<strong>{value}<span class="unseen"> (best)</span></strong>'
            cells.append(f"<td{aligned(column)}>{value}</td>")
        mark = ' class="baseline"' if entry is group.baseline else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    return (
        '<p class="note">Quality: the best on the validation split. '
        "Speed: the median. Memory: the most of one process. Bold: the best of its column.</p>\n"
        f'<div class="wide" role="region" tabindex="0" aria-label="Table of {text(group.title)}"><table>\n'
        f'<caption class="unseen">Figures of the runs on {text(group.title)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
    )


def aligned(column: Column) -> str:
    """Attribute of the cells of a column: numbers stand on the right."""
    return ' class="number"' if column.is_number else ""


def charts_of(group: Group) -> list[Chart]:
    """The charts that have at least one curve; a run keeps its colour from chart to chart."""
    charts = []
    for key, title, unit, logarithmic in QUANTITIES:
        found = ((style, entry.name, entry.journal.series(key)) for style, entry in enumerate(group.entries))
        curves = [Curve(name, style, thinned(series)) for style, name, series in found if drawable(series)]
        attribute = key.removeprefix("val/")
        level = getattr(group.baseline, attribute, None) if key != "train/loss" else None
        reference = (group.baseline.name, level) if group.baseline and level is not None else None
        if curves:
            charts.append(Chart(key, title, unit, logarithmic, curves, reference))
    return charts


def drawable(series: Series) -> bool:
    """Whether a curve has any point: positive and finite, as all our quantities are."""
    return any(math.isfinite(value) and value > 0 for value in series.values)


def legend(group: Group) -> str:
    """A button for each run that shows or hides its curves; without scripts it only names them."""
    items = [
        f'<li><button type="button" disabled aria-pressed="true" data-style="{style}">'
        f"{swatch(f'curve k{style % COLOURS} d{style % DASHES}')}{text(entry.name)}</button></li>"
        for style, entry in enumerate(group.entries)
    ]
    if group.baseline is not None:
        items.append(f"<li><span>{swatch('reference')}{text(group.baseline.name)} (baseline)</span></li>")
    return f'<ul class="legend" aria-label="Curves">{"".join(items)}</ul>'


def swatch(classes: str) -> str:
    """A short piece of line in the style of a curve."""
    line = f'<path class="{classes}" d="M2 6H38"/>'
    return f'<svg class="swatch" viewBox="0 0 40 12" aria-hidden="true">{line}</svg>'


def figure(chart: Chart, number: str) -> str:
    """A chart with its caption, its switch and the points behind it."""
    checked = " checked" if chart.logarithmic else ""
    packed = for_script(points(chart))
    return (
        f'<figure class="chart" data-points="points-{number}">\n'
        f"<figcaption><b>{chart.title}</b> <span>{chart.unit}</span>"
        f'<label hidden><input type="checkbox"{checked}> logarithmic</label></figcaption>\n'
        f'{svg(chart, number)}\n<p class="readout" aria-live="polite" hidden></p>\n'
        f'<script type="application/json" id="points-{number}">{packed}</script>\n</figure>'
    )


def points(chart: Chart) -> dict[str, Any]:
    """What the page's script needs to draw the chart again."""
    curves = []
    for curve in chart.curves:
        values = [float(f"{value:.6g}") if math.isfinite(value) else None for value in curve.series.values]
        columns = replace_seconds(curve.series)._asdict() | {"values": values}
        curves.append({"name": curve.name, "style": curve.style, **columns})
    return {"title": chart.title, "curves": curves, "reference": chart.reference}


def replace_seconds(series: Series) -> Series:
    """The same curve with times to the tenth of a second: they are only drawn."""
    return series._replace(seconds=[round(second, 1) for second in series.seconds])


def for_script(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    packed = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return packed.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def samples(group: Group) -> str:
    """What each run wrote as its training went on, the runs side by side."""
    columns = [column for entry in group.entries if (column := column_of(entry))]
    if not columns:
        return ""
    return f'<h3>Samples as training goes</h3>\n<div class="samples">\n{"".join(columns)}</div>'


def column_of(entry: Entry) -> str:
    """The samples of one run, the last ones open."""
    records = entry.journal.samples()
    if not records:
        return ""
    stride = max(1, math.ceil((len(records) - 1) / (SAMPLES - 1)))
    chosen = [*records[:-1:stride], records[-1]]
    parts = [f"<article><h4>{text(entry.name)}</h4>"]
    for record in chosen:
        opened = " open" if record is chosen[-1] else ""
        parts.append(f"<details{opened}><summary>after {record['step']:,} steps</summary>")
        parts += [sample(one) for one in record["samples"]]
        parts.append("</details>")
    return "\n".join([*parts, "</article>\n"])


def sample(one: dict[str, str]) -> str:
    """A generated text, its prompt in front and set apart."""
    prompt, written = str(one.get("prompt", "")), str(one.get("text", ""))
    written = written.removeprefix(prompt)
    return f'<p class="sample" dir="auto"><b>{text(prompt)}</b>{text(written)}</p>'
