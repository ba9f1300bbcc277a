import { markdownTable } from '../flapping/markdown.js';
import { CONTENDERS } from './contenders.js';
import { OTHERS } from './figures.js';
import { multiple, quantity } from './texts.js';

/**
 * The figures as Markdown, in one table for all loads and one for each that is apart. Beside: how many times less Bugle spends, or how many
 * times more it does in a second.
 */
export function table(rows) {
  const together = rows.filter(({ whose }) => !whose);
  const apart = rows.filter(({ whose }) => whose);
  const tables = [...new Set(apart.map(({ load }) => load))].map((name) => apartTable(apart.filter(({ load }) => load === name)));
  if (together.length > 0) tables.unshift(togetherTable(together));
  return tables.join('\n');
}

function togetherTable(rows) {
  const tookPart = (name) => rows.some(({ medians }) => medians[name] !== undefined);
  const others = OTHERS.filter(tookPart);
  const titles = (names) => names.map((name) => CONTENDERS[name].title);
  const heads = ['load', 'figure', ...titles(['bugle', ...others]), ...titles(others).map((title) => `beside ${title}`), 'target', 'met'];
  return markdownTable(heads, rows.map((row) => cells(row, others)), 2);
}

function cells({ title, figure, unit, medians, times, target = '', isMet }, others) {
  const spent = ['bugle', ...others].map((name) => quantity(medians[name], unit));
  return [title, figure, ...spent, ...others.map((name) => multiple(times[name])), target, met(isMet)];
}

/** A row for each contender, and a column for each figure. */
function apartTable(rows) {
  const whose = [...new Set(rows.map((row) => row.whose))];
  const figures = [...new Set(rows.map((row) => row.figure))];
  const lines = whose.map((name) => {
    const own = rows.filter((row) => row.whose === name);
    const targets = own.filter(({ target }) => target);
    const isMet = targets.length > 0 ? targets.every((row) => row.isMet) : undefined;
    return [name, ...own.map((row) => quantity(Object.values(row.medians)[0], row.unit)), targets.map(({ target }) => target).join(', '), met(isMet)];
  });
  return markdownTable([rows[0].title, ...figures, 'target', 'met'], lines, 1);
}

function met(isMet) {
  return isMet === undefined ? '' : isMet ? 'yes' : 'missed';
}
