/** Milliseconds on a clock that all processes of a machine share; `performance.now()` is each process's own. */
export function now() {
  return Number(process.hrtime.bigint()) / 1e6;
}
