import { now } from '../flapping/clock.js';
import { distribution } from '../flapping/figures.js';
import { postmasterPid } from '../flapping/postgres.js';
import { clocks } from './clocks.js';
import { RestSender, SocketSender, Users } from './senders.js';

const USERS = 500;
const SENDERS = { REST: RestSender, 'Socket.IO': SocketSender };

/** What is sent: over what, by how many callers that each wait for the answer, and whether each message has a clientMessageId. */
const SENDS = [
  { over: 'REST', callers: 64, isKeyed: false },
  { over: 'REST', callers: 64, isKeyed: true },
  { over: 'REST', callers: 256, isKeyed: false },
  { over: 'REST', callers: 256, isKeyed: true },
  { over: 'Socket.IO', callers: 64, isKeyed: true },
  { over: 'Socket.IO', callers: 256, isKeyed: true },
];
const WARM_UP_SECONDS = 1;

/** Callers that send as fast as they are answered. */
export class Load {
  title = 'sends';
  #bugle;
  #users;
  #postmaster = postmasterPid();

  static async open(bugle) {
    const load = new Load();
    load.#bugle = bugle;
    load.#users = new Users(bugle, USERS);
    await load.#run(SENDS[0], WARM_UP_SECONDS);
    return load;
  }

  /** One round: the figures of each way of sending. */
  async measure({ seconds }) {
    const figures = [];
    for (const sends of SENDS) {
      const measured = { ...sends, ...(await this.#run(sends, seconds)) };
      process.stderr.write(`  ${measured.over}, ${measured.callers} callers: ${Math.floor(measured.rate)} sends a second\n`);
      figures.push(measured);
    }
    return figures;
  }

  async #run({ over, callers, isKeyed }, seconds) {
    const opened = Array.from({ length: callers }, (_, number) => SENDERS[over].open(this.#bugle, this.#users, number));
    const senders = await Promise.all(opened);
    try {
      const start = this.#clocks();
      const latencies = await sendUntil(start.ms + 1_000 * seconds, senders, isKeyed);
      return figuresOf(latencies, start, this.#clocks());
    } finally {
      for (const sender of senders) sender.close();
    }
  }

  #clocks() {
    return clocks(this.#bugle.pid, this.#postmaster);
  }
}

/** Sends with all of them until a time; the latency of each send, in milliseconds. */
async function sendUntil(end, senders, isKeyed) {
  const latencies = [];
  const call = async (sender) => {
    for (let start = now(); start < end; start = now()) {
      await sender.send(`Message ${latencies.length}: is it still there?`, isKeyed);
      latencies.push(now() - start);
    }
  };
  await Promise.all(senders.map(call));
  return latencies;
}

function figuresOf(latencies, start, end) {
  const spent = (clock) => end[clock] - start[clock];
  const ofEach = (clock) => spent(clock) / latencies.length;
  const { p50, p99 } = distribution(latencies);
  return {
    rate: (1_000 * latencies.length) / spent('ms'),
    p50,
    p99,
    bugle: ofEach('bugle'),
    postgres: ofEach('postgres'),
    load: ofEach('load'),
    otherCores: Math.max(spent('all') - spent('bugle') - spent('postgres') - spent('load'), 0) / (1_000 * spent('ms')),
  };
}
