/** A state with listeners. The state is an object that is replaced on each change. */
export abstract class Observable<State> {
  readonly #listeners = new Set<() => void>();
  #state: State | undefined;

  get state(): State {
    this.#state ??= this.snapshot();
    return this.#state;
  }

  /** Calls the listener whenever the state has changed; the function that is returned ends that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  protected abstract snapshot(): State;

  protected changed(): void {
    this.#state = undefined;
    for (const listener of [...this.#listeners]) listener();
  }
}
