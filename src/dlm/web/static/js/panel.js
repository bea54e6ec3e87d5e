// One chart: its lines, marks, values under the cursor, zoom by mouse and keyboard. Drawn only while it is in view.
import { chartQuery, fetchChart, openingChart } from "./curves.js";
import { duration, percent, short } from "./format.js";
import { colour, marksPlugin, withAlpha } from "./marks.js";
import { SPANS, WHOLE, bigNumber, rangeOfY } from "./scales.js";
import { inWords, note } from "./words.js";

const MOST_APPENDED = 6000; // points of a line before it is bucketed anew
const RUN_COLOURS = ["rate", "norm", "extra", "chosen", "rejected", "accuracy", "neutral"];

export class Panel {
  /** `office` has {view, marks, zoom(low, high), say(text)} and is shared by the panels of the page. */
  constructor(section, office) {
    this.section = section;
    this.office = office;
    this.chart = section.dataset.chart;
    this.names = new Set(section.dataset.names.split(" ").filter(Boolean));
    this.plot = section.querySelector(".plot");
    this.legend = section.querySelector(".legend");
    this.title = section.querySelector("h3").firstChild.textContent.trim();
    this.drawn = null;
    this.visible = false;
    this.stale = true;
    this.failed = false; // the newest request
    this.behind = false; // words and table, of the picture
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
    const numbers = section.querySelector(".numbers");
    numbers.addEventListener("toggle", () => numbers.open && this.fillTable());
    new ResizeObserver(() => this.fit()).observe(this.plot);
  }

  /** In view or not; done when what it has to show then is there. */
  async setVisible(visible) {
    this.visible = visible;
    if (visible && (this.stale || this.failed)) await this.load();
  }

  /** The view changed, or points were lost: read anew, now or when it comes into view. */
  invalidate() {
    this.stale = true;
    if (this.visible) this.load();
  }

  /** The server is there again. */
  retry() {
    if (this.failed) this.invalidate();
  }

  async load() {
    this.stale = this.failed = this.behind = false;
    this.request?.abort();
    const request = (this.request = new AbortController());
    try {
      const { view } = this.office;
      const answer = openingChart(this.chart, view) ?? (await this.fetched(view, request.signal));
      if (request.signal.aborted) return;
      this.header = answer.header;
      this.lines = answer.lines;
      for (const line of this.lines) this.prepare(line);
      this.fresh = true;
      this.draw();
      if (this.section.querySelector(".numbers").open) this.fillTable();
    } catch (fault) {
      if (fault.name === "AbortError") return;
      this.failed = true;
      this.nothing(fault.message);
    }
    this.request = null;
    if (this.stale && this.visible && !this.failed) this.load(); // points came while the answer was on its way
  }

  async fetched(view, signal) {
    if (!this.header) await new Promise((done) => setTimeout(done)); // charts that came within the page are drawn first
    return fetchChart(this.chart, view, signal);
  }

  /** What an append needs: the moving average as it stands, without its division. */
  prepare(line) {
    const weight = this.office.view.smoothing;
    line.average = line.smooth?.length ? line.smooth.at(-1) * (1 - weight ** line.points) : 0;
  }

  /** Points that were just logged, of any run. `series` is by metric name. */
  append(run, series) {
    const { view } = this.office;
    if (run !== view.run && !view.others.includes(String(run))) return;
    const mine = Object.entries(series).filter(([name]) => this.names.has(name));
    if (!mine.length) return;
    if (!this.visible || !this.lines || this.request || this.failed) {
      this.stale = true; // read when it comes into view, or when the answer that is on its way is there
      return;
    }
    let longer = false;
    for (const [name, points] of mine) {
      const line = this.lines.find((one) => one.run === run && one.name === name);
      const xs = line && line.x.length <= MOST_APPENDED ? this.placesOf(line, points, series) : null;
      if (xs === null) {
        this.invalidate();
        return;
      }
      longer = this.extend(line, points, xs) || longer;
    }
    this.behind = true;
    if (longer) this.schedule();
  }

  /** Put points at the end of a line. Returns whether the picture shows more of it: a stretch that ends earlier does not. */
  extend(line, points, xs) {
    const { smoothing, high } = this.office.view;
    const before = line.x.length;
    for (let i = 0; i < xs.length; i++) {
      const value = points.values[i];
      // What is known already comes again now and then; a run that went on from an earlier step is drawn anew.
      if (value === null || points.steps[i] <= line.last?.[0]) continue;
      note(line, xs[i], points.steps[i], value);
      const newest = line.x.at(-1);
      if (xs[i] <= newest || (high !== null && newest > high)) continue; // up to the first one beyond, as the server
      line.x.push(xs[i]);
      line.values.push(value);
      if (line.smooth) {
        line.average = smoothing * line.average + (1 - smoothing) * value;
        line.smooth.push(line.average / (1 - smoothing ** line.points));
      }
    }
    return line.x.length > before;
  }

  placesOf(line, points, series) {
    if (this.header.axis === "step") return points.steps;
    if (this.header.axis === "time") {
      if (line.started === null || points.times.includes(null)) return null;
      return points.times.map((time) => time - line.started);
    }
    const tokens = series.num_tokens;
    if (!tokens) return null;
    const at = new Map(tokens.steps.map((step, place) => [step, tokens.values[place]]));
    const found = points.steps.map((step) => at.get(step));
    return found.includes(undefined) ? null : found;
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      if (!this.visible || this.failed) return;
      if (!this.drawn) {
        this.draw(); // the first points of the stretch
        return;
      }
      this.drawn.setData(this.data());
      this.count();
      this.showValues(this.drawn.cursor.idx); // where somebody points at, else the newest
    });
  }

  /** The lines on one common x, with holes where a line has no point. */
  data() {
    const tables = this.lines.map((line) => (line.smooth ? [line.x, line.values, line.smooth] : [line.x, line.values]));
    if (tables.length === 1) return tables[0];
    return uPlot.join(tables, tables.map((table) => table.slice(1).map(() => 1)));
  }

  draw() {
    this.drawn?.destroy();
    this.drawn = null;
    if (!this.lines.some((line) => line.x.length)) {
      const axis = { step: "", time: " over wall time", tokens: " over tokens" }[this.header.axis];
      this.nothing(`No points${axis} yet`);
      return;
    }
    this.plot.querySelector(".none")?.remove();
    this.drawn = new uPlot(this.options(), this.data(), this.plot);
    this.drawLegend();
    this.tellInWords();
    this.count();
  }

  /** The picture of what was read last is there; when, for who looks at the page from outside. */
  painted() {
    if (this.fresh) performance.mark(`dlm:${this.chart}`);
    this.fresh = false;
  }

  /** How many points the picture has, for who looks at the page from outside. */
  count() {
    this.section.dataset.points = String(this.lines.reduce((sum, line) => sum + line.x.length, 0));
  }

  nothing(text) {
    this.drawn?.destroy();
    this.drawn = null;
    this.plot.querySelector(".none")?.remove();
    const box = document.createElement("p");
    box.className = "none";
    box.textContent = text;
    this.plot.append(box);
    this.plot.setAttribute("aria-label", `${this.title}: ${text}`);
    this.legend.replaceChildren();
  }

  options() {
    const { view } = this.office;
    const soft = colour("soft");
    const axis = { stroke: soft, grid: { stroke: withAlpha(soft, 0.18), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const x = { ...axis, incrs: this.header.axis === "time" ? SPANS : WHOLE, size: 28, values: (_, ticks) => ticks.map((tick) => (this.header.axis === "time" ? duration(tick) : bigNumber(tick))) };
    const y = { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : this.value(tick))) };
    const log = view.log && this.section.dataset.log === "yes" && this.positive();
    const range = (_, low, high) => rangeOfY(low, high, this.header, log);
    return {
      width: this.plot.clientWidth,
      height: this.plot.clientHeight,
      padding: [12, 8, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "training", scales: ["x", null] }, drag: { x: true, y: false, setScale: false }, points: { size: 6 }, focus: { prox: 1e6 } },
      scales: { x: { time: false, range: (_, low, high) => this.rangeOfX(low, high) }, y: log ? { distr: 3, range } : { range } },
      axes: [x, y],
      series: [{}, ...this.lines.flatMap((line) => this.seriesOf(line))],
      plugins: [marksPlugin(this)],
      hooks: {
        setSelect: [(drawn) => this.onSelect(drawn)],
        draw: [() => this.painted()],
        setCursor: [(drawn) => this.showValues(drawn.cursor.idx)],
        ready: [(drawn) => drawn.over.addEventListener("dblclick", () => this.office.zoom(null, null))],
      },
    };
  }

  rangeOfX(low, high) {
    const { view } = this.office;
    const from = view.low ?? low ?? 0;
    const to = view.high ?? high ?? 1;
    return from === to ? [from - 1, to + 1] : [from, to];
  }

  positive() {
    return this.lines.some((line) => line.values.some((value) => value > 0));
  }

  seriesOf(line) {
    const stroke = colour(this.colourOf(line));
    const dash = this.dashed(line) ? [5, 4] : undefined;
    const few = line.x.length <= 60;
    const whole = { stroke, width: 1.8, dash, spanGaps: true, points: { show: few, size: 4, fill: stroke } };
    if (!line.smooth) return [whole];
    return [
      { ...whole, stroke: withAlpha(stroke, 0.3), width: 1, points: { show: false } },
      { ...whole, points: { show: false } },
    ];
  }

  /** The run of the page keeps the metric's own colours; runs laid over it have one each. */
  colourOf(line) {
    const place = this.office.view.others.indexOf(String(line.run));
    if (line.run === this.office.view.run || place < 0) return line.colour;
    const free = RUN_COLOURS.filter((one) => !this.lines.some((other) => other.run === this.office.view.run && other.colour === one && one !== "neutral"));
    return free[place % free.length];
  }

  /** Validation is dashed wherever it stands beside training. */
  dashed(line) {
    return line.label === "validation";
  }

  value(number) {
    return this.header.share ? percent(number) : short(number);
  }

  drawLegend() {
    this.values = [];
    const many = new Set(this.lines.map((line) => line.run)).size > 1;
    this.legend.replaceChildren(
      ...this.lines.map((line) => {
        const item = document.createElement("li");
        const swatch = document.createElement("span");
        swatch.className = this.dashed(line) ? "swatch dashed" : "swatch";
        swatch.style.color = `var(--${this.colourOf(line)})`;
        const value = document.createElement("b");
        this.values.push(value);
        item.append(swatch, `${many ? `run ${line.run} ` : ""}${line.label} `, value);
        if (line.not_finite) item.append(` · ${line.not_finite} not finite, first at step ${line.first_not_finite}`);
        return item;
      }),
    );
    this.showValues(null);
  }

  /** The values at a place of the data, or the newest ones. */
  showValues(place) {
    if (!this.drawn) return;
    let column = 1;
    this.lines.forEach((line, number) => {
      const at = column + (line.smooth ? 1 : 0);
      const raw = this.drawn.data[column];
      const shown = this.drawn.data[at];
      column = at + 1;
      const found = place === null || place === undefined ? shown.length - 1 : place;
      const near = nearest(shown, found);
      this.values[number].textContent =
        near === null ? "–" : line.smooth ? `${this.value(shown[near])} (${this.value(raw[near])})` : this.value(shown[near]);
    });
  }

  tellInWords() {
    const words = this.lines.map(inWords).join(" ");
    this.section.querySelector(".summary").textContent = words;
    this.plot.setAttribute("aria-label", `${this.title}. ${words}`);
  }

  /** Words and table, which take longer than the picture: brought up to date every few seconds. */
  catchUp() {
    if (!this.behind) return;
    this.behind = false;
    this.tellInWords();
    if (this.section.querySelector(".numbers").open) this.fillTable();
  }

  /** Show a stretch; one that holds everything is the whole run, and what it has yet to log. */
  zoom(low, high) {
    const whole = this.lines.every(({ reach }) => !reach || (low <= reach[0] && reach[1] <= high));
    this.office.zoom(whole ? null : low, whole ? null : high);
  }

  onSelect(drawn) {
    const { left, width } = drawn.select;
    if (width < 4) return;
    const low = drawn.posToVal(left, "x");
    const high = drawn.posToVal(left + width, "x");
    drawn.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.zoom(low, high);
  }

  onKey(event) {
    if (!this.drawn || event.ctrlKey || event.metaKey || event.altKey) return;
    const { min, max } = this.drawn.scales.x;
    const span = max - min;
    const middle = this.place === undefined ? (min + max) / 2 : this.drawn.data[0][this.place];
    const acts = {
      ArrowLeft: () => (event.shiftKey ? this.zoom(min - span / 4, max - span / 4) : this.step(-1)),
      ArrowRight: () => (event.shiftKey ? this.zoom(min + span / 4, max + span / 4) : this.step(1)),
      Home: () => this.step(-Infinity),
      End: () => this.step(Infinity),
      "+": () => this.zoom(middle - span / 4, middle + span / 4),
      "-": () => this.zoom(middle - span, middle + span),
    };
    acts["="] = acts["+"];
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** Move the cursor by points of the picture; what is there is said. */
  step(by) {
    const xs = this.drawn.data[0];
    const stride = Math.max(1, Math.round(xs.length / 60));
    const from = this.place ?? (by > 0 ? -1 : xs.length);
    this.place = Math.min(xs.length - 1, Math.max(0, Number.isFinite(by) ? from + by * stride : by > 0 ? xs.length - 1 : 0));
    const at = xs[this.place];
    this.drawn.setCursor({ left: this.drawn.valToPos(at, "x"), top: this.drawn.over.clientHeight / 2 });
    const values = this.lines.map((line, number) => `${line.label} ${this.values[number].textContent}`);
    const where = this.header.axis === "time" ? duration(at) : `${this.header.axis === "step" ? "step " : ""}${bigNumber(at)}${this.header.axis === "tokens" ? " tokens" : ""}`;
    this.office.say(`${where}: ${values.join(", ")}`);
  }

  fillTable() {
    const place = this.section.querySelector(".numbers .table-wrap");
    htmx.ajax("GET", `/training/table?${chartQuery(this.chart, this.office.view)}`, { source: place, target: place, swap: "innerHTML" }); // a queue of its own
  }

  fit() {
    if (this.drawn && this.plot.clientWidth) this.drawn.setSize({ width: this.plot.clientWidth, height: this.plot.clientHeight });
  }

  recolour() {
    if (this.drawn) this.draw();
  }
}

/** The nearest place at or around `at` that holds a number. */
function nearest(values, at) {
  for (let far = 0; far < values.length; far++) {
    for (const place of [at - far, at + far]) {
      if (place >= 0 && place < values.length && values[place] !== null && values[place] !== undefined) return place;
    }
  }
  return null;
}
