import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..');
const run = promisify(execFile);

/** What an app would write that has installed the package: Node resolves a package's own name by its `exports`. */
async function inNode(program: string): Promise<unknown> {
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program], { cwd: ROOT, timeout: 10_000 });
  return JSON.parse(stdout);
}

test('the built package offers its classes, its hooks and its composables', async () => {
  const program = `
    const names = async (path) => Object.keys(await import(path)).sort();
    console.log(JSON.stringify(await Promise.all(['@bugle/client', '@bugle/client/react', '@bugle/client/vue'].map(names))));
  `;
  expect(await inNode(program)).toEqual([
    ['BugleError', 'Client', 'Conversation', 'Conversations', 'DirectMessages', 'connect', 'webStorage'],
    ['BugleProvider', 'useBugle', 'useConversation', 'useConversations'],
    ['useBugle', 'useConversation', 'useConversations'],
  ]);
});

test('the client needs neither React nor Vue', async () => {
  const files = new Set<string>();
  const visit = (file: string): void => {
    if (files.has(file)) return;
    files.add(file);
    for (const [, next] of readFileSync(join(ROOT, 'dist', file), 'utf8').matchAll(/from '\.\/(.+?)'/g)) visit(next!);
  };
  visit('index.js');
  expect(files.size).toBeGreaterThan(5);
  const sources = [...files].map((file) => readFileSync(join(ROOT, 'dist', file), 'utf8')).join('');
  const packages = [...sources.matchAll(/from '([^.'][^']*)'/g)].map(([, name]) => name);
  expect(new Set(packages)).toEqual(new Set(['socket.io-client']));
});

test('a compiler finds the declarations by the name of each sub-path', async () => {
  const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { exports: Record<string, { types: string }> };
  for (const { types } of Object.values(exports)) expect(readFileSync(join(ROOT, types), 'utf8')).toContain('export');
});
