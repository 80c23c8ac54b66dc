"""The comparison page: tables, curves and samples of several runs in one HTML file that needs no network.

Its parts are beside this file: `page.html` (template), `page.css` (style) and `page.js` (interaction). All names and
texts are untrusted and escaped; a content security policy forbids other scripts and all connections.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.commands.compare import cost_quality, seeds
from pipeline.commands.compare.columns import Column
from pipeline.commands.compare.rows import QUALITY, Entry, Group, cell, is_best
from pipeline.evaluation.plots.curves import COLOURS, DASHES, Chart, Curve, svg, thinned
from pipeline.runs.journal import MetricSeries

HERE = Path(__file__).parent
QUANTITIES = (  # key, title, unit, whether the axis is logarithmic initially
    ("train/loss", "Training loss", "nats per token", False),
    ("val/perplexity", "Validation perplexity", "per token", True),
    ("val/bits_per_byte", "Validation bits per byte", "bits per byte", False),
    ("val/mse", "Validation MSE", "standardised", False),
    ("val/mae", "Validation MAE", "standardised", False),
)
DIAGNOSIS = "diagnosis.json", "diagnosis.png"  # written to a run by `unroll diagnose`
SAMPLES = 12  # maximum number of sample records per run, evenly spread over the training


class SampleText(TypedDict):
    """A generated text, without its prompt."""

    prompt: str
    text: str


class SampleRecord(TypedDict):
    """The texts generated at one step."""

    step: int
    texts: list[SampleText]


class RunSamples(TypedDict):
    """The samples of a run."""

    title: str
    records: list[SampleRecord]


def render(groups: Sequence[Group]) -> str:
    """Return the page as HTML."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    made = Environment(
        autoescape=True, finalize=printable, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    ).from_string((HERE / "page.html").read_text(encoding="utf-8"))
    return made.render(
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),
        script=Markup(script),
        has_flops=all(flops_per_token(entry) is not None for group in groups for entry in group.entries),
        groups=[section(group, number) for number, group in enumerate(groups)],
    )


def printable(value: object) -> object:
    """Replace characters that are not allowed in HTML; return values that are not plain text unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", value)


def section(group: Group, number: int) -> dict[str, object]:
    """Return the template variables of one dataset."""
    charts, columns = charts_of(group), in_reading_order(group.columns)
    return {
        "title": group.title,
        "columns": columns,
        "has_seeds": any(entry.members for entry in group.entries),
        "has_intervals": any(entry.spread for entry in group.entries),
        "rows": [
            {
                "is_baseline": entry is group.baseline,
                "cells": [
                    {"column": column, "text": cell(column, entry), "best": is_best(column, entry, group)}
                    for column in columns
                ],
            }
            for entry in group.rows()
        ],
        "legend": [
            (entry.name, f"curve k{style % COLOURS} d{style % DASHES}") for style, entry in enumerate(group.entries)
        ],
        "baseline": group.baseline and group.baseline.name,
        "charts": [figure(chart, f"{number}-{place}") for place, chart in enumerate(charts)],
        "costs": Markup("\n".join(cost_quality.charts(group, number))),
        "samples": [found for entry in group.entries if (found := samples(entry))],
        "memories": [each for entry in group.entries for one in entry.members or (entry,) if (each := memory(one))],
    }


def in_reading_order(columns: Sequence[Column]) -> list[Column]:
    """Return the columns with the qualities directly after the names, where a narrow screen shows them."""
    first = [column for column in columns if column.key in ("name", "rank")]
    qualities = [column for column in columns if column.is_quality]
    return first + qualities + [column for column in columns if column not in (*first, *qualities)]


def charts_of(group: Group) -> list[Chart]:
    """Return the charts that have at least one curve; a run has the same colour in all of them."""
    charts = []
    scores = [column for column in group.qualities if column.key not in QUALITY]
    others = [(f"val/{column.key}", column.title.capitalize(), "", False) for column in scores]
    for key, title, unit, logarithmic in (*QUANTITIES, *others):
        found = [
            Curve(entry.name, style, *seeds.curve(entry, key), flops_per_token(entry))
            for style, entry in enumerate(group.entries)
        ]
        curves = [thinned(curve) for curve in found if drawable(curve.series)]
        attribute = key.removeprefix("val/")
        level = getattr(group.baseline, attribute, None) if key.startswith("val/") else None
        reference = (group.baseline.name, level) if group.baseline and level is not None else None
        if curves:
            charts.append(Chart(key, title, unit, logarithmic, curves, reference))
    return charts


def flops_per_token(entry: Entry) -> float | None:
    """Return the FLOPs of training per token; None for a run outside of a tournament."""
    return entry.flops / entry.tokens if entry.flops and entry.tokens else None


def drawable(series: MetricSeries) -> bool:
    """Whether a curve has a point; all quantities here are positive and finite."""
    return any(math.isfinite(value) and value > 0 for value in series.values)


def figure(chart: Chart, number: str) -> dict[str, object]:
    """Return the template variables of a chart."""
    return {
        "number": number,
        "title": chart.title,
        "unit": chart.unit,
        "logarithmic": chart.logarithmic,
        "svg": Markup(svg(chart, number)),
        "points": Markup(for_script(points(chart))),
    }


def points(chart: Chart) -> dict[str, object]:
    """Return the data from which the page's script redraws the chart."""
    curves = []
    for curve in chart.curves:
        price = curve.flops_per_token
        flops = {} if price is None else {"flops": [_rounded(price * tokens) for tokens in curve.series.tokens]}
        drawn = {"values": curve.series.values, **({} if curve.band is None else curve.band._asdict())}
        rounded = {name: [_rounded(value) for value in column] for name, column in drawn.items()}
        columns = replace_seconds(curve.series)._asdict() | rounded | flops
        curves.append({"name": curve.name, "style": curve.style, **columns})
    return {"title": chart.title, "curves": curves, "reference": chart.reference}


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def replace_seconds(series: MetricSeries) -> MetricSeries:
    """Round times to a tenth of a second, which is enough for a plot."""
    return series._replace(seconds=[round(second, 1) for second in series.seconds])


def for_script(data: object) -> str:
    """Return JSON that cannot close its script element."""
    packed = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return packed.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def samples(entry: Entry) -> RunSamples | None:
    """Return the samples of a run over its training; None if there are none."""
    records = entry.journal.samples()
    if not records:
        return None
    stride = max(1, math.ceil((len(records) - 1) / (SAMPLES - 1)))
    first = f" ({entry.members[0].name})" if len(entry.members) > 1 else ""
    chosen = [*records[:-1:stride], records[-1]]
    return {
        "title": f"{entry.name}{first}",
        "records": [{"step": each["step"], "texts": [sample(one) for one in each["samples"]]} for each in chosen],
    }


def sample(one: dict[str, str]) -> SampleText:
    """Separate a generated text from its prompt."""
    prompt = str(one.get("prompt", ""))
    return {"prompt": prompt, "text": str(one.get("text", "")).removeprefix(prompt)}


def memory(entry: Entry) -> dict[str, str] | None:
    """Return the results of `unroll diagnose` in the run's directory; None if missing or unreadable."""
    if entry.directory is None:
        return None
    try:
        report, image = ((entry.directory / name).read_bytes() for name in DIAGNOSIS)
        found = json.loads(report)
        words = (
            f"{entry.name}: receptive field {found['field']} of {found['positions']} inputs; 95 % of the gradient "
            f"comes from the last {found['memory']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"words": words, "picture": base64.b64encode(image).decode()}
