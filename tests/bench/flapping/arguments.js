import { parseArgs } from 'node:util';

/** What was asked for on the command line is not possible; the message says what would be. */
export class UsageError extends Error {}

export const FLAG = { type: 'boolean', default: false };

/** An option with a text. */
export function text(byDefault) {
  return { type: 'string', default: byDefault };
}

/** The values of options, as `parseArgs` describes them. */
export function parsed(argv, options) {
  try {
    return parseArgs({ args: argv, options }).values;
  } catch (error) {
    throw new UsageError(error.message, { cause: error });
  }
}

/** The entries of `--only`, all of them known. */
export function chosen(only, known) {
  const names = only.split(',');
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new UsageError(`--only names ${unknown.join(', ')}: known are ${known.join(', ')}`);
  return names;
}

export function count(name, given, least) {
  const number = Number(given);
  if (!/^\d+$/.test(given) || number < least) throw new UsageError(`--${name} is a whole number of at least ${least}`);
  return number;
}

/** Runs a command, and ends with the exit code that it returns; 64 for a usage that cannot be. */
export async function runCommand(main) {
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 64;
  }
}
