import { CONTENDERS } from './contenders.js';
import { Failure } from './failure.js';

/** Who Bugle is set beside, in the order of the table. */
export const OTHERS = ['node', 'python', 'nchan'];

/** A row for each figure of each load: the medians of all contenders, how they compare, and whether Bugle meets its target. */
export function rowsOf(load, results) {
  if (load.isApart) return apartRowsOf(load, results);
  return load.figures.map((figure) => {
    const medians = Object.fromEntries(Object.entries(results).map(([name, all]) => [name, medianOf(all, figure, `${name}, ${load.name}`)]));
    const others = OTHERS.filter((name) => name in medians);
    const times = Object.fromEntries(others.map((name) => [name, advantage(figure, medians.bugle, medians[name])]));
    return { load: load.name, title: load.title(load), figure: figure.name, ...shown(figure), medians, times, ...judged(figure, medians, times) };
  });
}

/** A row for each contender and figure, whose target is the contender's own. */
function apartRowsOf(load, results) {
  return Object.entries(results).flatMap(([name, all]) =>
    load.figures.map((figure) => {
      const medians = { [name]: medianOf(all, figure, `${name}, ${load.name}`) };
      const whose = load.kinds[name].title;
      const target = judgedBy([targetAtMost(figure.atMost?.[name], figure.unit, medians[name])]);
      return { load: load.name, title: load.title(load), whose, figure: figure.name, unit: figure.unit, medians, ...target };
    }),
  );
}

function shown({ unit, isRate = false, isDrawn = false }) {
  return { unit, isRate, isDrawn };
}

function medianOf(results, figure, whose) {
  const values = results.map(figure.of);
  if (values.every((value) => Number.isFinite(value) && (value > 0 || figure.isSigned))) return median(values);
  throw new Failure(`${whose}: the figure "${figure.name}" is not known, or too small to be measured: ${values.join(', ')}`);
}

/** The middle one, or the mean of the two in the middle. */
export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1] + sorted[Math.floor(middle)]) / 2;
}

/** How many times better Bugle is: less of what is spent, more of what is done in a second. */
function advantage({ isRate }, own, other) {
  return isRate ? own / other : other / own;
}

/** The targets beside Node and others, and those in the figure's unit. */
function judged({ times: wanted, atMost, noMoreThan, unit }, medians, times) {
  return judgedBy([
    wanted && { text: wanted === 1 ? 'less than Node' : `≥ ${wanted} × Node`, isMet: wanted === 1 ? times.node > 1 : times.node >= wanted },
    targetAtMost(atMost, unit, medians.bugle),
    noMoreThan && { text: `≤ ${CONTENDERS[noMoreThan].title}`, isMet: medians.bugle <= medians[noMoreThan] },
  ]);
}

function targetAtMost(atMost, unit, median) {
  return atMost && { text: `≤ ${atMost} ${unit}`, isMet: median <= atMost };
}

/** The target as a text, and whether it is met; neither where there is none. */
function judgedBy(given) {
  const targets = given.filter(Boolean);
  if (targets.length === 0) return {};
  return { target: targets.map(({ text }) => text).join(', '), isMet: targets.every(({ isMet }) => isMet) };
}
