/** When, after the start, each device is cut off for the first time: anywhere in a period, the same for the same seed. */
export function phases({ devices, period, seed }) {
  const random = mulberry32(seed);
  return Array.from({ length: devices }, () => random() * period);
}

/**
 * How devices come back: the same for every contender and without jitter, so that only servers make a difference. Undefined: each as it is
 * shipped.
 */
export function reconnection({ down, shipped }) {
  return shipped ? undefined : {
    reconnectionDelay: down / 10,
    reconnectionDelayMax: down / 2,
    randomizationFactor: 0,
  };
}

/** How long after the last message the last device has come back and been given what it missed, or never will. */
export function grace({ down, shipped }) {
  return 2 * down + (shipped ? 15_000 : 3_000);
}

/** Tommy Ettinger's generator: numbers from 0 to 1. */
function mulberry32(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
