/** A table in Markdown whose columns stand below each other in plain text too. The first ones, which name things, are on the left. */
export function markdownTable(heads, rows, leftColumns) {
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map((cells) => cells[column].length)));
  const rule = widths.map((width, column) => '-'.repeat(width - 1) + (column < leftColumns ? '-' : ':'));
  return [heads, rule, ...rows].map((cells) => line(cells, widths, leftColumns)).join('');
}

function line(cells, widths, leftColumns) {
  const padded = cells.map((cell, column) => (column < leftColumns ? cell.padEnd(widths[column]) : cell.padStart(widths[column])));
  return `| ${padded.join(' | ')} |\n`;
}
