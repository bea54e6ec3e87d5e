// Pieces of a page that come anew from the server, as htmx puts them in their place, and figures that change where they stand.

const SETTLED = ["htmx:afterSwap", "htmx:swapError", "htmx:responseError", "htmx:sendError", "htmx:sendAbort", "htmx:timeout"];
const asked = new Map(); // by place: when the newest request for it is answered, and the one that waits for its turn

/** Put a piece of the page in its place; done when it stands there, or will not (htmx's own promise is done before).
 * One request a place: while one is under way, only the newest of the later ones waits. */
export function get(address, target) {
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

/** Bring the figures of a piece up to date where they stand, so that nobody who reads or uses it notices more; anew comes
 * a piece that has other figures by now. */
export async function freshen(address, target) {
  const place = document.querySelector(target);
  const stood = place.firstElementChild;
  const fresh = await parsed(address);
  if (!fresh || place.firstElementChild !== stood) return; // a newer piece has come in the meantime
  const [shown, now] = [place, fresh].map((piece) => [...piece.querySelectorAll("[data-figure]")]);
  const names = (figures) => figures.map((one) => one.dataset.figure).join();
  if (names(shown) !== names(now)) await get(address, target);
  else now.forEach((one, at) => say(shown[at], one.textContent));
}

/** The verdict of a run, wherever it stands. Returns whether it is another one. */
export async function freshenVerdict(run) {
  const fresh = await parsed(`/training/runs/${run}/verdict`);
  const other = [...document.querySelectorAll(`[data-verdict="${run}"]`)].filter((one) => fresh && one.innerHTML !== fresh.innerHTML);
  for (const one of other) one.replaceChildren(...fresh.cloneNode(true).childNodes);
  return other.length > 0;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The body of a piece, null when the server does not give it. */
async function parsed(address) {
  const answer = await fetch(address);
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html").body : null;
}
