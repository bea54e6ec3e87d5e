// One event stream per page. What changed goes out as `dlm:changed` on the document; when events were lost, or the
// server is another one, `dlm:reset`: read everything anew.
import { toast } from "/static/js/shell.js";

const sign = document.getElementById("live");

function show(state, words) {
  sign.className = `live ${state}`;
  sign.querySelector(".words").textContent = words;
}

const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));

let broken = false;
const source = new EventSource("/live");
source.addEventListener("hello", () => {
  show("on", "live");
  if (broken) tell("dlm:reset", {});
  broken = false;
});
source.addEventListener("reset", () => {
  show("on", "live");
  broken = false;
  tell("dlm:reset", {});
});
source.addEventListener("change", (event) => {
  const detail = JSON.parse(event.data);
  if (detail.fault) toast(detail.fault);
  tell("dlm:changed", detail);
});
source.addEventListener("error", () => {
  broken = true;
  if (source.readyState === EventSource.CLOSED) show("off", "no connection: reload the page");
  else show("off", "reconnecting");
});
addEventListener("pagehide", () => source.close());
