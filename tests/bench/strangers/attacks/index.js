import { large, pipelines } from './answers.js';
import { posts, puts, trickles } from './bodies.js';
import { left, polls, strays, upgrades } from './sessions.js';
import { calls, garbage, halves, heads, idle, largeCalls, silent } from './silence.js';
import { attachments, floods, fragments, pairs, slowAttachments, speechless } from './websockets.js';

const BOTH = ['direct', 'nginx'];
const DIRECT = ['direct'];
const EITHER = [false, true];
const WITHOUT = [false];
const WITH = [true];

/** The attacks: through what each goes, and whether with a token. nginx passes on no request whose head is not complete. */
export const ATTACKS = [
  { name: 'unfinished POSTs', run: posts, via: BOTH, tokens: EITHER },
  { name: 'unfinished PUTs', run: puts, via: BOTH, tokens: EITHER },
  { name: 'silent, devices', run: silent.devices, via: DIRECT, tokens: WITHOUT },
  { name: 'silent, gRPC', run: silent.grpc, via: DIRECT, tokens: WITHOUT },
  { name: 'silent, admin', run: silent.admin, via: DIRECT, tokens: WITHOUT },
  { name: 'half a head, devices', run: halves.devices, via: DIRECT, tokens: WITHOUT },
  { name: 'half a head, admin', run: halves.admin, via: DIRECT, tokens: WITHOUT },
  { name: 'half a preface, gRPC', run: halves.grpc, via: DIRECT, tokens: WITHOUT },
  { name: 'a preface alone, gRPC', run: halves.preface, via: DIRECT, tokens: WITHOUT },
  { name: 'pings, EIO 4', run: floods.eio4, via: BOTH, tokens: EITHER },
  { name: 'pings, EIO 3', run: floods.eio3, via: BOTH, tokens: EITHER },
  { name: 'packets 2, EIO 3', run: floods.packets3, via: BOTH, tokens: EITHER },
  { name: 'pings, plain WebSocket', run: floods.plain, via: BOTH, tokens: EITHER },
  { name: '10,000 attachments', run: attachments, via: BOTH, tokens: EITHER },
  { name: '16 slow attachments', run: slowAttachments(15), via: BOTH, tokens: EITHER },
  { name: '16 slow attachments, 200 devices', run: slowAttachments(200), via: BOTH, tokens: EITHER },
  { name: '10,000 sessions left', run: left, via: BOTH, tokens: EITHER },
  { name: '1,000 speechless', run: speechless, via: BOTH, tokens: WITHOUT },
  { name: 'endless fragments', run: fragments, via: BOTH, tokens: EITHER },
  { name: 'garbage', run: garbage, via: DIRECT, tokens: WITHOUT },
  { name: 'unfinished heads', run: heads, via: DIRECT, tokens: WITHOUT },
  { name: 'pipelined requests', run: pipelines, via: BOTH, tokens: WITHOUT },
  { name: 'large answers', run: large, via: BOTH, tokens: WITH },
  { name: 'trickled bodies', run: trickles, via: BOTH, tokens: EITHER },
  { name: '41 and 40', run: pairs, via: DIRECT, tokens: EITHER },
  { name: 'many polls at once', run: polls, via: BOTH, tokens: EITHER },
  { name: 'upgrades without 5', run: upgrades, via: BOTH, tokens: EITHER },
  { name: 'unknown sessions', run: strays, via: DIRECT, tokens: WITHOUT },
  { name: 'unfinished calls', run: calls, via: DIRECT, tokens: WITHOUT },
  { name: 'calls with large headers', run: largeCalls, via: DIRECT, tokens: WITHOUT },
];

/** What a connection costs that has made a request and is idle. */
export const FLOOR = { name: 'idle', run: idle };

export function attackOf(name) {
  return [...ATTACKS, FLOOR].find((attack) => attack.name === name);
}
