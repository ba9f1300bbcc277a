import { markdownTable } from '../flapping/markdown.js';
import { CONTENDERS } from './contenders.js';
import { multiple, quantity } from './texts.js';

const NAMES = Object.keys(CONTENDERS);
const HEADS = ['load', 'figure', ...NAMES.map((name) => CONTENDERS[name].title), 'beside Node', 'beside Python', 'target', 'met'];

/** The figures as Markdown. Beside: how many times less Bugle spends, or how many times more it does in a second. */
export function table(rows) {
  return markdownTable(HEADS, rows.map(cells), 2);
}

function cells({ title, figure, unit, medians, times, target = '', isMet }) {
  const met = isMet === undefined ? '' : isMet ? 'yes' : 'missed';
  return [title, figure, ...NAMES.map((name) => quantity(medians[name], unit)), multiple(times.node), multiple(times.python), target, met];
}
