// Numbers for people.

/** An integer with commas: as toLocaleString("en"), which takes a new page some milliseconds. */
export const grouped = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, ",");

/** Four significant digits; thousands without decimals. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e12 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  if (size >= 1000) return grouped(Math.round(value));
  return String(Number(value.toPrecision(4)));
}

/** A share of 1 as per cent. */
export const percent = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(1)}%` : "–");

/** Seconds: `0.8 s`, `39 min`, `2 h 05 min`; as `duration` of dlm/web/run_rows.py. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return `${Math.floor(seconds / 3600)} h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")} min`;
}
