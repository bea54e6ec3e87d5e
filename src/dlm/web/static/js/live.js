// One event stream per page. What changed goes out as `dlm:changed` on the document, and as `dlm:data` as well where
// signals or the document did; when events were lost, or the server is another one, `dlm:reset`: read everything anew. When
// the stream is open, again or for the first time, and nothing was lost, `dlm:hello`.
import { toast } from "./shell.js";

const sign = document.getElementById("live");

function show(state, words) {
  sign.className = `live ${state}`;
  sign.querySelector(".words").textContent = words;
}

const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));

// A browser opens six connections to a server, whatever the number of tabs, and a stream holds one: a page that nobody
// sees closes its own, and asks for what it missed when it is looked at again.
let source = null;
let lastId = document.querySelector('meta[name="dlm-seen"]').content; // what happened while the page was made is told too

function open() {
  source = new EventSource(`/live?after=${encodeURIComponent(lastId)}`);
  source.addEventListener("hello", (event) => {
    lastId = event.lastEventId;
    show("on", "live");
    tell("dlm:hello", {});
  });
  source.addEventListener("reset", (event) => {
    lastId = event.lastEventId;
    show("on", "live");
    tell("dlm:reset", {});
  });
  source.addEventListener("change", (event) => {
    lastId = event.lastEventId;
    const detail = JSON.parse(event.data);
    if (detail.fault) toast(detail.fault);
    tell("dlm:changed", detail);
    if (detail.data) tell("dlm:data", detail);
  });
  source.addEventListener("error", () => {
    if (source?.readyState === EventSource.CLOSED) show("off", "no connection: open the address anew");
    else show("off", "reconnecting");
  });
}

function close() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => {
  close();
  if (document.visibilityState === "visible") open();
});
addEventListener("pagehide", close);
// Only when every module of the page listens: `pageshow` comes after all of them ran, and again out of the history.
addEventListener("pageshow", () => {
  if (!source && document.visibilityState === "visible") open();
});
