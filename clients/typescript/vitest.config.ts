import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.{ts,tsx}'],
    testTimeout: 30_000,
    // Each test runs a server of its own.
    maxWorkers: 2,
    minWorkers: 1,
  },
});
