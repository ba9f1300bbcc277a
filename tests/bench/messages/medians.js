/** The rows of several rounds as one: of each number the median of the rounds; what is no number is that of the first. */
export function medians(rounds) {
  const [first] = rounds;
  return first.map((row, index) => medianRow(row, rounds.map((rows) => rows[index])));
}

function medianRow(row, all) {
  const entries = Object.keys(row).map((key) => [key, typeof row[key] === 'number' ? median(all.map((each) => each[key])) : row[key]]);
  return Object.fromEntries(entries);
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
