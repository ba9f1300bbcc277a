import { expect, test } from 'vitest';

import { Backoff } from '../src/backoff.js';

test('delays double up to the longest, each by chance between half and all of it', () => {
  const backoff = new Backoff(100, 1_000);
  for (const longest of [100, 200, 400, 800, 1_000, 1_000]) {
    const delay = backoff.next();
    expect(delay).toBeGreaterThanOrEqual(longest / 2);
    expect(delay).toBeLessThanOrEqual(longest);
  }
});

test('two devices that were cut off together come back at different times', () => {
  const delays = Array.from({ length: 20 }, () => new Backoff(1_000, 1_000).next());
  expect(new Set(delays).size).toBeGreaterThan(1);
});

test('after a reset the first delay is the shortest again, however many failures there were', () => {
  const backoff = new Backoff(100, 1_000);
  for (let failures = 0; failures < 5_000; failures += 1) expect(backoff.next()).toBeLessThanOrEqual(1_000);
  backoff.reset();
  expect(backoff.next()).toBeLessThanOrEqual(100);
});
