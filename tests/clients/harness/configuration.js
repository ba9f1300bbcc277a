import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import jwt from 'jsonwebtoken';

const ALL_SCOPES = ['emit', 'presence', 'rooms', 'disconnect'];

/** A configuration file as a user writes it, and the secrets in it. */
export class Configuration {
  apiKey = randomBytes(24).toString('hex');
  secret = randomBytes(24).toString('hex');
  #directory = mkdtempSync(join(tmpdir(), 'bugle-clients-'));
  path = join(this.#directory, 'bugle.toml');
  /** Where its server runs: what that keeps in a file of a relative name is there. */
  directory = this.#directory;

  /** With these keys besides what is needed, such as `{ 'drain.pace': 10 }`. */
  constructor(keys = {}) {
    this.write(keys);
  }

  write(keys) {
    const all = {
      'clients.listen': '127.0.0.1:0',
      'grpc.listen': '127.0.0.1:0',
      'grpc.api_keys': [{ name: 'tests', key: this.apiKey, scopes: ALL_SCOPES }],
      'admin.listen': '127.0.0.1:0',
      'auth.jwt.keys': [{ algorithm: 'HS256', secret: this.secret }],
      'log.format': 'json',
      ...keys,
    };
    const lines = Object.entries(all).map(([key, value]) => `${key} = ${toml(value)}\n`);
    writeFileSync(this.path, lines.join(''));
  }

  /** A token as an application's own login service signs it. */
  token(user, claims = {}, expiresIn = '1h') {
    return jwt.sign({ sub: user, ...claims }, this.secret, { algorithm: 'HS256', expiresIn });
  }

  remove() {
    rmSync(this.#directory, { recursive: true });
  }
}

function toml(value) {
  if (Array.isArray(value)) return `[${value.map(toml).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  const pairs = Object.entries(value).map(([key, entry]) => `${key} = ${toml(entry)}`);
  return `{ ${pairs.join(', ')} }`;
}
