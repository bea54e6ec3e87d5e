// The TRAINING tab: the view and its controls, the panels, and what changes while a run goes on.
import { forgetOpening } from "./curves.js";
import { duration, grouped, percent, short } from "./format.js";
import { Panel } from "./panel.js";
import { goOn, post, toast } from "./shell.js";
import { keepView, readView, viewQuery } from "./view.js";

const RUN = Number(document.getElementById("head").dataset.run);

const FOLLOWS = !new URLSearchParams(location.search).has("run"); // the newest run, whichever that is

const office = {
  view: readView(RUN),
  marks: null,
  zoom(low, high) {
    this.view.low = low;
    this.view.high = high;
    changed();
  },
  say(text) {
    said.textContent = text;
  },
};

const unknown = office.view.others.filter((run) => !document.querySelector(`.overlay[value="${run}"]`));
if (unknown.length) {
  office.view.others = office.view.others.filter((run) => !unknown.includes(run));
  keepView(office.view); // the next look at this address does not say it again
  toast(`not laid over, since nothing here trained in it: run ${unknown.join(", ")}`);
}

const said = document.createElement("p");
said.className = "visually-hidden";
said.setAttribute("role", "status");
document.body.append(said);

let panels = [];
const complete = new Promise((done) => addEventListener("DOMContentLoaded", () => setTimeout(done), { once: true })); // htmx is there and at work
const NEAR = 300; // pixels from what is seen: a chart is drawn before it comes into view
const seen = new IntersectionObserver(
  (entries) => {
    const looked = entries.map((entry) => panels.find((panel) => panel.section === entry.target)?.setVisible(entry.isIntersecting));
    Promise.allSettled([...looked, complete]).then(chartsStand);
  },
  { rootMargin: `${NEAR}px` },
);

// Verdicts take longer than charts on long runs, and would slow them down: they are asked for when the first charts stand.
let held = [];
document.addEventListener("htmx:confirm", (event) => {
  if (!held || !event.detail.path.endsWith("/verdict")) return;
  event.preventDefault();
  held.push(() => event.detail.issueRequest());
});
function chartsStand() {
  if (!held) return;
  const asked = held;
  held = null;
  asked.forEach((ask) => ask());
  loadMarks();
  get(`/training/runs/${RUN}/findings`, "#findings");
}

function openPanels() {
  panels.forEach((panel) => panel.destroy());
  seen.disconnect();
  panels = [...document.querySelectorAll(".chart")].map((section) => new Panel(section, office));
  for (const panel of panels) {
    const { top, bottom, width } = panel.section.getBoundingClientRect();
    if (width && top < innerHeight + NEAR && bottom > -NEAR) panel.setVisible(true); // an observer waits for the first paint
    seen.observe(panel.section);
  }
}

/** The view changed: keep it, show it in the controls, draw anew. */
function changed({ redraw = true } = {}) {
  forgetOpening();
  keepView(office.view);
  showControls();
  if (redraw) panels.forEach((panel) => panel.invalidate());
}

// --- controls ---------------------------------------------------------------------------------------------------------

const slider = document.getElementById("smoothing");
const log = document.getElementById("log");
const whole = document.getElementById("reset-zoom");

function showControls() {
  const { view } = office;
  document.querySelector(`input[name="x"][value="${view.x}"]`).checked = true;
  slider.value = view.smoothing;
  document.getElementById("smoothing-value").textContent = view.smoothing.toFixed(2);
  log.checked = view.log;
  whole.disabled = view.low === null && view.high === null;
}

document.querySelectorAll('input[name="x"]').forEach((radio) =>
  radio.addEventListener("change", () => {
    Object.assign(office.view, { x: radio.value, low: null, high: null }); // a range of steps is none of seconds
    changed();
    loadMarks();
  }),
);
let sliding = 0;
slider.addEventListener("input", () => {
  office.view.smoothing = Number(slider.value);
  clearTimeout(sliding);
  sliding = setTimeout(changed, 60);
});
log.addEventListener("change", () => {
  office.view.log = log.checked;
  changed({ redraw: false });
  panels.forEach((panel) => panel.recolour());
});
whole.addEventListener("click", () => office.zoom(null, null));

document.addEventListener("change", (event) => {
  if (!event.target.matches(".overlay")) return;
  const run = event.target.value;
  office.view.others = office.view.others.filter((one) => one !== run);
  if (event.target.checked) office.view.others.push(run);
  changed();
});

// A link to another run keeps the view, but for the range.
document.addEventListener("click", (event) => {
  const link = event.target.closest(".open-run");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  const run = Number(new URL(link.href).searchParams.get("run"));
  location.assign(`/training?${viewQuery({ ...office.view, low: null, high: null }, run)}`);
});

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const acts = {
    0: () => office.zoom(null, null),
    l: () => log.click(),
    s: () => document.querySelector('[data-post$="/stop"]')?.click(),
    r: () => document.querySelector('[data-post$="/resume"]')?.click(),
  };
  acts[event.key]?.();
});

// --- buttons that do something ----------------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-post]");
  if (!button) return;
  if (button.dataset.sure && !confirm(button.dataset.sure)) return;
  button.disabled = true;
  try {
    const answer = await post(button.dataset.post, JSON.parse(button.dataset.body ?? "{}"));
    toast(answer.current ? `${answer.current} is current` : button.dataset.said, "good");
  } catch (fault) {
    toast(fault.message);
    button.disabled = false;
  }
});

// A vote on an answer to a probe; pressed again it is taken back.
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".votes [data-score]");
  if (!button) return;
  const votes = button.closest(".votes");
  const score = button.getAttribute("aria-pressed") === "true" ? 0 : Number(button.dataset.score);
  try {
    await post("/api/answers/vote", { ...JSON.parse(votes.dataset.answer), score });
    votes.querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(Number(one.dataset.score) === score)));
    office.say(score ? `voted ${score > 0 ? "good" : "bad"}` : "vote taken back");
  } catch (fault) {
    toast(fault.message);
  }
});

// --- what changes -----------------------------------------------------------------------------------------------------

const SETTLED = ["htmx:afterSwap", "htmx:swapError", "htmx:responseError", "htmx:sendError", "htmx:sendAbort", "htmx:timeout"];
const asked = new Map(); // by place: when the newest request for it is answered, and the one that waits for its turn

/** Put a piece of the page in its place; done when it stands there, or will not (htmx's own promise is done before).
 * One request a place: while one is under way, only the newest of the later ones waits. */
function get(address, target) {
  const place = document.querySelector(target);
  const { answered = Promise.resolve(), waiting = null } = asked.get(place) ?? {};
  if (waiting) {
    waiting.address = address;
    return answered;
  }
  const mine = { address };
  const now = answered.then(() => {
    asked.set(place, { answered: now });
    return fill(place, mine.address);
  });
  asked.set(place, { answered: now, waiting: mine });
  return now;
}

function fill(place, address) {
  return new Promise((done) => {
    let before = null;
    const leaving = (event) => event.detail.target === place && (before = standing(place));
    const settled = (event) => {
      if (event.target !== place) return; // of something within it
      SETTLED.forEach((name) => place.removeEventListener(name, settled));
      place.removeEventListener("htmx:beforeSwap", leaving);
      if (before) restore(place, before);
      done();
    };
    place.addEventListener("htmx:beforeSwap", leaving);
    SETTLED.forEach((name) => place.addEventListener(name, settled));
    // With no source, htmx queues requests on <body>, and keeps only the last one of all that wait there.
    htmx.ajax("GET", address, { source: place, target: place, swap: "innerHTML" });
  });
}

// What a person has unfolded stays so, and what has the focus keeps it, when a piece of the page comes anew.
const nameOf = (element) => {
  const words = element.matches("summary") ? "" : (element.getAttribute("aria-label") ?? element.textContent);
  return [element.tagName, element.closest("[data-keep]")?.dataset.keep, words].join("|");
};

function standing(place) {
  const folds = new Map([...place.querySelectorAll("details[data-keep]")].map((one) => [one.dataset.keep, one.open]));
  const focused = document.activeElement !== place && place.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  return { folds, focused };
}

function restore(place, { folds, focused }) {
  for (const one of place.querySelectorAll("details[data-keep]")) one.open = folds.get(one.dataset.keep) ?? one.open;
  if (!focused) return;
  const again = [...place.querySelectorAll("summary, button, a, input, [tabindex]")].find((one) => nameOf(one) === focused);
  again?.focus({ preventScroll: true });
}

async function loadMarks() {
  try {
    const answer = await fetch(`/api/marks/${RUN}?x=${office.view.x}`);
    if (!answer.ok) return;
    office.marks = await answer.json();
    panels.forEach((panel) => panel.drawn?.redraw(false));
  } catch {
    // the server has ended: the sign in the head says so
  }
}

async function refresh({ status }) {
  const before = document.querySelector("#head section").dataset.status;
  await get(`/training/runs/${RUN}/head`, "#head");
  await get(`/training/list?${viewQuery(office.view)}`, "#runs");
  tellOfNewRun();
  get(`/training/runs/${RUN}/story`, "#story");
  get(`/training/runs/${RUN}/findings`, "#findings");
  loadMarks();
  const now = document.querySelector("#head section").dataset.status;
  if (status || now !== before) panels.forEach((panel) => panel.invalidate());
  if (now !== before) office.say(`Run ${RUN} is ${document.getElementById("status").textContent}`);
}

let newest = RUN;
function tellOfNewRun() {
  const row = document.querySelector('#runs tr[data-status="running"]');
  const run = Number(row?.dataset.run ?? 0);
  if (run <= newest) return;
  newest = run;
  if (FOLLOWS) goOn("/training");
  else toast(`Run ${run} has begun`, "good");
}

let refreshing = 0;
let withStatus = false;
function refreshSoon(status) {
  withStatus ||= status;
  clearTimeout(refreshing);
  refreshing = setTimeout(() => {
    refresh({ status: withStatus });
    withStatus = false;
  }, 150);
}

const known = new Set();
function knownNames() {
  if (!known.size) panels.forEach((panel) => panel.names.forEach((name) => known.add(name)));
  return known;
}

async function newCharts() {
  const scrolled = scrollY;
  await get(`/training/runs/${RUN}/charts`, "#charts");
  known.clear();
  openPanels();
  scrollTo(0, scrolled);
}

let charting = 0;
document.addEventListener("dlm:changed", ({ detail }) => {
  forgetOpening();
  if (detail.points) {
    const { run, series } = detail.points;
    panels.forEach((panel) => panel.append(run, series));
    if (run === RUN) {
      showProgress(series);
      if (Object.keys(series).some((name) => !knownNames().has(name))) {
        clearTimeout(charting);
        charting = setTimeout(newCharts, 400);
      }
    }
  }
  if (detail.runs || detail.events) refreshSoon(Boolean(detail.runs));
});
document.addEventListener("dlm:reset", () => {
  forgetOpening();
  refreshSoon(true);
});

// Figures of the head while the run goes on, from the points themselves.
const pace = [];
function showProgress(series) {
  const head = document.querySelector("#head section");
  const put = (name, text) => head.querySelectorAll(`[data-live="${name}"]`).forEach((one) => (one.textContent = text));
  const reward = series.train_mean_reward;
  const every = reward ?? series.train_loss; // a step of rft that learnt nothing has no loss
  if (!every || head.dataset.status !== "running") return;
  const steps = every.steps.at(-1);
  const planned = Number(head.dataset.planned);
  put("steps", grouped(steps));
  if (series.train_loss) put("last-loss", short(series.train_loss.values.at(-1)));
  if (reward) put("last-reward", short(reward.values.at(-1)));
  if (series.full_valid_mean_reward) put("held-out-reward", short(series.full_valid_mean_reward.values.at(-1)));
  if (series.tokens_per_second) put("speed", short(series.tokens_per_second.values.at(-1)));
  pace.push(...every.steps.map((step, place) => [step, every.times[place]]));
  pace.splice(0, Math.max(0, pace.length - 50));
  const [first, last] = [pace[0], pace.at(-1)];
  if (last[0] > first[0]) put("remaining", duration(((planned - steps) * (last[1] - first[1])) / (last[0] - first[0])));
  const bar = document.getElementById("progress");
  if (bar && planned) bar.value = Math.min(1, steps / planned);
  for (const [chart, name, write] of [["loss", "train_loss", short], ["accuracy", "train_mean_token_accuracy", percent], ["reward", "train_mean_reward", short]]) {
    const line = panels.find((one) => one.chart === chart)?.lines?.find((one) => one.run === RUN && one.name === name);
    if (line) put(chart, write(tailMean(line.values)));
  }
}

function tailMean(values) {
  const tail = values.slice(-Math.max(1, Math.ceil(values.length / 10)));
  return tail.reduce((sum, value) => sum + value, 0) / tail.length;
}

document.addEventListener("dlm:theme", () => panels.forEach((panel) => panel.recolour()));

showControls();
openPanels();
