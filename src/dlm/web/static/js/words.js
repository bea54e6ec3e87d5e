// What a line shows, in words, for who does not see the picture.
import { grouped, short } from "./format.js";

/** One more point of a line, which the picture need not show. */
export function note(line, x, step, value) {
  line.points += 1;
  line.last = [step, value];
  line.first ??= line.last;
  if (!line.lowest || value < line.lowest[1]) line.lowest = line.last;
  if (!line.highest || value > line.highest[1]) line.highest = line.last;
  line.reach = [line.reach?.[0] ?? x, x];
}

/** The line in a sentence or two. */
export function inWords({ run, label, points, first, last, lowest, highest }) {
  const at = ([step, value]) => `${short(value)} at step ${step}`;
  const whose = `Run ${run}, ${label}:`;
  if (!points) return `${whose} no finite value.`;
  if (points === 1) return `${whose} ${at(first)}.`;
  return `${whose} from ${at(first)} to ${at(last)}; lowest ${at(lowest)}, highest ${at(highest)}; ${grouped(points)} points.`;
}
