/** Runs pieces of work one after another in the order they were given. Waiters are bounded by the callers. */
export class Serial {
  #tail: Promise<unknown> = Promise.resolve();

  /** Result or failure of `work`; a failure does not stop what comes after. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}
