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

from pipeline.commands.compare import cost_quality, seeds
from pipeline.commands.compare.rows import Column, Entry, Group, is_best, shown
from pipeline.evaluation.plots.curves import COLOURS, DASHES, Chart, Curve, svg, thinned
from pipeline.runs.journal import Series

HERE = Path(__file__).parent
QUANTITIES = (  # key, title, unit, whether its axis is logarithmic at first
    ("train/loss", "Training loss", "nats a token", False),
    ("val/perplexity", "Validation perplexity", "a token", True),
    ("val/bits_per_byte", "Validation bits per byte", "bits a byte", False),
    ("val/mse", "Validation MSE", "standardised", False),
    ("val/mae", "Validation MAE", "standardised", False),
)
DIAGNOSIS = "diagnosis.json", "diagnosis.png"  # what `unroll diagnose` leaves in a run
SAMPLES = 12  # at most, of a run: spread evenly over its training


def render(groups: Sequence[Group]) -> str:
    """The page as HTML."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
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
            *(cost_quality.charts(group, number) if charts else []),
            *(["</div>"] if charts else ["<p>No curves yet.</p>"]),
            samples(group),
            memories(group),
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
        f"Speed: the median. Memory: the most of one process. Bold: the best of its column.{said(group)}</p>\n"
        f'<div class="wide" role="region" tabindex="0" aria-label="Table of {text(group.title)}"><table>\n'
        f'<caption class="unseen">Figures of the runs on {text(group.title)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
    )


def said(group: Group) -> str:
    """What rows of several seeds are, in words."""
    if not any(entry.members for entry in group.entries):
        return ""
    several = (
        " Rows are means over seeds; ± and bands: the 95 % t interval of the mean; curves: at steps that all have."
    )
    shared = " A rank is shared where the interval overlaps that of the first with this rank."
    return (several if any(entry.spread for entry in group.entries) else " One seed each.") + shared


def aligned(column: Column) -> str:
    """Attribute of the cells of a column: numbers stand on the right."""
    return ' class="number"' if column.is_number else ""


def charts_of(group: Group) -> list[Chart]:
    """The charts that have at least one curve; a run keeps its colour from chart to chart."""
    charts = []
    for key, title, unit, logarithmic in QUANTITIES:
        found = [Curve(entry.name, style, *seeds.curve(entry, key)) for style, entry in enumerate(group.entries)]
        curves = [thinned(curve) for curve in found if drawable(curve.series)]
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
        drawn = {"values": curve.series.values, **({} if curve.band is None else curve.band._asdict())}
        rounded = {name: [_rounded(value) for value in column] for name, column in drawn.items()}
        columns = replace_seconds(curve.series)._asdict() | rounded
        curves.append({"name": curve.name, "style": curve.style, **columns})
    return {"title": chart.title, "curves": curves, "reference": chart.reference}


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


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
    first = f" ({text(entry.members[0].name)})" if len(entry.members) > 1 else ""
    parts = [f"<article><h4>{text(entry.name)}{first}</h4>"]
    for record in chosen:
        opened = " open" if record is chosen[-1] else ""
        parts.append(f"<details{opened}><summary>after {record['step']:,} steps</summary>")
        parts += [sample(one) for one in record["samples"]]
        parts.append("</details>")
    return "\n".join([*parts, "</article>\n"])


def memories(group: Group) -> str:
    """What the runs remember, of those that `unroll diagnose` has looked at: its picture, and its numbers in words."""
    figures = [figure for entry in group.entries for one in entry.members or (entry,) if (figure := remembered(one))]
    if not figures:
        return ""
    return f'<h3>What they remember</h3>\n<div class="charts">\n{"".join(figures)}</div>'


def remembered(entry: Entry) -> str:
    """The diagnosis in the run's directory; nothing where there is none that can be read."""
    if entry.directory is None:
        return ""
    try:
        told, drawn = ((entry.directory / name).read_bytes() for name in DIAGNOSIS)
        found = json.loads(told)
        words = (
            f"{entry.name}: of {found['positions']} inputs up to {found['field']} change the last output; 95 % of the "
            f"gradient comes from the last {found['memory']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    picture = base64.b64encode(drawn).decode()
    return (
        f'<figure class="memory"><img alt="{text(words)}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{text(words)}.</figcaption></figure>\n"
    )


def sample(one: dict[str, str]) -> str:
    """A generated text, its prompt in front and set apart."""
    prompt, written = str(one.get("prompt", "")), str(one.get("text", ""))
    written = written.removeprefix(prompt)
    return f'<p class="sample" dir="auto"><b>{text(prompt)}</b>{text(written)}</p>'
