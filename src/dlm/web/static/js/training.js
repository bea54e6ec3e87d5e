// The TRAINING tab: the view and its controls, the panels, and what changes while a run goes on.
import { forgetOpening } from "./curves.js";
import { grouped, percent, short } from "./format.js";
import { Panel } from "./panel.js";
import { freshen, freshenVerdict, get } from "./pieces.js";
import { goOn, post, toast } from "./shell.js";
import { MOST_OVER, keepView, readView, viewQuery } from "./view.js";

const RUN = Number(document.getElementById("head").dataset.run);

/** Whether the page shows the newest run, whichever that is: until somebody changes the view, which names the run. */
const follows = () => !new URLSearchParams(location.search).has("run");

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

/** A panel for every frame; one that there is already takes the place of its frame, as it is. */
function openPanels() {
  seen.disconnect();
  panels = [...document.querySelectorAll(".chart")].map((frame) => {
    const stood = panels.find((panel) => panel.chart === frame.dataset.chart);
    if (stood) frame.replaceWith(stood.section);
    return stood ?? new Panel(frame, office);
  });
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
  if (redraw) drawAnew();
}

/** How the runs on the charts stand: another value when one ended, or went on and may have dropped points. */
function standOfRuns() {
  const row = (run) => document.querySelector(`#runs tr[data-run="${run}"]`);
  return [RUN, ...office.view.others].map((run) => row(run)?.dataset.state).join();
}

let stand = standOfRuns(); // when the charts were last asked for
function drawAnew() {
  stand = standOfRuns();
  panels.forEach((panel) => panel.invalidate());
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
  if (event.target.checked && office.view.others.length >= MOST_OVER) {
    event.target.checked = false;
    toast(`at most ${MOST_OVER} runs are laid over another one: untick one of them first`);
    return;
  }
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

async function refresh({ runs, lost }) {
  const status = document.querySelector("#head section").dataset.status;
  await get(`/training/runs/${RUN}/head`, "#head");
  await get(`/training/list?${viewQuery(office.view)}`, "#runs");
  tellOfNewRun();
  get(`/training/runs/${RUN}/story`, "#story");
  get(`/training/runs/${RUN}/findings`, "#findings");
  loadMarks();
  if (lost || (runs && standOfRuns() !== stand)) drawAnew();
  if (document.querySelector("#head section").dataset.status !== status) office.say(`Run ${RUN} is ${document.getElementById("status").textContent}`);
}

const running = () => Number(document.querySelector('#runs tr[data-status="running"]')?.dataset.run ?? 0);
let newest = Math.max(RUN, running());
function tellOfNewRun() {
  const run = running();
  if (run <= newest) return;
  newest = run;
  if (follows()) goOn(location.pathname + location.search);
  else toast(`Run ${run} has begun`, "good");
}

let refreshing = 0;
let reason = { runs: false, lost: false };
function refreshSoon({ runs = false, lost = false }) {
  reason = { runs: reason.runs || runs, lost: reason.lost || lost };
  clearTimeout(refreshing);
  refreshing = setTimeout(() => {
    refresh(reason);
    reason = { runs: false, lost: false };
  }, 150);
}

const known = new Set();
function knownNames() {
  if (!known.size) panels.forEach((panel) => panel.names.forEach((name) => known.add(name)));
  return known;
}

async function newCharts() {
  const scrolled = scrollY;
  const focused = document.activeElement;
  await get(`/training/runs/${RUN}/charts`, "#charts");
  charting = 0;
  known.clear();
  openPanels();
  if (document.activeElement === document.body && focused.isConnected) focused.focus({ preventScroll: true });
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
        charting ||= setTimeout(newCharts, 400); // several names come at once
      }
    }
  }
  if (detail.runs || detail.events) refreshSoon({ runs: Boolean(detail.runs) });
});
document.addEventListener("dlm:reset", () => {
  forgetOpening();
  refreshSoon({ lost: true });
});
document.addEventListener("dlm:hello", () => panels.forEach((panel) => panel.retry()));

// Figures of the head that a point says by itself; those of the whole curve are the server's.
function showProgress(series) {
  const head = document.querySelector("#head section");
  const reward = series.train_mean_reward;
  const every = reward ?? series.train_loss; // a step of rft that learnt nothing has no loss
  if (!every || head.dataset.status !== "running") return;
  const put = (name, points, write) => {
    if (points) head.querySelectorAll(`[data-live="${name}"]`).forEach((one) => (one.textContent = write(points.at(-1))));
  };
  put("steps", every.steps, grouped);
  put("last-loss", series.train_loss?.values, short);
  put("last-accuracy", series.train_mean_token_accuracy?.values, percent);
  put("last-reward", reward?.values, short);
  put("held-out-reward", series.full_valid_mean_reward?.values, short);
  const planned = Number(head.dataset.planned);
  if (planned) document.getElementById("progress").value = Math.min(1, every.steps.at(-1) / planned);
}

// What takes whole curves is looked at again every few seconds while a run goes on. A look is followed by a rest ten times as
// long, so that it takes little from the training beside it.
const [LEAST_REST, MOST_REST] = [2500, 15000];
async function keepUp() {
  const began = performance.now();
  const run = running();
  if (run && !document.hidden) await lookAgain(run).catch(() => {}); // the server has ended: the sign in the head says so
  setTimeout(keepUp, Math.min(MOST_REST, Math.max(LEAST_REST, 10 * (performance.now() - began))));
}
async function lookAgain(run) {
  panels.forEach((panel) => panel.catchUp());
  await freshen(`/training/list?${viewQuery(office.view)}`, "#runs");
  if (run === RUN) await freshen(`/training/runs/${RUN}/head`, "#head");
  if ((await freshenVerdict(run)) && run === RUN) {
    get(`/training/runs/${RUN}/findings`, "#findings");
    loadMarks();
  }
}

document.addEventListener("dlm:theme", () => panels.forEach((panel) => panel.recolour()));

showControls();
openPanels();
setTimeout(keepUp, LEAST_REST);
