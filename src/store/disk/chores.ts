import type { Logger } from '../../ops/logger.ts';

/** Small file work that nobody waits for: removal of what was put aside, saving of piece lists. Closing the store waits for it. */
export class Chores {
  readonly #logger: Logger;
  readonly #running = new Set<Promise<void>>();

  constructor(modules: { logger: Logger }) {
    this.#logger = modules.logger;
  }

  /** Starts `work`; its failure is logged as a warning under `what`. Each blob or ingest adds at most a few. */
  start(what: string, work: () => Promise<void>): void {
    const chore = work()
      .catch((err: unknown) => this.#logger.warn({ err }, what))
      .finally(() => this.#running.delete(chore));
    this.#running.add(chore);
  }

  /** Resolves when nothing is running. */
  async finished(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
