const [BEGIN, END] = ['<!-- peers -->', '<!-- /peers -->'];

/** The text with this between its markers instead of what is there. */
export function replaced(readme, figures) {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`README.md has no ${BEGIN} with a ${END} after it`);
  return `${readme.slice(0, begin)}${BEGIN}\n\n${figures.trim()}\n\n${readme.slice(end)}`;
}

/** What is between the markers: the table, the picture, and what it was measured on. */
export function section({ table, picture, caption }) {
  return `${table}\n![Server CPU of Bugle, Node, Python and nchan under the same loads](${picture})\n\n${caption}\n`;
}

/** What the figures are of; `hasMemory`: memory is among them, of one round. */
export function captionOf({ hardware, software, date }, rounds, hasMemory) {
  const medians = `Medians of ${rounds} rounds${hasMemory ? ', of memory one,' : ''}`;
  const measured = rounds === 1 ? 'One round' : medians;
  return `${measured} in turn on ${hardware}; ${software}; ${date}.`;
}
