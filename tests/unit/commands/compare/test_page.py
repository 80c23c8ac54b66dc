"""The page is self-contained, shows the metrics of the runs, and escapes all names and texts."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipeline.commands.compare.page import render
from pipeline.commands.compare.rows import Entry, Group

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


def test_the_page_is_one_well_formed_file_without_external_resources(entry):
    baseline = Entry("5-gram", architecture="Kneser-Ney", perplexity=9.0, bits_per_byte=1.2)
    page = render([Group("c" * 64, "data/topics", [entry("lstm", [3, 2]), entry("gru", [3, 2.5])], baseline)])
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


def test_curves_of_a_tournament_are_also_drawn_by_flops(tournament, entry):
    page = render([tournament])
    assert 'value="flops"' in page
    data = json.loads(re.search(r'id="points-0-0">(.*?)</script>', page)[1])
    price = [one.flops / one.tokens for one in tournament.entries]
    assert [curve["flops"] for curve in data["curves"]] == [
        [each * tokens for tokens in (1000, 2000, 3000)] for each in price
    ]
    assert 'value="flops"' not in render([Group("c" * 64, "data", [entry("lstm", [2.0])])])


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


def test_a_tournament_has_ranks_bands_costs_and_diagnoses(tournament):
    page = render([tournament])
    found = outline(page)
    texts = "".join(found.texts)
    assert "4.70 ± " not in texts  # the mean of exp is not exp of the mean
    mean = (math.exp(1.6) + math.exp(1.7)) / 2
    half = 12.706 * (math.exp(1.7) - math.exp(1.6)) / 2
    assert f"{mean:.2f} ± {half:.2f}" in texts
    assert "95 % t interval of the mean" in texts
    assert len(re.findall('<path class="band f', page)) == 2 * 3
    [cost] = re.findall('<figure class="plot">.*?</figure>', page, re.S)
    assert "Training time against validation bits per byte" in cost
    assert "lstm 0.5 after 40.0 s" in cost
    assert "5-gram 1.1" in cost
    images = [attributes for tag, attributes in found.elements if tag == "img"]
    assert [image["alt"] for image in images] == [
        f"lstm-{seed}: receptive field 48 of 64 inputs; 95 % of the gradient comes from the last 12" for seed in (1, 2)
    ]
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)


def test_equal_costs_have_no_chart(tournament):
    same = [replace(entry, seconds=9.0) for entry in tournament.entries]
    assert 'class="plot"' not in render([replace(tournament, entries=same)])


def test_a_narrow_screen_shows_the_quality_directly_after_the_name(entry):
    scored = replace(entry("ctc", [3, 2]), perplexity=None, bits_per_byte=None, loss=2.0, scores={"accuracy": 80.0})
    page = render([Group("c" * 64, "data/topics", [scored])])
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page)
    assert heads[:4] == ["run", "validation accuracy", "validation loss", "architecture"]
    [cells] = re.findall(r'<th scope="row">ctc</th>(.*?)</tr>', page, re.DOTALL)
    assert re.findall(r"<td[^>]*>\s*([^<]*)</td>", cells)[:2] == ["80", "2.0000"]
