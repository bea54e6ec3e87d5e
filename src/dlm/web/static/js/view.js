// What the charts show, kept in the address: it can be copied, bookmarked, and gone back to.

export const MOST_OVER = 10; // runs laid over the one of the page; the server draws no more

const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;

/** The view that the address says; `run` is the run that the page is about. */
export function readView(run) {
  const asked = new URLSearchParams(location.search);
  const number = (name) => (NUMBER.test(asked.get(name) ?? "") ? Number(asked.get(name)) : null);
  const smoothing = number("smoothing");
  const others = (asked.get("with") ?? "").split(",").filter((one) => /^\d{1,15}$/.test(one) && one !== String(run));
  return {
    run,
    others: [...new Set(others)].slice(0, MOST_OVER),
    x: ["step", "time", "tokens"].includes(asked.get("x")) ? asked.get("x") : "step",
    smoothing: smoothing === null ? 0.6 : Math.min(0.99, Math.max(0, smoothing)),
    log: asked.get("log") === "1",
    low: number("low"),
    high: number("high"),
  };
}

/** The view as a query; what is as usual is left out. */
export function viewQuery(view, run = view.run) {
  const said = new URLSearchParams({ run });
  const others = view.others.filter((one) => one !== String(run));
  if (others.length) said.set("with", others.join(","));
  if (view.x !== "step") said.set("x", view.x);
  if (view.smoothing !== 0.6) said.set("smoothing", view.smoothing);
  if (view.log) said.set("log", "1");
  if (view.low !== null) said.set("low", view.low);
  if (view.high !== null) said.set("high", view.high);
  return said.toString().replaceAll("%2C", ",");
}

/** Put the view into the address, without a step in the history. */
export function keepView(view) {
  history.replaceState(null, "", `?${viewQuery(view)}`);
}
