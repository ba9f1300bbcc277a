import { Failure } from './failure.js';

/** A row for each figure of each load: the medians of all contenders, how they compare, and whether Bugle meets its target. */
export function rowsOf(load, results) {
  return load.figures.map((figure) => {
    const medians = Object.fromEntries(Object.entries(results).map(([name, all]) => [name, medianOf(all, figure, `${name}, ${load.name}`)]));
    const times = Object.fromEntries(['node', 'python'].map((name) => [name, advantage(figure, medians.bugle, medians[name])]));
    return { load: load.name, title: load.title(load), figure: figure.name, ...shown(figure), medians, times, ...judged(figure, medians, times) };
  });
}

function shown({ unit, isRate = false, isDrawn = false }) {
  return { unit, isRate, isDrawn };
}

function medianOf(results, figure, whose) {
  const values = results.map(figure.of);
  if (values.every((value) => value > 0 && Number.isFinite(value))) return median(values);
  throw new Failure(`${whose}: the figure "${figure.name}" is not known, or too small to be measured: ${values.join(', ')}`);
}

/** The middle one, or the mean of the two in the middle. */
export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1] + sorted[Math.floor(middle)]) / 2;
}

/** How many times better Bugle is: less of what is spent, more of what is done in a second. Undefined beside nobody. */
function advantage({ isRate }, own, other) {
  if (other === undefined) return undefined;
  return isRate ? own / other : other / own;
}

/** The target as a text, and whether it is met; neither where there is none. */
function judged({ times: wanted, atMost, unit }, medians, times) {
  const targets = [
    wanted && { text: wanted === 1 ? 'less than Node' : `≥ ${wanted} × Node`, isMet: wanted === 1 ? times.node > 1 : times.node >= wanted },
    atMost && { text: `≤ ${atMost} ${unit}`, isMet: medians.bugle <= atMost },
  ].filter(Boolean);
  if (targets.length === 0) return {};
  return { target: targets.map(({ text }) => text).join(', '), isMet: targets.every(({ isMet }) => isMet) };
}
