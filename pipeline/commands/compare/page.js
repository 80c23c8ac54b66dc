// Redraws the charts when an axis, a switch or the width changes, and shows the values under the pointer.
"use strict";
(() => {
  const HEIGHT = 300, LEFT = 58, RIGHT = 14, TOP = 12, BOTTOM = 40, COLOURS = 6, DASHES = 5;
  const AXES = { steps: "optimizer steps", tokens: "training tokens", seconds: "training time", flops: "training FLOPs" };
  const axis = () => document.querySelector("#axis input:checked").value;

  const make = (name, attributes, content) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (content !== undefined) made.textContent = content;
    return made;
  };

  const short = (value) => {
    for (const [unit, size] of [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]])
      if (Math.abs(value) >= size) return `${+(value / size).toPrecision(4)}${unit}`;
    return `${+value.toPrecision(4)}`;
  };
  const time = (seconds) => {
    if (seconds < 60) return `${+seconds.toFixed(1)} s`;
    const all = Math.round(seconds), pad = (number) => String(number).padStart(2, "0");
    const [hours, minutes, rest] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
    return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
  };
  const exact = (value) => Number(value).toLocaleString("en");

  // About `count` round values between low and high, or powers of ten on a wide logarithmic axis.
  const ticks = (low, high, count, logarithmic) => {
    if (logarithmic && high / low > 10) {
      let inside = [];
      for (const factors of [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 5], [1, 3], [1]]) {
        inside = [];
        for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
          for (const factor of factors) inside.push(factor * 10 ** power);
        inside = inside.filter((value) => value >= low && value <= high);
        if (inside.length <= 8) break;
      }
      return inside;
    }
    return steps(low, high, (high - low) / count);
  };
  const steps = (low, high, least, factors = [1, 2, 5, 10]) => {
    const size = 10 ** Math.floor(Math.log10(least));
    const step = size * factors.find((factor) => factor * size >= least * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high * (1 + 1e-12); k++) found.push(k * step);
    return found;
  };
  const moments = (high, count) => {
    const step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400]
      .find((seconds) => high / seconds <= count);
    return !step || high < 5 ? steps(0, high, high / count) : steps(0, high, step, [step / 10 ** Math.floor(Math.log10(step))]);
  };

  const scale = (low, high, start, stop, logarithmic) => {
    const on = logarithmic ? Math.log : (value) => value;
    return (value) => start + ((on(value) - on(low)) / (on(high) - on(low))) * (stop - start);
  };

  class Chart {
    constructor(figure, hidden) {
      this.figure = figure;
      this.hidden = hidden; // styles of the hidden runs
      this.data = JSON.parse(document.getElementById(figure.dataset.points).textContent);
      this.svg = figure.querySelector("svg");
      this.words = [...this.svg.querySelectorAll("title, desc")];
      this.readout = figure.querySelector(".readout");
      this.log = figure.querySelector("input");
      this.log.addEventListener("change", () => this.draw());
      figure.querySelector("label").hidden = this.readout.hidden = false;
      this.svg.tabIndex = 0;
      this.svg.classList.remove("still");
      this.svg.addEventListener("pointermove", (event) => this.point(event.clientX - this.svg.getBoundingClientRect().left));
      this.svg.addEventListener("pointerleave", () => this.clear());
      this.svg.addEventListener("blur", () => this.clear());
      this.svg.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.svg.clientWidth !== this.width && this.draw()).observe(figure);
      this.draw();
    }

    curves() {
      return this.data.curves.filter((curve) => !this.hidden.has(curve.style));
    }

    draw() {
      const key = axis(), log = this.log.checked, curves = this.curves(), reference = this.data.reference;
      const width = (this.width = Math.max(this.svg.clientWidth, 200));
      const right = width - RIGHT, foot = HEIGHT - BOTTOM;
      const good = (value) => value !== null && (value > 0 || !log);
      const columns = curves.flatMap((curve) => [curve.values, curve.low ?? [], curve.high ?? []]);
      const values = columns.flatMap((column) => column.filter(good)).concat(reference ? [reference[1]] : []);
      let low = Math.min(...values), high = Math.max(...values);
      if (!values.length) [low, high] = [1, 2];
      if (log) {
        const room = Math.max((high / low) ** 0.04, 1.001);
        [low, high] = [low / room, high * room];
      } else {
        const room = 0.04 * (high - low) || 0.05 * Math.abs(high) || 1;
        [low, high] = [low - room, high + room];
      }
      const end = (this.end = Math.max(...curves.map((curve) => curve[key][curve[key].length - 1])) || 1);
      const far = Number.isFinite(end) ? end : (this.end = 1);
      const x = (this.x = scale(0, far, LEFT, right)), y = (this.y = scale(low, high, foot, TOP, log));
      const parts = [...this.words];
      for (const value of ticks(low, high, 6, log)) {
        parts.push(make("path", { class: "grid", d: `M${LEFT} ${y(value)}H${right}` }));
        parts.push(make("text", { class: "y", x: LEFT - 8, y: y(value) + 4 }, short(value)));
      }
      const count = Math.max(2, Math.floor((right - LEFT) / 85)), timed = key === "seconds";
      for (const value of timed ? moments(far, count) : ticks(0, far, count)) {
        parts.push(make("path", { class: "grid", d: `M${x(value)} ${TOP}V${foot}` }));
        parts.push(make("text", { class: "x", x: x(value), y: foot + 18 }, timed ? time(value) : short(value)));
      }
      parts.push(make("text", { class: "name", x: right, y: HEIGHT - 3 }, AXES[key]));
      if (reference) parts.push(make("path", { class: "reference", d: `M${LEFT} ${y(reference[1])}H${right}` }));
      const inside = (value) => y(Math.min(Math.max(value, low), high)).toFixed(1);
      for (const curve of curves) {
        if (!curve.low) continue;
        const places = curve[key].map((_, i) => i).filter((i) => curve.low[i] !== null && curve.high[i] !== null);
        const at = (column) => (i) => `${x(curve[key][i]).toFixed(1)} ${inside(column[i])}`;
        const edge = [...places.map(at(curve.high)), ...[...places].reverse().map(at(curve.low))];
        if (edge.length) parts.push(make("path", { class: `band f${curve.style % COLOURS}`, d: `M${edge.join("L")}Z` }));
      }
      for (const curve of curves) {
        let d = "", pen = "M";
        curve.values.forEach((value, i) => {
          if (!good(value)) return (pen = "M");
          d += `${pen}${x(curve[key][i]).toFixed(1)} ${y(value).toFixed(1)}${pen === "M" ? "h0" : ""}`;
          pen = "L";
        });
        parts.push(make("path", { class: `curve k${curve.style % COLOURS} d${curve.style % DASHES}`, d }));
      }
      parts.push((this.marks = make("g", {})));
      this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      this.svg.replaceChildren(...parts);
      this.clear();
    }

    clear() {
      this.at = null;
      this.marks.replaceChildren();
      this.readout.textContent = "Hover over the chart, or focus it and press the arrow keys, to read values.";
    }

    key(event) {
      const stride = (event.shiftKey ? 10 : 1) * (this.width - LEFT - RIGHT) / 100;
      const here = this.at ?? this.width - RIGHT;
      const to = { ArrowLeft: here - stride, ArrowRight: here + stride, Home: LEFT, End: this.width - RIGHT }[event.key];
      if (event.key === "Escape") this.clear();
      if (to === undefined) return;
      event.preventDefault();
      this.point(to);
    }

    // Shows the point of each curve that is nearest to the pixel column `at`.
    point(at) {
      this.at = Math.min(Math.max(at, LEFT), this.width - RIGHT);
      const key = axis(), target = ((this.at - LEFT) / (this.width - LEFT - RIGHT)) * this.end;
      const parts = [make("path", { class: "cursor", d: `M${this.at} ${TOP}V${HEIGHT - BOTTOM}` })];
      const readouts = [Object.assign(document.createElement("b"), {
        textContent: key === "seconds" ? time(target) : key === "flops" ? `${short(target)} FLOPs`
          : `${exact(Math.round(target))} ${key}`,
      })];
      for (const curve of this.curves()) {
        const i = nearest(curve[key], target), value = curve.values[i];
        const readout = document.createElement("span");
        const round = (number) => exact(+number.toPrecision(5));
        const band = curve.low && curve.low[i] !== null ? ` (${round(curve.low[i])} to ${round(curve.high[i])})` : "";
        readout.textContent = `${curve.name}: ${value === null ? "not finite" : round(value)}${band}`;
        readouts.push(readout);
        if (value === null || (value <= 0 && this.log.checked)) continue;
        parts.push(make("circle", { class: `dot f${curve.style % COLOURS}`, r: 4.5, cx: this.x(curve[key][i]), cy: this.y(value) }));
      }
      this.marks.replaceChildren(...parts);
      this.readout.replaceChildren(...readouts);
    }
  }

  const nearest = (column, target) => {
    let low = 0, high = column.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (column[middle] < target) low = middle; else high = middle;
    }
    return target - column[low] <= column[high] - target ? low : high;
  };

  const charts = [];
  for (const group of document.querySelectorAll(".group")) {
    const hidden = new Set();
    const mine = [...group.querySelectorAll(".chart")].map((figure) => new Chart(figure, hidden));
    charts.push(...mine);
    for (const button of group.querySelectorAll(".legend button")) {
      button.disabled = false;
      button.addEventListener("click", () => {
        const style = Number(button.dataset.style), shown = hidden.has(style);
        if (shown) hidden.delete(style); else hidden.add(style);
        button.setAttribute("aria-pressed", String(shown));
        for (const chart of mine) chart.draw();
      });
    }
  }
  const choice = document.getElementById("axis");
  choice.hidden = charts.length === 0;
  choice.addEventListener("change", () => charts.forEach((chart) => chart.draw()));
})();
