// One asset: its ticks over the fans that were forecast for them, what happened, how rough it is, which kernel is believed.

import { areas, isNumber, path, ruler, spanOf } from "./chart.js";
import { h, s, say } from "./dom.js";
import { ask } from "./link.js";
import { MODES, clock, eventsOf, number, percent } from "./words.js";

const POINTS_MAX = 240;
const SEARCH_AFTER_MS = 150;
const SIDE = 78; // room for the numbers beside a chart
const AHEAD = 56;
const KERNELS = ["A", "B", "C", "D"];
const FIELDS = ["id", "time_ms", "value", "forecast", "lower", "upper", "fan", "mode", "events", "depth", "roughness", "weights", "follows"];

export class AssetView {
  constructor(root, shared, asset) {
    this.shared = shared;
    this.points = [];
    this.picked = null;
    this.search = new Search((name) => (location.hash = `#/assets/${encodeURIComponent(name)}`));
    this.page = h("div", { class: "asset" });
    root.append(h("div", { class: "beside" }, this.search.element, this.page));
    this.resized = new ResizeObserver(() => this.draw());
    this.show(asset);
    this.resized.observe(this.page);
  }

  close() {
    this.resized.disconnect();
    this.search.close();
  }

  show(asset) {
    this.name = asset;
    this.points = [];
    this.picked = null;
    this.told = null;
    this.search.choose(asset);
    this.page.replaceChildren(...(asset ? this.frame() : [h("p", { class: "hint" }, "Choose an asset: its forecasts are then followed live.")]));
  }

  frame() {
    this.hint = h("p", { class: "hint", role: "status" }, "Reading its recent past …");
    this.facts = h("dl", { class: "facts" });
    this.readout = h("p", { class: "readout", "aria-live": "polite" });
    this.charts = h("div", { class: "charts", hidden: true });
    this.happened = h("ol", { class: "moves", "aria-label": "Events" });
    return [h("h2", { id: "asset-name" }, this.name), this.hint, this.facts, this.charts, this.happened];
  }

  asset(told) {
    if (told.asset !== this.name) return;
    const fresh = told.points.map((row) => Object.fromEntries(FIELDS.map((field, i) => [field, row[i]])));
    this.points = [...(told.anew ? [] : this.points), ...fresh].slice(-POINTS_MAX);
    this.told = told;
    this.draw();
  }

  draw() {
    if (!this.told) return;
    const { known, fault, skims } = this.told;
    const hint = fault || (!known ? "No prediction of this asset yet." : skims ? "Its partition is too busy to read along: points are samples, and none is judged." : "");
    say(this.hint, hint);
    this.hint.hidden = !hint;
    if (!this.points.length) return;
    this.showFacts();
    this.showCharts();
    this.showEvents();
  }

  showFacts() {
    const last = this.points.at(-1);
    const { judged, covered, levels, partition } = this.told;
    const facts = [
      ["last value", number(last.value)],
      ["forecast", number(last.forecast)],
      ["band", `${number(last.lower, 5)} … ${number(last.upper, 5)}`],
      ["in its band", judged ? `${percent(covered, judged)} of ${judged}` : "–"],
      ["mode", MODES[last.mode] ?? String(last.mode)],
      ["Hölder exponent", number(last.roughness, 3)],
      ["depth", String(last.depth)],
      ["partition", String(partition)],
    ];
    if (this.facts.children.length !== facts.length) {
      this.facts.replaceChildren(...facts.map(([label]) => h("div", {}, h("dt", {}, label), h("dd", {}))));
    }
    facts.forEach(([, text], i) => say(this.facts.children[i].lastChild, text));
    this.levels = levels;
  }

  showCharts() {
    const width = Math.max(200, this.page.clientWidth - 2);
    const inner = width - SIDE;
    const slot = (inner - AHEAD) / this.points.length; // what is still to come stands apart, where there is room for it
    const x = (i) => (i < this.points.length ? slot * (i + 0.5) : inner - 8);
    if (!this.charts.children.length) this.buildCharts();
    this.charts.hidden = false;
    const parts = [
      this.fanChart(width, inner, Math.min(360, Math.max(230, inner * 0.45)), x),
      this.roughChart(width, inner, x),
      this.weightChart(width, inner, x),
    ];
    parts.forEach((part, i) => this.figures[i].replaceChildren(part));
    this.pick(this.picked);
  }

  buildCharts() {
    const legend = (...entries) => h("figcaption", {}, ...entries.map(([kind, text]) => h("span", {}, h("i", { class: `key ${kind}`, "aria-hidden": "true" }), text)));
    this.figures = [0, 1, 2].map(() => h("div", { class: "drawing" }));
    const range = (low, high) => `${Math.round(100 * low)}–${Math.round(100 * high)} %`;
    const pairs = this.pairs().map(([low, high], n) => [`fan-${n}`, range(this.levels[low], this.levels[high])]);
    this.charts.append(
      h("figure", {}, legend(["value", "value"], ["median", "median"], ...pairs, ["outside", "outside its band"], ["regime", "regime change"]), this.figures[0], this.readout),
      h("figure", {}, h("figcaption", {}, "Hölder exponent"), this.figures[1]),
      h("figure", {}, legend(...KERNELS.map((kernel, n) => [`kernel-${n}`, kernel])), this.figures[2]),
    );
    this.charts.lastChild.firstChild.prepend(h("span", {}, "Weights of the kernels"));
    const drawing = this.figures[0];
    drawing.tabIndex = 0;
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", "Values over their forecasts. Left and right arrow: one tick back or on.");
    drawing.addEventListener("pointermove", (event) => this.pickAt(event.offsetX));
    drawing.addEventListener("pointerleave", () => this.pick(null));
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.pick(Math.max(0, Math.min(this.points.length - 1, (this.picked ?? this.points.length) + step)));
    });
  }

  // Pairs of quantiles from the outside in: [lowest, highest], ...
  pairs() {
    return Array.from({ length: Math.floor(this.levels.length / 2) }, (_, n) => [n, this.levels.length - 1 - n]);
  }

  fanChart(width, inner, height, x) {
    const { points } = this;
    const last = points.length - 1;
    const next = (i) => x(i + 1); // a forecast stands where the value comes that it is for
    const breaks = (i) => !points[i].follows;
    const past = points.slice(0, -1);
    const outer = points.flatMap((point) => [point.fan[1] ?? point.lower, point.fan.at(-2) ?? point.upper]);
    const span = spanOf([...points.map((point) => point.value), ...outer]);
    const y = (value) => height - (height * (value - span[0])) / (span[1] - span[0]);
    const chart = s("svg", { width, height, class: "fan-chart" }, s("title", {}, `Forecasts of ${this.name}`), ...ruler(span, y, inner, height));
    chart.append(s("clipPath", { id: "inside" }, s("rect", { x: 0, y: 0, width: inner, height })));
    const body = s("g", { "clip-path": "url(#inside)" });
    points.forEach((point, i) => {
      const marked = eventsOf(point.events).find(([, , tone]) => tone);
      const began = marked && !(i && eventsOf(points[i - 1].events).includes(marked));
      if (began) body.append(s("line", { class: `event ${marked[2]}`, x1: x(i), x2: x(i), y1: 0, y2: height }, s("title", {}, marked[1])));
    });
    this.pairs().forEach(([low, high], n) => {
      body.append(s("path", { class: `fan fan-${n}`, d: areas(past.map((p) => p.fan[low]), past.map((p) => p.fan[high]), next, y, breaks) }));
      const { fan, value, forecast } = points[last];
      const from = isNumber(value) ? value : forecast;
      if (isNumber(fan[low])) body.append(s("path", { class: `fan next fan-${n}`, d: areas([from, fan[low]], [from, fan[high]], (i) => x(last + i), y) }));
    });
    const middle = Math.floor(this.levels.length / 2);
    body.append(s("path", { class: "median", d: path(past.map((p) => p.fan[middle]), next, y, breaks) }));
    body.append(s("path", { class: "value", d: path(points.map((p) => p.value), x, y, breaks) }));
    points.forEach((point, i) => {
      const before = points[i - 1];
      if (before && point.follows && isNumber(point.value) && (point.value < before.lower || point.value > before.upper)) {
        body.append(s("circle", { class: "outside", cx: x(i), cy: y(point.value), r: 3 }));
      }
    });
    if (isNumber(points[last].value)) body.append(s("circle", { class: "latest", cx: x(last), cy: y(points[last].value), r: 4 }));
    this.hair = s("line", { class: "hair", y1: 0, y2: height, x1: -9, x2: -9 });
    chart.append(body, this.hair);
    this.place = { x };
    return chart;
  }

  roughChart(width, inner, x) {
    const height = 90;
    const y = (value) => height - height * Math.max(0, Math.min(1, value));
    const line = path(this.points.map((point) => point.roughness), x, y, (i) => !this.points[i].follows);
    return s("svg", { width, height }, ...ruler([0, 1], y, inner, height, 2), s("path", { class: "rough", d: line }));
  }

  weightChart(width, inner, x) {
    const height = 90;
    const y = (value) => height - height * value;
    const sums = this.points.map((point) => point.weights.reduce((all, weight) => [...all, all.at(-1) + weight], [0]));
    const layers = KERNELS.map((_, n) => s("path", { class: `kernel-${n}`, d: areas(sums.map((sum) => sum[n]), sums.map((sum) => sum[n + 1]), x, y) }));
    return s("svg", { width, height }, ...layers, ...ruler([0, 1], y, inner, height, 2));
  }

  pickAt(px) {
    if (!this.place) return;
    const place = this.points.findIndex((_, i) => px < (this.place.x(i) + this.place.x(i + 1)) / 2);
    this.pick(place < 0 ? null : place);
  }

  pick(place) {
    this.picked = place;
    const point = this.points[place ?? this.points.length - 1];
    const at = place === null ? -9 : this.place.x(place);
    this.hair.setAttribute("x1", at);
    this.hair.setAttribute("x2", at);
    const happened = eventsOf(point.events).map(([, text]) => text).join("; ");
    say(this.readout, `${clock(point.time_ms)}  value ${number(point.value)}, next ${number(point.forecast)} in ${number(point.lower)} … ${number(point.upper)}${happened ? `; ${happened}` : ""}`);
  }

  showEvents() {
    const begun = this.points.flatMap((point, i) => {
      const before = i ? this.points[i - 1].events : 0;
      return eventsOf(point.events & ~before).map(([, text, tone]) => [point.time_ms, text, tone]);
    });
    const rows = begun.slice(-8).reverse();
    const key = JSON.stringify(rows);
    if (key === this.eventsShown) return;
    this.eventsShown = key;
    this.happened.replaceChildren(...rows.map(([at, text, tone]) => h("li", {}, h("time", {}, clock(at)), h("i", { class: `key ${tone}`, "aria-hidden": "true" }), ` ${text}`)));
  }
}

class Search {
  constructor(onChoice) {
    this.onChoice = onChoice;
    this.chosen = "";
    this.input = h("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false", placeholder: "part of a name", maxlength: 256, oninput: () => this.soon(), onkeydown: (event) => this.key(event) });
    this.list = h("ul", { id: "found", "aria-label": "Assets found" });
    this.note = h("p", { class: "hint", role: "status" });
    this.element = h("section", { class: "search", "aria-label": "Search" }, h("label", { for: "search" }, "Asset"), this.input, this.note, this.list);
    this.ask();
  }

  close() {
    clearTimeout(this.later);
  }

  choose(name) {
    this.chosen = name;
    for (const link of this.list.querySelectorAll("a")) {
      link.textContent === name ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    }
  }

  soon() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.ask(), SEARCH_AFTER_MS);
  }

  key(event) {
    if (event.key === "Enter" && this.first) this.onChoice(this.first);
    if (event.key === "ArrowDown") this.list.querySelector("a")?.focus();
  }

  async ask() {
    const text = this.input.value;
    try {
      const found = await ask(`/assets?text=${encodeURIComponent(text)}`);
      if (text !== this.input.value) return; // asked again meanwhile
      this.show(found);
    } catch (error) {
      say(this.note, error.message);
    }
  }

  show({ names, all }) {
    this.first = names[0];
    say(this.note, names.length ? (all ? `${names.length} found` : `the first ${names.length}; more letters find fewer`) : "none found");
    this.list.replaceChildren(...names.map((name) => h("li", {}, h("a", { href: `#/assets/${encodeURIComponent(name)}` }, name))));
    this.choose(this.chosen);
  }
}
