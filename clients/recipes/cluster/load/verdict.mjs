// What the devices' results say: whether every message came to every device that it was for, once and in order, and how long they were away.

/** The longest that a device may be away, in milliseconds. */
export const LONGEST_AWAY = 5_000;

export class Verdict {
  /** `fleets`: the results of the devices, in a list for each of `kinds`. */
  constructor(emitted, fleets, kinds) {
    this.emitted = emitted;
    this.kinds = kinds.map((kind, number) => ({ kind, ...summary(fleets[number]) }));
    this.all = summary(fleets.flat());
  }

  get isGood() {
    const { lost, twice, disordered, away } = this.all;
    return lost === 0 && twice === 0 && disordered === 0 && (away.at(-1) ?? 0) <= LONGEST_AWAY;
  }

  text() {
    const { stored, history, repeated } = this.emitted;
    const { lost, twice, disordered, told, arrived } = this.all;
    const lines = [
      `emits        ${stored} stored, ${history} to groups; ${repeated} calls repeated`,
      `arrivals     ${arrived}`,
      `lost         ${lost}`,
      `twice        ${twice}`,
      `out of order ${disordered}`,
      `told that a room was not recovered: ${told} devices`,
      ...this.kinds.map(
        ({ kind, away, delays, failed }) =>
          `${kind.padEnd(12)} away ${away.length} times (${failed} attempts to connect failed): median ${seconds(away, 0.5)}, longest ${seconds(away, 1)}; ` +
          `from answer to arrival: p99 ${seconds(delays, 0.99)}, longest ${seconds(delays, 1)}`,
      ),
      this.isGood ? 'Every message came to every device, once and in order.' : `FAILED: see above; away is at most ${LONGEST_AWAY / 1_000} s`,
    ];
    return lines.join('\n');
  }
}

function summary(devices) {
  const sum = (name) => devices.reduce((total, device) => total + device[name], 0);
  const delays = ascending(devices.flatMap((device) => device.delays));
  return {
    // JSON has no Infinity: a device that never came back has null.
    away: ascending(devices.flatMap((device) => device.away.map((time) => time ?? Infinity))),
    delays,
    arrived: delays.length,
    lost: sum('lost'),
    twice: sum('twice'),
    disordered: sum('disordered'),
    failed: sum('failed'),
    told: devices.filter(({ told }) => told > 0).length,
  };
}

const ascending = (numbers) => numbers.sort((one, other) => one - other);

function seconds(times, share) {
  if (times.length === 0) return '–';
  return `${(times[Math.ceil(share * times.length) - 1] / 1_000).toFixed(2)} s`;
}
