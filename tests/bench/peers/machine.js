import { cpus, release, type } from 'node:os';
import { fileURLToPath } from 'node:url';

import { BUGLE, run } from '../../clients/harness/binary.js';
import { NGINX } from './nchan.js';

const PYTHON = fileURLToPath(new URL('python/.venv/bin/python', import.meta.url));

/** On what, of what and when it was measured, as texts. */
export async function machine() {
  const processors = cpus();
  const system = `${type()} ${release().split('.').slice(0, 2).join('.')}`;
  const [bugle, python, nginx] = await Promise.all([version(BUGLE), version(PYTHON), nginxVersion()]);
  const node = process.version.replace('v', 'Node ');
  return {
    hardware: `${processors.length} cores (${processors[0].model.trim()}), ${system}`,
    software: [bugle.replace('bugle', 'Bugle'), node, python, nginx].join(', '),
    date: new Date().toISOString().slice(0, 10),
  };
}

async function version(command) {
  const { stdout } = await run(command, ['--version']);
  return stdout.trim();
}

async function nginxVersion() {
  const { stderr } = await run(NGINX, ['-v']);
  return stderr.trim().replace('nginx version: nginx/', 'nginx ');
}
