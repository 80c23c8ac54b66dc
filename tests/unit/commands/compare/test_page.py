"""The page stands alone, shows what the runs measured, and lets no name or text become a part of it."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipeline.commands.compare.page import render
from pipeline.commands.compare.rows import Entry, Group
from pipeline.commands.compare.seeds import together
from pipeline.evaluation.plots.curves import Axis, Chart, Curve, axes, path, svg, thinned, ticks
from pipeline.runs.journal import JournalWriter, Series, read
from tests.timeouts import scaled

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Outline(HTMLParser):
    """Checks that elements nest and ids are unique, and collects elements, texts and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)


def outline(page):
    found = Outline()
    found.feed(page)
    found.close()
    assert found.open == []
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = [attributes.get("aria-labelledby", "").split() for _, attributes in found.elements]
    assert {one for some in references for one in some} <= set(ids)
    return found


@pytest.fixture
def entry(tmp_path):
    def make(name, losses, sample="was <b>there</b> & left"):
        writer = JournalWriter(tmp_path / f"run-{abs(hash(name))}")
        for step, loss in enumerate(losses, start=1):
            clock = (1, 10 * step, 1000 * step, 30.0 * step)
            values = {"train/loss": loss, "val/perplexity": math.exp(loss), "val/bits_per_byte": loss / 2}
            writer.metrics(*clock, values)
            writer.samples(*clock, [{"prompt": "The cat", "text": f"{sample} {step}"}])
        return Entry(name, read(writer.path.parent), "LSTMLanguageModel", 10, 1000, math.exp(min(losses)), 0.5)

    return make


def test_the_page_is_one_well_formed_file_that_asks_for_nothing(entry):
    counted = Entry("5-gram", architecture="counted", perplexity=9.0, bits_per_byte=1.2)
    page = render([Group("c" * 64, "data/topics", [entry("lstm", [3, 2]), entry("gru", [3, 2.5])], counted)])
    found = outline(page)
    assert not [one for _, attributes in found.elements for one in ("src", "href") if one in attributes]
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in page
    policy = next(a["content"] for tag, a in found.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    tags = [tag for tag, _ in found.elements]
    assert tags.count("table") == tags.count("h1") == 1
    assert tags.count("figure") == 3
    scopes = [attributes.get("scope") for tag, attributes in found.elements if tag == "th"]
    assert scopes == ["col"] * 9 + ["row"] * 3


def test_without_scripts_the_curves_are_there(entry):
    page = render([Group("c" * 64, "data", [entry("lstm", [3.0, 2.0, 1.0])])])
    figure = re.search(r"<figure.*?</figure>", page, re.S)[0]
    assert "lstm goes from 3 to 1 in 30 steps, at best 1" in figure
    (line,) = re.findall(r'<path class="curve k0 d0" d="(M[^"]*)"', figure)
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", line.replace("h0", ""))[1:]]
    assert len(points) == 3
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.2)
    assert y1 < y2  # y points down: the loss falls


EVIL = '<script>alert("1")</script>'


def test_no_name_and_no_sample_becomes_a_part_of_the_page(entry):
    page = render([Group("c" * 64, EVIL, [entry(EVIL, [3, 2], sample="</p></script><script>alert(2)//\0")])])
    found = outline(page)
    assert [a.get("type") for tag, a in found.elements if tag == "script"] == ["application/json"] * 3 + [None]
    assert EVIL in "".join(found.texts)
    assert "</p></script><script>alert(2)//\ufffd" in "".join(found.texts)
    assert "\0" not in page


def test_the_points_for_the_script_are_strict_json_even_where_the_loss_was_not_finite(entry):
    page = render([Group("c" * 64, "data", [entry("lstm", [3.0, math.nan, 2.0])])])
    packed = re.search(r'id="points-0-0">(.*?)</script>', page)[1]
    data = json.loads(packed, parse_constant=lambda name: pytest.fail(name))
    assert data["curves"][0]["values"] == [3.0, None, 2.0]
    assert data["curves"][0]["tokens"] == [1000, 2000, 3000]


def test_a_run_without_curves_has_its_row_all_the_same():
    found = outline(render([Group(None, None, [Entry("young")])]))
    assert "young" in found.texts
    assert "No curves yet." in found.texts


def test_at_most_twelve_samples_of_a_run_are_shown_the_first_and_the_last_among_them(entry):
    page = render([Group("c" * 64, "data", [entry("lstm", [2.0] * 100)])])
    steps = [int(step.replace(",", "")) for step in re.findall(r"after ([\d,]+) steps", page)]
    assert len(steps) <= 12
    assert (steps[0], steps[-1]) == (10, 1000)
    assert page.count("<details open>") == 1


def test_thinning_keeps_ends_and_spikes():
    values = [1.0] * 5000
    values[1234], values[4321] = 99.0, -7.0
    series = thinned(Curve("a", 0, Series(list(range(5000)), list(range(5000)), [0.0] * 5000, values))).series
    assert len(series.values) <= 610
    assert {99.0, -7.0} <= set(series.values)
    assert (series.steps[0], series.steps[-1]) == (0, 4999)
    assert series.steps == sorted(series.steps)


def test_a_gap_breaks_the_line():
    series = Series([1, 2, 3, 4], [0] * 4, [0.0] * 4, [1.0, math.inf, 2.0, 3.0])
    assert path(series, Axis(0, 4, 0, 4), Axis(0, 4, 0, 4)) == "M1.0 1.0h0M3.0 2.0h0L4.0 3.0"


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(0, 10, 0, 1), [0, 2, 4, 6, 8, 10]),
        (Axis(0, 2000, 0, 1), [0, 500, 1000, 1500, 2000]),
        (Axis(1.93, 2.31, 0, 1), [2.0, 2.1, 2.2, 2.3]),
        (Axis(30, 90, 0, 1, True), [30, 40, 50, 60, 70, 80, 90]),
        (Axis(20, 600, 0, 1, True), [20, 50, 100, 200, 500]),
        (Axis(3, 2000, 0, 1, True), [3, 10, 30, 100, 300, 1000]),
    ],
)
def test_ticks_are_round(axis, expected):
    found = ticks(axis, 6)
    assert found == pytest.approx(expected)
    assert 3 <= len(found) <= 8
    assert all(axis.low <= value <= axis.high for value in found)


def test_a_logarithmic_axis_puts_equal_factors_at_equal_distances():
    axis = Axis(1, 100, 0, 10, True)
    assert [axis.place(value) for value in (1, 10, 100)] == pytest.approx([0, 5, 10])


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0], [math.nan, 2.0], [1e-9, 1e9]])
def test_any_curve_can_be_drawn(values, logarithmic):
    count = len(values)
    series = Series(list(range(count)), [0] * count, [0.0] * count, values)
    chart = Chart("k", "Title", "unit", logarithmic, [Curve("a", 0, series)], ("level", 2.0))
    assert "nan" not in svg(chart, "0")
    x, y = axes(chart)
    assert x.high > x.low
    assert y.high > y.low


def browse(page, tmp_path, driver=""):
    """The page as it stands after its own script and then `driver` have run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("wants Chromium (Debian: apt-get install chromium)")
    if driver:  # the policy would forbid it
        page = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"<script>{driver}</script></body>")
    (tmp_path / "page.html").write_text(page)
    quiet = ["background-networking", "component-update", "sync", "gpu", "quic", "dev-shm-usage"]
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        *(f"--disable-{one}" for one in quiet),
    ]
    command += [
        f"--user-data-dir={tmp_path / 'browser'}",
        "--window-size=900,900",
        "--virtual-time-budget=3000",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    )
    return done.stdout


DRIVER = """
const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
window.addEventListener("load", () => {
  const svg = document.querySelector(".chart svg");
  const said = () => document.querySelector(".readout").textContent;
  const curves = () => [...svg.querySelectorAll(".curve")].map((one) => one.getAttribute("d"));
  const axis = () => svg.querySelector(".name").textContent;
  const found = { steps: curves(), axes: [axis()] };
  for (const name of ["tokens", "seconds"]) {
    document.querySelector(`#axis [value=${name}]`).click();
    found[name] = curves();
    found.axes.push(axis());
  }
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
  found.said = said();
  found.dots = svg.querySelectorAll(".dot").length;
  document.querySelector(".chart input").click();
  found.logarithmic = curves();
  const button = document.querySelectorAll(".legend button")[1];
  button.click();
  found.hidden = curves().length;
  found.pressed = button.getAttribute("aria-pressed");
  button.click();
  found.back = curves().length;
  found.wide = document.documentElement.scrollWidth <= window.innerWidth;
  found.errors = errors;
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
"""


@pytest.mark.slow
def test_in_a_browser_axes_switches_and_keys_work(entry, tmp_path):
    page = render([Group("c" * 64, "data", [entry("lstm", [3, 2, 1.5]), entry("gru", [3, 2.5, 2])])])
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', browse(page, tmp_path, DRIVER), re.S)[1])
    assert found["errors"] == []
    assert found["axes"] == ["optimizer steps", "training tokens", "training time"]
    assert len(found["steps"]) == 2
    assert found["steps"] == found["tokens"] == found["seconds"]  # all proportional here
    assert found["said"] == "1:30lstm: 1.5gru: 2"
    assert found["dots"] == 2
    assert found["logarithmic"] != found["steps"]
    assert (found["hidden"], found["pressed"], found["back"]) == (1, "false", 2)
    assert found["wide"] is True


@pytest.fixture
def tournament(entry, tmp_path):
    """A group of two entrants with two seeds each, one of which was diagnosed."""
    runs = []
    for name, losses in (("lstm", [3, 2, 1.5]), ("a-network-of-a-very-long-name-indeed", [3, 2.5, 2])):
        for seed in (1, 2):
            one = entry(f"{name}-{seed}", [loss + 0.1 * seed for loss in losses])
            cost = {"seconds": 10.0 * len(name), "flops": 1e9 * seed}
            runs.append(replace(one, tournament="t", entrant=name, dataset="c", directory=tmp_path / name, **cost))
    (tmp_path / "lstm").mkdir()
    (tmp_path / "lstm" / "diagnosis.json").write_text('{"positions": 64, "field": 48, "memory": 12}')
    (tmp_path / "lstm" / "diagnosis.png").write_bytes(b"a picture")
    [group] = together(runs)
    return replace(group, baseline=Entry("5-gram", perplexity=4.0, bits_per_byte=1.1))


def test_a_tournament_has_ranks_bands_costs_and_what_was_diagnosed(tournament):
    page = render([tournament])
    found = outline(page)
    texts = "".join(found.texts)
    assert "4.70 ± " not in texts  # exp of a mean is no mean of exp
    mean = (math.exp(1.6) + math.exp(1.7)) / 2
    half = 12.706 * (math.exp(1.7) - math.exp(1.6)) / 2
    assert f"{mean:.2f} ± {half:.2f}" in texts
    assert "95 % t interval of the mean" in texts
    assert len(re.findall('<path class="band f', page)) == 2 * 3
    [cost] = re.findall('<figure class="plot">.*?</figure>', page, re.S)
    assert "Training time against validation bits per byte" in cost
    assert "lstm 0.5 after 40.0 s" in cost
    assert "5-gram stands at 1.1" in cost
    images = [attributes for tag, attributes in found.elements if tag == "img"]
    assert [image["alt"] for image in images] == [
        f"lstm-{seed}: of 64 inputs up to 48 change the last output; 95 % of the gradient comes from the last 12"
        for seed in (1, 2)
    ]
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)


def test_where_costs_are_equal_no_chart_tells_of_them(tournament):
    same = [replace(entry, seconds=9.0) for entry in tournament.entries]
    assert 'class="plot"' not in render([replace(tournament, entries=same)])


PHONE = """
window.addEventListener("load", () => {
  const frame = document.createElement("iframe");
  frame.style = "width:390px;height:800px;border:0";
  frame.srcdoc = document.documentElement.outerHTML.replace(/<script>[^]*?<[/]script>/g, "");
  document.body.replaceChildren(frame);
  frame.addEventListener("load", () => {
    const inside = frame.contentDocument, out = document.createElement("pre");
    const buttons = [...inside.querySelectorAll("button, summary, label")];
    const drawings = [...inside.querySelectorAll('svg[role="img"]')];
    const small = buttons.map((one) => one.getBoundingClientRect().height);
    out.id = "found";
    out.textContent = JSON.stringify({
      width: inside.documentElement.clientWidth, needed: inside.documentElement.scrollWidth,
      language: inside.documentElement.lang, main: inside.querySelectorAll("main").length,
      unnamed: drawings.filter((one) => !one.querySelector("title, desc")).length,
      least: Math.min(...small.filter((height) => height > 0)),
    });
    document.body.append(out);
  });
});
"""


@pytest.mark.slow
def test_on_a_phone_nothing_is_wider_than_the_screen(tournament, tmp_path):
    after = browse(render([tournament]), tmp_path, PHONE)
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', after, re.S)[1])
    assert found["needed"] <= found["width"] <= 390
    assert (found["language"], found["main"], found["unnamed"]) == ("en", 1, 0)
    assert found["least"] >= 24  # pixels that a finger wants (WCAG 2.2, 2.5.8)


@pytest.mark.slow
def test_in_a_browser_bands_follow_the_axis_and_are_told(tournament, tmp_path):
    driver = DRIVER.replace('".curve")]', '".band")]')
    found = json.loads(
        re.search(r'<pre id="found">(.*?)</pre>', browse(render([tournament]), tmp_path, driver), re.S)[1]
    )
    assert found["errors"] == []
    assert len(found["steps"]) == 2
    assert all(band.startswith("M") and band.endswith("Z") for band in found["steps"])
    assert found["steps"] == found["tokens"] == found["seconds"]  # all proportional here
    assert re.search(r"lstm: 1\.65 \(\S+ to \S+\)", found["said"])
    assert (found["hidden"], found["back"]) == (1, 2)
    assert found["wide"] is True


@pytest.mark.slow
def test_in_a_browser_the_policy_lets_our_script_run(entry, tmp_path):
    page = render([Group("c" * 64, "data", [entry(EVIL, [3, 2])])])
    assert '<fieldset id="axis" hidden>' in page
    after = browse(page, tmp_path)
    assert '<fieldset id="axis">' in after
    assert 'tabindex="0"' in re.search(r"<figure.*?<title", after, re.S)[0]
