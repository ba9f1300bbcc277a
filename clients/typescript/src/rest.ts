import { BugleError } from './errors.js';
import type { Tokens } from './tokens.js';

export type HttpMethod = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** The deadline of a request, in milliseconds. */
const REQUEST_TIMEOUT = 10_000;

/** REST requests to the server of the socket, with the same token. */
export class Rest {
  readonly #origin: string;

  constructor(
    url: string,
    private readonly tokens: Tokens,
  ) {
    this.#origin = url.replace(/^ws/, 'http');
  }

  /** Sends a request with the token. Rejects as `fetch` does. */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const token = await this.tokens.next();
    const authorization = /^bearer /i.test(token) ? token : `Bearer ${token}`;
    return fetch(new URL(path, this.#origin), { ...init, headers: { ...init.headers, authorization } });
  }

  /**
   * Sends a request and resolves with the JSON of the answer, or `undefined` if it has no body. Rejects with a `BugleError`: with Bugle's
   * code for a refusal, with `transport` if there was no answer within 10 s.
   */
  async request(method: HttpMethod, path: string, body?: unknown): Promise<unknown> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), REQUEST_TIMEOUT);
    const content = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
    try {
      const answer = await this.fetch(path, { method, signal: late.signal, ...content });
      if (!answer.ok) throw await refusal(method, answer);
      const text = await answer.text();
      return text === '' ? undefined : JSON.parse(text);
    } catch (cause) {
      if (cause instanceof BugleError) throw cause;
      throw new BugleError('transport', `${method} ${path} has failed`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }
}

async function refusal(method: HttpMethod, answer: Response): Promise<BugleError> {
  const { error } = ((await answer.json().catch(() => undefined)) ?? {}) as { error?: { code?: string; message?: string } };
  const seconds = Number(answer.headers.get('retry-after') ?? NaN);
  return new BugleError(
    error?.code ?? `http_${answer.status}`,
    error?.message ?? `${method} ${new URL(answer.url).pathname} was answered with ${answer.status}`,
    Number.isFinite(seconds) ? { retryAfter: seconds * 1_000 } : {},
  );
}
