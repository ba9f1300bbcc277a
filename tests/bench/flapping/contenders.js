import { Bugle } from './bugle.js';
import { Peer } from './peer/peer.js';

/**
 * Who is compared: a server, the kind of its devices, and whether its deliveries are promised to be whole.
 * The order is the one in which they run.
 */
export const CONTENDERS = {
  bugle: { title: 'Bugle', start: ({ store }) => Bugle.start(store), kind: 'resuming', isPromised: true },
  packaged: { title: 'Bugle, its package', start: ({ store }) => Bugle.start(store), kind: 'packaged', isPromised: true },
  node: { title: 'Node Socket.IO', start: () => Peer.start({ recovery: false }), kind: 'plain', isPromised: false },
  recovery: { title: 'Node, with recovery', start: () => Peer.start({ recovery: true }), kind: 'plain', isPromised: false },
};

/** Whose delay Bugle's has to stay below. */
export const RIVAL = 'recovery';
