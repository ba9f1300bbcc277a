import { CONTENDERS, RIVAL } from './contenders.js';
import { LOADS } from './loads.js';

/** Each promise of Bugle that these figures break, as a sentence; empty if it kept them all. */
export function broken(all) {
  const rival = all.find(({ contender }) => contender === RIVAL);
  return all
    .filter(({ contender }) => CONTENDERS[contender].isPromised)
    .flatMap((own) => [...ofEmits(own), ...LOADS.flatMap(({ name }) => ofLoad(own, name, rival))]);
}

function ofEmits({ contender, emits }) {
  const faults = [
    [emits.failure, `the stream of emits failed: ${emits.failure}`],
    [emits.refused, `${emits.refused} emits were refused: ${emits.reasons.join('; ')}`],
    [emits.answered < emits.sent, `${emits.sent - emits.answered} emits were not answered`],
    [emits.stored < emits.storable, `${emits.storable - emits.stored} emits were not stored`],
  ];
  return sentences(contender, faults);
}

function ofLoad({ contender, loads }, name, rival) {
  const { expected, delivered, duplicates, duplicatesAfterDedupe, disorder, delayMs } = loads[name];
  // Without a rival nothing is above it.
  const limit = rival?.loads[name].delayMs.p99 ?? Infinity;
  const faults = [
    [delivered < expected, `${expected - delivered} of ${expected} messages were lost`],
    [duplicates, `${duplicates} messages came again, though every device said what it had`],
    [duplicatesAfterDedupe, `${duplicatesAfterDedupe} messages came again under another id`],
    [disorder, `${disorder} messages came after a later one`],
    [delayMs.p99 >= limit, `p99 of the delay is ${delayMs.p99?.toFixed(1)} ms, and not below the ${limit?.toFixed(1)} ms of Node's recovery`],
  ];
  return sentences(`${contender}, ${name}`, faults);
}

function sentences(whose, faults) {
  return faults.filter(([isFault]) => isFault).map(([, fault]) => `${whose}: ${fault}`);
}
