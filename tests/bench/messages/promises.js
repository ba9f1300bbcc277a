/** A list of conversations or messages is read in less time than this, by its median and by its p95. */
export const READ_MS = 10;
/** The best way of sending over REST reaches this rate. */
export const SENDS_PER_SECOND = 2_000;

/** Each promise that these figures break, as a sentence; empty if all hold. What was not measured breaks none. */
export function broken({ reads = [], sends = [] }) {
  return [...reads.filter(({ isPromised }) => isPromised).flatMap(ofRead), ...ofRates(sends.filter(({ over }) => over === 'REST'))];
}

function ofRead({ title, p50, p95 }) {
  const slow = Object.entries({ median: p50, p95 }).filter(([, milliseconds]) => milliseconds >= READ_MS);
  return slow.map(([name, milliseconds]) => `${title}: the ${name} is ${milliseconds.toFixed(2)} ms, and not below ${READ_MS} ms`);
}

function ofRates(sends) {
  // Without any this is -Infinity.
  const best = Math.max(...sends.map(({ rate }) => rate));
  if (sends.length === 0 || best >= SENDS_PER_SECOND) return [];
  return [`REST: at most ${Math.floor(best)} sends a second, and ${SENDS_PER_SECOND} are promised`];
}
