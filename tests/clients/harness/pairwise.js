/** All rows with one value of each factor, of `{ client: ['2.x', '3.x'], way: ['polling'] }`. */
export function product(factors, isPossible = () => true) {
  const rows = Object.entries(factors).reduce(
    (rows, [factor, values]) => rows.flatMap((row) => values.map((value) => ({ ...row, [factor]: value }))),
    [{}],
  );
  return rows.filter(isPossible);
}

/** Few of those rows: each pair of values of two factors that is in one of all rows is in one of these. */
export function pairwise(factors, isPossible) {
  const rows = product(factors, isPossible).map((row) => ({ row, pairs: pairsOf(row) }));
  const missing = new Set(rows.flatMap(({ pairs }) => pairs));
  const chosen = [];
  while (missing.size > 0) {
    const gain = ({ pairs }) => pairs.filter((pair) => missing.has(pair)).length;
    const best = rows.reduce((best, row) => (gain(row) > gain(best) ? row : best));
    for (const pair of best.pairs) missing.delete(pair);
    chosen.push(best.row);
  }
  return chosen;
}

function pairsOf(row) {
  const values = Object.entries(row).map(([factor, value]) => `${factor} ${value}`);
  if (values.length === 1) return values;
  return values.flatMap((one, index) => values.slice(index + 1).map((other) => `${one}, ${other}`));
}

/** A row as the name of a test: `4.x, polling, 40 ms`. */
export function nameOf({ delay, ...row }) {
  return [...Object.values(row), ...(delay === undefined ? [] : [`${delay} ms away`])].join(', ');
}
