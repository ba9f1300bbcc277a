/** A token, or a function that gives a fresh one each time it is asked. */
export type Token = string | (() => string | Promise<string>);

/** Where tokens come from. */
export class Tokens {
  #source: Token;
  /** Given by hand beside a function: used once, in place of asking. */
  #given: string | undefined;

  constructor(source: Token) {
    this.#source = source;
  }

  /** Whether a fresh token can be asked for. */
  get canBeAsked(): boolean {
    return typeof this.#source === 'function';
  }

  give(token: string): void {
    if (typeof this.#source === 'string') this.#source = token;
    else this.#given = token;
  }

  /** Bugle refused a token that was given by hand: the one before is used again. */
  withdraw(token: string, before: string): void {
    if (this.#source === token) this.#source = before;
  }

  async next(): Promise<string> {
    const given = this.#given;
    this.#given = undefined;
    if (given !== undefined) return given;
    return typeof this.#source === 'string' ? this.#source : await this.#source();
  }

  /** A token that was given by hand and is not the one in use. */
  givenBeside(used: string | undefined): string | undefined {
    const given = typeof this.#source === 'string' ? this.#source : this.#given;
    this.#given = undefined;
    return given === used ? undefined : given;
  }
}
