import { CONTENDERS } from './contenders.js';
import { multiple, quantity } from './texts.js';

const WIDTH = 860;
const MARGIN = 20;
/** Where the bars begin; their names are on the left of it, in two lines. */
const LEFT = 250;
const RIGHT = WIDTH - 170;
const TOP = 92;
const [BAR, GAP, BETWEEN] = [18, 4, 22];

/** The colours keep apart for the colour-blind, and stand out from white as well as from black. */
const COLOURS = { bugle: '#d97706', node: '#3b82c4', python: '#8b8fa3', nchan: '#2a9d78' };

const STYLE = `
    .paper { fill: #ffffff; stroke: #d0d7de }
    text { font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #24292f }
    .title { font-size: 17px; font-weight: 600 }
    .faint { fill: #656d76 }
    .axis { stroke: #8c959f }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #30363d }
      text { fill: #e6edf3 }
      .faint { fill: #9198a1 }
    }`;

/** The figures that are to be drawn, as bars in SVG: what each contender spends, as a multiple of what Bugle does. */
export function chart(rows, { hardware, software, date }) {
  const drawn = rows.filter(({ isDrawn }) => isDrawn);
  const most = Math.max(1, ...drawn.flatMap((row) => bars(row).map(({ times }) => times)));
  const height = drawn.reduce((sum, row) => sum + groupHeight(row), TOP) + 3 * MARGIN;
  let top = TOP;
  const groups = drawn.map((row) => {
    const group = groupOf(row, top, most);
    top += groupHeight(row);
    return group;
  });
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title">`,
    `  <title id="title">Server CPU for the same work, as a multiple of Bugle's</title>`,
    `  <style>${STYLE}\n  </style>`,
    `  <rect class="paper" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="6"/>`,
    label({ x: MARGIN, y: 32, text: "Server CPU for the same work, as a multiple of Bugle's: less is better", kind: 'title' }),
    ...legend(drawn),
    ...groups,
    `  <line class="axis" x1="${LEFT}" y1="${TOP - 6}" x2="${LEFT}" y2="${top - BETWEEN + 6}"/>`,
    label({ x: MARGIN, y: height - 2 * MARGIN, text: `Measured on ${hardware}`, kind: 'faint' }),
    label({ x: MARGIN, y: height - MARGIN, text: `${software}; ${date}`, kind: 'faint' }),
  ];
  return `${parts.join('\n')}\n</svg>\n`;
}

function legend(drawn) {
  const names = Object.keys(CONTENDERS).filter((name) => drawn.some(({ medians }) => medians[name] !== undefined));
  return names.flatMap((name, index) => {
    const x = LEFT + index * 90;
    return [`  <rect x="${x}" y="50" width="14" height="14" rx="2" fill="${COLOURS[name]}"/>`, label({ x: x + 20, y: 62, text: CONTENDERS[name].title })];
  });
}

function bars({ medians }) {
  const known = Object.keys(CONTENDERS).filter((name) => medians[name] !== undefined);
  return known.map((name) => ({ name, times: medians[name] / medians.bugle }));
}

function groupHeight(row) {
  return bars(row).length * (BAR + GAP) - GAP + BETWEEN;
}

function groupOf(row, top, most) {
  const middle = top + (groupHeight(row) - BETWEEN) / 2;
  const lines = [
    label({ x: LEFT - 12, y: middle - 3, text: row.title, end: true }),
    label({ x: LEFT - 12, y: middle + 14, text: row.figure, kind: 'faint', end: true }),
  ];
  bars(row).forEach(({ name, times }, index) => {
    const y = top + index * (BAR + GAP);
    const length = ((RIGHT - LEFT) * times) / most;
    const text = name === 'bugle' ? quantity(row.medians.bugle, row.unit) : `${multiple(times)} (${quantity(row.medians[name], row.unit)})`;
    lines.push(`  <rect x="${LEFT}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" rx="2" fill="${COLOURS[name]}"/>`);
    lines.push(label({ x: LEFT + Number(length.toFixed(1)) + 8, y: y + BAR - 4, text }));
  });
  return lines.join('\n');
}

function label({ x, y, text, kind, end }) {
  const attributes = `${kind ? ` class="${kind}"` : ''}${end ? ' text-anchor="end"' : ''}`;
  return `  <text x="${x}" y="${y}"${attributes}>${escaped(text)}</text>`;
}

function escaped(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
