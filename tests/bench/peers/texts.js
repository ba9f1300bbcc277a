/** A figure as people read it: three digits, or all of a large number. */
export function quantity(value, unit) {
  if (value === undefined) return '';
  const number = value.toLocaleString('en-US', value < 100 ? { minimumSignificantDigits: 3, maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 });
  return `${number} ${unit}`;
}

/** Rounded down: what misses its target never looks as if it met it. */
export function multiple(times) {
  if (times === undefined) return '';
  const digits = times < 10 ? 1 : 0;
  const scale = 10 ** digits;
  return `${(Math.floor(times * scale) / scale).toFixed(digits)} ×`;
}
