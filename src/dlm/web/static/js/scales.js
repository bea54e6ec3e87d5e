// Where the axes of a chart begin and end, and what their ticks say.

export const WHOLE = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9].flatMap((ten) => [ten, 2 * ten, 5 * ten]); // between ticks of steps
const [MINUTE, HOUR, DAY] = [60, 3600, 86400];
export const SPANS = [
  ...[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30], // seconds between ticks of wall time
  ...[1, 2, 5, 10, 15, 30].map((one) => one * MINUTE),
  ...[1, 2, 3, 6, 12].map((one) => one * HOUR),
  ...[1, 2, 5, 10, 20, 50, 100].map((one) => one * DAY),
];

const FLAT = 1e-6; // of the value: what lies closer together is one value with the rounding of its average

/** The range of the y axis for values from low to high (null: there are none), with the chart's guides where they are near. */
export function rangeOfY(low, high, { guides, share }, log) {
  if (low === null || high === null) return log ? [0.1, 1] : [0, 1];
  for (const { value } of guides) {
    if (value < low && low - value < 2 * (high - low)) low = value;
    if (value > high && value - high < 2 * (high - low)) high = value;
  }
  if (log) return uPlot.rangeLog(low, high, 10, false);
  if (high - low <= FLAT * Math.max(Math.abs(low), Math.abs(high))) {
    // uPlot would look for ticks between two neighbouring numbers, a hundred million of them
    if (share) return [Math.max(0, low - 0.1), Math.min(1.02, high + 0.1)];
    return low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  }
  const room = (high - low) * 0.06;
  return [low >= 0 && low - room < 0 ? 0 : low - room, share && high <= 1 ? Math.min(1.02, high + room) : high + room];
}

/** A tick of steps or tokens: `12k`, `3.5M`. */
export function bigNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return String(Number(value.toPrecision(6)));
}
