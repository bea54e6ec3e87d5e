// The RL DATA tab by keyboard: moving between signals, the keys shown on the buttons, undo of the last decision or edit.
// Everything that is asked of the server goes through htmx; nothing here makes markup.
import { toast } from "./shell.js";

// What was decided and edited in this tab, the last at the end: the signal, and the request that takes it back. It
// outlives the page, since a list goes on over several; of another start of the server it says nothing.
const STORED = `dlm-decided-${document.querySelector('meta[name="dlm-seen"]').content.split("-")[0]}`;
const MOST = 100;
const decided = (() => {
  try {
    return JSON.parse(sessionStorage.getItem(STORED)) ?? [];
  } catch {
    return [];
  }
})();
let moveOn = 0; // after the decision about this signal, the next one gets the focus

const cards = () => [...document.querySelectorAll(".signal")];
const current = () => document.activeElement?.closest?.(".signal") ?? null;
const byNumber = (number) => document.getElementById(`signal-${number}`);

function focusCard(card) {
  if (!card) return;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const all = cards();
  const place = all.indexOf(current());
  const next = place < 0 ? (by > 0 ? 0 : all.length - 1) : place + by;
  if (all[next]) focusCard(all[next]);
  else document.querySelector(`#results a[rel="${by > 0 ? "next" : "prev"}"]`)?.focus();
}

/** The button of a key: of the current card, of the first one where none is current, or of the page. */
function buttonOf(key) {
  if (!/^([a-z]|cancel)$/.test(key)) return null; // it stands in a selector
  const card = current() ?? cards()[0];
  return card?.querySelector(`[data-key="${key}"]`) ?? document.querySelector(`main > section [data-key="${key}"]`);
}

function store() {
  decided.splice(0, Math.max(0, decided.length - MOST));
  try {
    sessionStorage.setItem(STORED, JSON.stringify(decided));
  } catch {
    // full or switched off: this page knows it
  }
}

/** What was done to a signal, from the request that did it: its status and texts are those before. */
function remember({ path, parameters, elt }) {
  const { signal, seen, action } = parameters;
  if (path === "/data/decide" && (action === "accept" || action === "reject")) {
    decided.push({ signal, path, values: { signal, seen: `${action}ed`, action: "put-back", to: seen } });
  } else if (path === "/data/edit" && elt.matches("form")) {
    const { chosen, rejected } = elt.elements;
    decided.push({ signal, path, values: { signal, seen, chosen: chosen.defaultValue, rejected: rejected.defaultValue } });
  } else return;
  store();
}

async function takeBack(last) {
  decided.splice(decided.indexOf(last), 1);
  const card = byNumber(last.signal);
  moveOn = 0;
  asking += 1;
  try {
    const onPage = { target: card, swap: "outerHTML" };
    await htmx.ajax("POST", last.path, { source: "#results", values: last.values, ...(card ? onPage : { swap: "none" }) });
  } catch {
    decided.push(last); // the server does not answer
  }
  store();
  setTimeout(answered); // once the answer's buttons work
}

function undo() {
  const button = current()?.querySelector('[data-key="u"]');
  if (decided.length) takeBack(decided.at(-1));
  else if (button) button.click();
  else toast("nothing to undo", "good");
}

function vote(side, score) {
  (current() ?? cards()[0])?.querySelector(`[data-vote="${side} ${score}"]`)?.click();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  u: undo,
  "/": () => document.getElementById("search")?.focus(),
  "?": () => document.querySelector(".keys > summary")?.click(),
  p: () => document.getElementById("apply")?.click(),
  "+": () => vote("chosen", 1),
  "=": () => vote("chosen", 1),
  "-": () => vote("chosen", -1),
  "*": () => vote("rejected", 1),
  "_": () => vote("rejected", -1),
};

// Requests of decisions that have not been answered; at first the page itself, whose buttons work once it is loaded.
let asking = document.readyState === "complete" ? 0 : 1;
const waiting = []; // keys pressed meanwhile: they are meant for what stands there after the answer
if (asking) addEventListener("load", () => setTimeout(answered), { once: true });

function press(key) {
  const act = KEYS[key];
  const button = act ? null : buttonOf(key === "Escape" ? "cancel" : key);
  if (act) act();
  else button?.click();
  return Boolean(act || button);
}

function answered() {
  asking = Math.max(0, asking - 1);
  while (!asking && waiting.length) {
    if (document.activeElement?.matches("input, textarea")) type(document.activeElement, waiting.splice(0).join(""));
    else press(waiting.shift());
  }
}

/** What was typed for a field before it had the focus, such as the words after `/`: text, and no decisions. */
function type(field, text) {
  field.setRangeText(text, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing) {
    const form = typing.closest(".editing form");
    if (event.key === "Escape") {
      if (form) form.querySelector('[data-key="cancel"]').click();
      else typing.blur();
    } else if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.repeat && event.key !== "j" && event.key !== "k") return; // a key held down decides once
  if (asking && event.key.length === 1) {
    waiting.push(event.key);
    event.preventDefault();
  } else if (press(event.key)) event.preventDefault();
});

// The button for details opens and closes them.
document.addEventListener("htmx:beforeRequest", (event) => {
  const button = event.target;
  const own = button.dataset?.key === "u" && decided.findLast((one) => one.signal === button.closest(".signal").dataset.signal);
  if (own) {
    takeBack(own); // what it was, instead of what the server would guess
    event.preventDefault();
    return;
  }
  if (button.dataset?.key === "d") {
    const more = document.getElementById(button.getAttribute("aria-controls"));
    const open = more.childElementCount > 0;
    button.setAttribute("aria-expanded", String(!open));
    if (open) {
      more.replaceChildren();
      event.preventDefault();
    }
  }
  const card = button.closest?.(".signal");
  const key = button.dataset?.key;
  if (card && ["a", "r", "u", "e"].includes(key)) asking += 1;
  if (card && (key === "a" || key === "r")) moveOn = Number(card.dataset.signal);
});

// Before a card gives way to its answer: a form knows its texts as they were.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (detail.isError) return;
  const { elt, verb } = detail.requestConfig;
  if (elt.id === "results" && verb === "post" && !detail.target.matches(".signal")) toast("undone; that pair is not in this list", "good");
  else remember(detail.requestConfig);
});

// A card that was answered anew keeps the focus; after a decision the next card has it.
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target?.id === "applying") {
    document.getElementById("applying")?.focus();
    return;
  }
  const number = event.detail.target?.closest?.(".signal")?.dataset.signal;
  if (!number) return;
  const card = byNumber(number);
  if (!card) return;
  const field = card.querySelector("textarea");
  if (field) field.focus();
  else if (event.detail.target.classList.contains("signal")) {
    if (moveOn === Number(number)) {
      const all = cards();
      focusCard(all[all.indexOf(card) + 1] ?? card);
    } else focusCard(card);
    moveOn = 0;
  } else if (event.detail.target.classList.contains("votes")) {
    card.querySelector(`#${CSS.escape(event.detail.target.id)} button`)?.focus();
  }
});
document.addEventListener("htmx:responseError", () => (moveOn = 0));
// Keys that waited are pressed once the answer's buttons work, or once there is none.
for (const name of ["htmx:afterSettle", "htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    if (["a", "r", "u", "e"].includes(event.detail.requestConfig?.elt?.dataset?.key)) setTimeout(answered);
  });
}
