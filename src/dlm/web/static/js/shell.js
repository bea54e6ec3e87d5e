// What every page has: the theme switch, the write token on htmx requests, messages about what failed.

const TURNS = [
  ["", "◐", "Colours: as the system"],
  ["light", "☀", "Colours: light"],
  ["dark", "☾", "Colours: dark"],
];

// The opened address leads to a page with the write key behind its `#`, which no request carries. It moves into this
// origin's storage, for every tab; nothing that the server sends to a cookie alone holds it.
const STORED = "dlm-write";
const handed = /^#write=([\w-]{20,100})$/.exec(location.hash)?.[1] ?? "";
if (handed) {
  try {
    localStorage.setItem(STORED, handed);
  } catch {
    // storage switched off: the key holds for this page
  }
  history.replaceState(history.state, "", location.pathname + location.search);
}

/** The key of writes, "" where this browser was never handed one: pages can then be looked at. */
export function writeToken() {
  try {
    return localStorage.getItem(STORED) ?? handed;
  } catch {
    return handed;
  }
}

/** Show a message for eight seconds, as text. */
export function toast(text, kind = "bad") {
  const box = document.createElement("div");
  box.className = `toast ${kind}`;
  box.textContent = text;
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), 8000);
}

/** A write. Returns the parsed JSON answer; throws an Error whose message can be shown. */
export async function post(address, body = {}) {
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-DLM-Token": writeToken() },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  const said = (() => {
    try {
      return JSON.parse(text);
    } catch {
      return { error: text.trim() };
    }
  })();
  if (!answer.ok) throw new Error([said.error, ...(said.details ?? [])].filter(Boolean).join(" · "));
  return said;
}

function turnTheme(button) {
  const root = document.documentElement;
  const next = (TURNS.findIndex(([name]) => name === (root.dataset.theme ?? "")) + 1) % TURNS.length;
  const name = TURNS[next][0];
  if (name) root.dataset.theme = name;
  else delete root.dataset.theme;
  document.cookie = `dlm-theme=${name}; path=/; max-age=${name ? 31536000 : 0}; samesite=lax`; // pages come in its colours
  label(button);
  document.dispatchEvent(new CustomEvent("dlm:theme"));
}

function label(button) {
  const [, sign, words] = TURNS.find(([name]) => name === (document.documentElement.dataset.theme ?? ""));
  button.textContent = sign;
  button.setAttribute("aria-label", words);
  button.title = words;
}

const button = document.getElementById("theme");
label(button);
button.addEventListener("click", () => turnTheme(button));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  document.dispatchEvent(new CustomEvent("dlm:theme")),
);

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-DLM-Token"] = writeToken();
});
document.addEventListener("htmx:responseError", (event) => {
  const parsed = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
  toast(parsed.body.textContent.replace(/\s+/g, " ").trim() || `the server answered ${event.detail.xhr.status}`);
});
document.addEventListener("htmx:sendError", () => toast("the server does not answer: has `dlm ui` ended?"));

let leaving = false; // somebody is on the way to another page
addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => (leaving = false), 5000); // what was asked for was a download: the page stays
});
addEventListener("pageshow", () => (leaving = false));

/** Go to an address without being asked to; not when that would undo a click on another one. */
export function goOn(address) {
  if (!leaving) location.assign(address);
}
