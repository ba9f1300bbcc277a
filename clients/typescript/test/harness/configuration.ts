import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import jwt from 'jsonwebtoken';

/** Values of a TOML file. */
type Toml = string | number | boolean | Toml[] | { [key: string]: Toml };
export type Keys = Record<string, Toml>;

/** A configuration file as a user writes it, and the secrets in it. */
export class Configuration {
  readonly apiKey = randomBytes(24).toString('hex');
  readonly #secret = randomBytes(24).toString('hex');
  readonly directory = mkdtempSync(join(tmpdir(), 'bugle-typescript-'));
  readonly path = join(this.directory, 'bugle.toml');

  constructor(keys: Keys) {
    this.write(keys);
  }

  /** With these keys besides what is needed, such as `{ 'auth.expiring_notice': '5s' }`. */
  write(keys: Keys): void {
    const all: Keys = {
      'clients.listen': '127.0.0.1:0',
      'grpc.listen': '127.0.0.1:0',
      'grpc.api_keys': [{ name: 'tests', key: this.apiKey, scopes: ['emit', 'presence', 'rooms', 'disconnect'] }],
      'admin.listen': '127.0.0.1:0',
      'auth.jwt.keys': [{ algorithm: 'HS256', secret: this.#secret }],
      'log.format': 'json',
      ...keys,
    };
    writeFileSync(this.path, Object.entries(all).map(([key, value]) => `${key} = ${toml(value)}\n`).join(''));
  }

  /** A token as an application's own login service signs it; good for an hour, or so many seconds and what is left of this one. */
  token(user: string, seconds = 3_600): string {
    const jti = randomBytes(8).toString('hex');
    const exp = Math.ceil(Date.now() / 1_000) + seconds;
    return jwt.sign({ sub: user, jti, exp }, this.#secret, { algorithm: 'HS256' });
  }

  remove(): void {
    rmSync(this.directory, { recursive: true });
  }
}

function toml(value: Toml): string {
  if (Array.isArray(value)) return `[${value.map(toml).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  return `{ ${Object.entries(value).map(([key, entry]) => `${key} = ${toml(entry)}`).join(', ')} }`;
}
