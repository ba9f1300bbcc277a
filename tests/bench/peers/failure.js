/** A contender or the load generator did not do what it should; the message says all there is to say. */
export class Failure extends Error {}
