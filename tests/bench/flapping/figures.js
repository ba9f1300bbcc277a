import { LOADS } from './loads.js';

/** What one contender did, as numbers: of its connections, its emits and each load. */
export function figures(name, { devices, messages }, emits, report) {
  const { cuts, comebacks, wholeComebacks, loads } = report;
  const { sent, answered, refused, storable, stored, failure } = emits;
  return {
    contender: name,
    connections: { cuts, comebacks, wholeComebacks },
    emits: { sent, answered, refused, storable, stored, reasons: [...emits.reasons], failure },
    loads: Object.fromEntries(LOADS.map((load) => [load.name, ofLoad(loads[load.name], devices * messages)])),
  };
}

function ofLoad({ delivered, duplicates, duplicatesAfterDedupe, disorder, delays, catchUps }, expected) {
  return {
    expected,
    delivered,
    deliveredPercent: (100 * delivered) / expected,
    duplicates,
    duplicatesAfterDedupe,
    disorder,
    delayMs: distribution(delays),
    caughtUp: catchUps.length,
    catchUpMs: distribution(catchUps),
  };
}

/** Percentiles by the nearest rank; null of nothing. */
export function distribution(samples) {
  const sorted = Float64Array.from(samples).sort();
  const at = (share) => sorted[Math.max(Math.ceil(share * sorted.length) - 1, 0)] ?? null;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}
