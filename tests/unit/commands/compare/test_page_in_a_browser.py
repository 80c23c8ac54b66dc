"""The page's script in a browser; requires Chromium."""

import json
import re
import shutil
import subprocess

import pytest

from pipeline.commands.compare.page import render
from pipeline.commands.compare.rows import Group
from tests.timeouts import scaled

EVIL = '<script>alert("1")</script>'


def browse(page, tmp_path, driver=""):
    """Return the page after its own script and then `driver` have run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("requires Chromium (Debian: apt-get install chromium)")
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
  const readout = () => document.querySelector(".readout").textContent;
  const curves = () => [...svg.querySelectorAll(".curve")].map((one) => one.getAttribute("d"));
  const axis = () => svg.querySelector(".name").textContent;
  const found = { steps: curves(), axes: [axis()] };
  for (const name of ["tokens", "seconds"]) {
    document.querySelector(`#axis [value=${name}]`).click();
    found[name] = curves();
    found.axes.push(axis());
  }
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
  found.readout = readout();
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
    assert found["readout"] == "1:30lstm: 1.5gru: 2"
    assert found["dots"] == 2
    assert found["logarithmic"] != found["steps"]
    assert (found["hidden"], found["pressed"], found["back"]) == (1, "false", 2)
    assert found["wide"] is True


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
    assert found["least"] >= 24  # minimum target size in pixels (WCAG 2.2, 2.5.8)


@pytest.mark.slow
def test_in_a_browser_bands_follow_the_axis_and_are_read_out(tournament, tmp_path):
    driver = DRIVER.replace('".curve")]', '".band")]')
    found = json.loads(
        re.search(r'<pre id="found">(.*?)</pre>', browse(render([tournament]), tmp_path, driver), re.S)[1]
    )
    assert found["errors"] == []
    assert len(found["steps"]) == 2
    assert all(band.startswith("M") and band.endswith("Z") for band in found["steps"])
    assert found["steps"] == found["tokens"] == found["seconds"]  # all proportional here
    assert re.search(r"lstm: 1\.65 \(\S+ to \S+\)", found["readout"])
    assert (found["hidden"], found["back"]) == (1, 2)
    assert found["wide"] is True


@pytest.mark.slow
def test_in_a_browser_the_policy_lets_our_script_run(entry, tmp_path):
    page = render([Group("c" * 64, "data", [entry(EVIL, [3, 2])])])
    assert '<fieldset id="axis" hidden>' in page
    after = browse(page, tmp_path)
    assert '<fieldset id="axis">' in after
    assert 'tabindex="0"' in re.search(r"<figure.*?<title", after, re.S)[0]
