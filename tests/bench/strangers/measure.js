import { setTimeout as sleep } from 'node:timers/promises';

import { World } from './world.js';

const SAMPLE_INTERVAL = 100;
const BASELINE = 6_000;
const WITHIN = 60_000;
const STAY = 13_000;
const STOP_AFTER = 500;
/** What the allocator may keep, in MiB, and connections that the witnesses opened meanwhile. */
export const MEMORY_SLACK = 16;
const DESCRIPTOR_SLACK = 10;
const MEMORY_WITHIN = 30_000;
const DESCRIPTORS_WITHIN = 10_000;

/** Runs one attack against a server of its own. Returns what was measured. */
export async function measure(name, options) {
  const world = await World.start();
  try {
    await sleep(2_000);
    await world.witnessed();
    await sleep(BASELINE);
    const calm = await world.witnessed();
    const before = sample(world);
    const during = await besiege(world, name, options);
    const after = await recover(world, before);
    await world.witnessed();
    return { name, ...options, before, calm, ...during, after, warnings: world.warnings() };
  } finally {
    await world.stop();
  }
}

function sample(world) {
  return { memory: world.memory(), descriptors: world.descriptors() };
}

async function besiege(world, name, options) {
  const peak = sample(world);
  const sampler = setInterval(() => {
    const { memory, descriptors } = sample(world);
    peak.memory = Math.max(peak.memory, memory);
    peak.descriptors = Math.max(peak.descriptors, descriptors);
  }, SAMPLE_INTERVAL);
  try {
    const attacker = world.attack(name, options);
    const begun = performance.now();
    const note = await attacker.finished(WITHIN);
    const took = (performance.now() - begun) / 1_000;
    await sleep(STAY);
    const alive = await Promise.race([attacker.alive(), sleep(5_000, undefined)]);
    const [stayed, noticed] = [sample(world), await world.witnessed()];
    attacker.leave();
    return { peak, note, took, alive, stayed, noticed };
  } finally {
    clearInterval(sampler);
  }
}

async function recover(world, before) {
  const begun = performance.now();
  const seconds = () => (performance.now() - begun) / 1_000;
  const after = {};
  while (seconds() * 1_000 < MEMORY_WITHIN) {
    const { memory, descriptors } = sample(world);
    if (descriptors <= before.descriptors + DESCRIPTOR_SLACK) after.descriptorSeconds ??= seconds();
    if (seconds() * 1_000 < DESCRIPTORS_WITHIN) after.descriptors = descriptors;
    if (memory <= before.memory + MEMORY_SLACK) after.memorySeconds ??= seconds();
    if (after.memorySeconds !== undefined && after.descriptorSeconds !== undefined) break;
    await sleep(SAMPLE_INTERVAL);
  }
  after.memory = world.memory();
  return after;
}

/** What a connection costs that has made one request and is idle, in KiB. */
export async function measureFloor() {
  const world = await World.start({ honest: 1 });
  try {
    await sleep(1_000);
    const before = sample(world);
    const attacker = world.attack('idle', { via: 'direct', hasToken: false });
    await attacker.finished(WITHIN);
    await sleep(1_000);
    const idle = sample(world);
    attacker.leave();
    return ((idle.memory - before.memory) * 1_024) / (idle.descriptors - before.descriptors);
  } finally {
    await world.stop();
  }
}

/** The seconds that a stop takes so many milliseconds after these attacks have begun at once. */
export async function measureStop(attacks, within) {
  const world = await World.start();
  try {
    const attackers = attacks.map(({ name, via, hasToken }) => world.attack(name, { via, hasToken }));
    await Promise.all(attackers.map((attacker) => attacker.finished(within).catch(() => {})));
    await sleep(STOP_AFTER);
    const under = sample(world);
    return { seconds: await world.terminate(), ...under };
  } finally {
    await world.stop();
  }
}
