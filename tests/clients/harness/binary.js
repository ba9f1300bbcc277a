import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** The release binary; `BUGLE_BIN` names another one. */
export const BUGLE = process.env.BUGLE_BIN ?? `${ROOT}target/release/bugle`;

/** The environment without what would configure Bugle. */
export function cleanEnvironment(extra = {}) {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('BUGLE_'));
  return { ...Object.fromEntries(own), ...extra };
}

/** Runs a command to its end: what it wrote, and its exit code. */
export function run(command, args, { input = '', env = {}, cwd, timeout = 30_000 } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: cleanEnvironment(env), cwd, timeout });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.stdin.on('error', () => {}).end(input);
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** Runs a command of `bugle` to its end. */
export function bugle(args, options) {
  return run(BUGLE, args, options);
}
