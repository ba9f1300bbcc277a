import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';

/** The PostgreSQL that `with_postgres` starts. */
const { POSTGRES_URL } = process.env;

/** Creates a database; its URL. */
export function newDatabase(prefix) {
  const name = `${prefix}_${randomBytes(8).toString('hex')}`;
  query(`${POSTGRES_URL}/postgres`, `CREATE DATABASE ${name}`);
  return `${POSTGRES_URL}/${name}`;
}

/** Executes SQL in one database; what it returns, as text without headings. Fails at the first error. */
export function query(url, sql) {
  const text = execFileSync('psql', [url, '-qAtX', '-v', 'ON_ERROR_STOP=1'], { input: sql, encoding: 'utf8' });
  return text.trim();
}

/** The process whose children are all others of the server. */
export function postmasterPid() {
  return Number(query(`${POSTGRES_URL}/postgres`, "SELECT SPLIT_PART(PG_READ_FILE('postmaster.pid'), E'\\n', 1)"));
}
