// Some of the devices: a process that does what the process that started it says.
import { LOADS } from '../loads.js';
import { Device } from './device.js';
import { total } from './tally.js';

const COMMANDS = { connect, flap, report };

const devices = [];
let missing;
let setComplete;

process.on('message', async ({ command, ...settings }) => {
  const answer = await COMMANDS[command](settings);
  process.send({ command, answer });
});
process.on('disconnect', () => process.exit());

/** Connects a device for each token, one after the other. */
async function connect({ kind, tokens, ...settings }) {
  for (const token of tokens) {
    const device = new Device(tookAnother);
    await device.connect(kind, { ...settings, token });
    devices.push(device);
  }
}

/** Lets each device lose its line every period; answers when they have taken all messages. */
function flap({ start, end, phases, period, down, messages }) {
  missing = devices.length * messages * LOADS.length;
  devices.forEach((device, index) => {
    const times = [];
    for (let time = start + phases[index]; time < end; time += period) times.push(time);
    device.flap(times, down);
  });
  return new Promise((resolve) => (setComplete = resolve));
}

function tookAnother() {
  missing -= 1;
  if (missing === 0) setComplete();
}

function report() {
  const sum = (field) => devices.reduce((soFar, device) => soFar + device[field], 0);
  const heard = ({ name }) => [name, total(devices.map(({ tallies }) => tallies.get(name)))];
  return {
    cuts: sum('cuts'),
    comebacks: sum('comebacks'),
    wholeComebacks: sum('wholeComebacks'),
    loads: Object.fromEntries(LOADS.map(heard)),
  };
}
