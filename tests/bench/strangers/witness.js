/** A process of its own: 100 honest devices, the backend that emits to them, and a probe of /livez. */
import { get } from 'node:http';
import { createRequire } from 'node:module';

import { Backend } from '../../clients/harness/backend.js';

const { io } = createRequire(new URL('../../clients/package.json', import.meta.url))('socket.io-client');

const EMIT_INTERVAL = 100;
const PROBE_INTERVAL = 200;
const PROBE_TIMEOUT = 2_000;

let window;
reset();

function reset() {
  window = {
    begun: performance.now(),
    seconds: [],
    arrivals: 0,
    cuts: 0,
    emits: 0,
    grpcFailures: [],
    slowestCall: 0,
    probes: 0,
    livezFailures: [],
    slowestProbe: 0,
  };
}

function arrived(at) {
  const now = performance.now();
  const second = Math.floor((now - window.begun) / 1_000);
  (window.seconds[second] ??= []).push(now - at);
  window.arrivals += 1;
}

function connect(url, token) {
  const socket = io(url, { transports: ['websocket'], forceNew: true, auth: { token } });
  socket.on('tick', ({ at }) => arrived(at));
  socket.on('disconnect', () => (window.cuts += 1));
  return new Promise((resolve) => socket.once('connect', resolve));
}

async function emit(backend) {
  const [own, at] = [window, performance.now()];
  own.emits += 1;
  try {
    await backend.emitToRoom({ room: 'bench:witness', event: 'tick', json: JSON.stringify({ at }) });
  } catch (error) {
    own.grpcFailures.push(error.message);
  }
  own.slowestCall = Math.max(own.slowestCall, performance.now() - at);
}

function probe(url) {
  const [own, at] = [window, performance.now()];
  own.probes += 1;
  const request = get(`${url}/livez`, { agent: false, timeout: PROBE_TIMEOUT }, (response) => {
    response.resume();
    if (response.statusCode !== 200) own.livezFailures.push(`status ${response.statusCode}`);
    own.slowestProbe = Math.max(own.slowestProbe, performance.now() - at);
  });
  request.on('timeout', () => request.destroy(new Error(`no answer in ${PROBE_TIMEOUT} ms`)));
  request.on('error', (error) => own.livezFailures.push(error.message));
}

async function begin({ url, adminUrl, grpcAddress, apiKey, tokens }) {
  await Promise.all(tokens.map((token) => connect(url, token)));
  const backend = new Backend(grpcAddress, apiKey);
  setInterval(() => emit(backend), EMIT_INTERVAL);
  setInterval(() => probe(adminUrl), PROBE_INTERVAL);
  process.send({ began: true });
}

function quantile(sorted, part) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
}

function median(numbers) {
  return quantile([...numbers].sort((a, b) => a - b), 0.5);
}

/** What was seen since the last report. The quantiles are medians of those of each second. */
function report() {
  const { seconds, ...rest } = window;
  // The last second is not complete.
  const sorted = seconds.slice(0, -1).filter(Boolean).map((latencies) => latencies.sort((a, b) => a - b));
  const p99s = sorted.map((latencies) => quantile(latencies, 0.99));
  const p50 = median(sorted.map((latencies) => quantile(latencies, 0.5)));
  reset();
  return { ...rest, p50, p99: median(p99s), worstSecond: Math.max(...p99s) };
}

process.on('message', (message) => (message.begin ? begin(message.begin) : process.send({ report: report() })));
