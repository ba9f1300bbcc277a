const COLUMNS = [
  'attack',
  'via',
  'token',
  'memory MiB: before, peak, staying, after',
  'descriptors: before, peak, after',
  'p50/p99 ms before',
  'during',
  'worst second',
  '/livez, gRPC failures',
  'verdict',
];

export function head() {
  return `${row(COLUMNS)}\n${row(COLUMNS.map(() => '---'))}`;
}

/** One attack as a row of a Markdown table. */
export function line(result, faults) {
  const { before, peak, stayed, after, calm, noticed } = result;
  const memory = [before, peak, stayed].map(({ memory: value }) => value.toFixed(0));
  const back = after.memorySeconds === undefined ? '30 s' : `${after.memorySeconds.toFixed(1)} s`;
  return row([
    result.name,
    result.via,
    result.hasToken ? 'yes' : 'no',
    `${memory.join(', ')}, ${after.memory.toFixed(0)} (${back})`,
    `${before.descriptors}, ${peak.descriptors}, ${after.descriptors} (${after.descriptorSeconds?.toFixed(1) ?? '>10'} s)`,
    latencies(calm),
    latencies(noticed),
    noticed.worstSecond.toFixed(0),
    `${noticed.livezFailures.length}, ${noticed.grpcFailures.length}`,
    faults.length === 0 ? 'PASS' : `FAIL: ${faults.join('; ')}`,
  ]);
}

function latencies({ p50, p99 }) {
  return `${p50.toFixed(1)}/${p99.toFixed(1)}`;
}

function row(cells) {
  return `| ${cells.join(' | ')} |`;
}
