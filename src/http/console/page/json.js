// JSON texts as they stand: parsing and writing them again would change numbers that a double cannot hold.

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{},:]|[^\s"[\]{},:]+/g;
/** What is nested deeper than this is not indented further. */
const MOST_INDENTS = 40;

/** The entries of a JSON array, each as the text that it is. */
function entriesOf(array) {
  const entries = [];
  let depth = 0;
  let start = -1;
  for (const { 0: token, index } of array.matchAll(TOKEN)) {
    const closes = token === "]" || token === "}";
    if (closes) depth -= 1;
    if (depth === 1 && start < 0 && token !== ",") start = index;
    if (start >= 0 && ((depth === 1 && token === ",") || depth === 0)) {
      entries.push(array.slice(start, index).trim());
      start = -1;
    }
    if (token === "[" || token === "{") depth += 1;
  }
  return entries;
}

/** A JSON text over several lines, for reading. */
function indented(text) {
  let shown = "";
  let depth = 0;
  let before = "";
  for (const [token] of text.matchAll(TOKEN)) {
    const opens = before === "[" || before === "{";
    const closes = token === "]" || token === "}";
    if (closes) depth -= 1;
    if ((opens && !closes) || before === "," || (closes && !opens)) shown += `\n${"  ".repeat(Math.min(depth, MOST_INDENTS))}`;
    shown += token === ":" ? ": " : token;
    if (token === "[" || token === "{") depth += 1;
    before = token;
  }
  return shown;
}

/** What is wrong with a JSON text, if anything is. */
function faultOf(text) {
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
}
