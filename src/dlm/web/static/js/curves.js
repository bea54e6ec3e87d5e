// A chart's lines from the server: a JSON header, then numbers (see dlm/web/chart_data.py).

/** A chart as the view shows it, as the server is asked for it. */
export function chartQuery(chart, view) {
  const asked = new URLSearchParams({ chart, run: view.run, x: view.x, smoothing: view.smoothing });
  if (view.others.length) asked.set("with", view.others.join(","));
  if (view.low !== null) asked.set("low", view.low);
  if (view.high !== null) asked.set("high", view.high);
  return asked;
}

/** Fetch the lines of a chart. Returns {header, lines: [{...about, x, values, smooth}]} with plain arrays. */
export async function fetchChart(chart, view, signal) {
  const answer = await fetch(`/api/chart?${chartQuery(chart, view)}`, { signal });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `the server said ${answer.status}`);
  return decode(await answer.arrayBuffer());
}

/** The lines of a chart that came within the page: once, and for the view that they were made for; null otherwise. */
export function openingChart(chart, view) {
  const box = document.querySelector(`template.opening[data-chart="${CSS.escape(chart)}"]`);
  if (!box) return null;
  box.remove();
  const text = atob(box.content.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const found = decode(bytes.buffer);
  const { axis, low, high, smoothing } = found.header;
  return axis === view.x && low === view.low && high === view.high && smoothing === view.smoothing ? found : null;
}

/** What came within the page is no longer what the charts should show. */
export function forgetOpening() {
  document.querySelectorAll("template.opening").forEach((box) => box.remove());
}

/** The binary answer as arrays. */
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = Math.ceil((4 + length) / 8) * 8;
  const take = (kind, count) => {
    const found = Array.from(new kind(buffer, at, count));
    at += Math.ceil((count * kind.BYTES_PER_ELEMENT) / 8) * 8;
    return found;
  };
  const lines = header.lines.map((about) => ({
    ...about,
    x: take(Float64Array, about.count),
    values: take(Float32Array, about.count),
    smooth: about.smoothed ? take(Float32Array, about.count) : null,
  }));
  return { header, lines };
}
