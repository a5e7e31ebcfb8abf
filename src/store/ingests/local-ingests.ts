import { DaemonError } from '../../base/errors.ts';
import { MAX_REF_LENGTH } from '../../oci/ingest-ref.ts';
import type { IngestArea, IngestStatus } from '../blob-store.ts';
import { IngestLedger, type LedgerModules, type OpenIngest } from './ingest-ledger.ts';
import { type IngestModules, LocalIngest } from './local-ingest.ts';

/** All ingests, in memory and on disk. Opening, status and abort touch neither the network nor existing bytes. */
export class LocalIngests implements IngestArea {
  readonly #m: IngestModules;

  constructor(modules: LedgerModules) {
    this.#m = { ...modules, ledger: new IngestLedger(modules) };
  }

  ingest(ref: string, options: OpenIngest): Promise<LocalIngest> {
    return new Promise((resolve) => {
      if (ref === '' || ref.length > MAX_REF_LENGTH) {
        throw new DaemonError('invalid_argument', `a ref has 1 to ${MAX_REF_LENGTH} characters`);
      }
      resolve(new LocalIngest(this.#m, this.#m.ledger.open(ref, options)));
    });
  }

  status(ref: string): IngestStatus | undefined {
    return this.#m.ledger.get(ref)?.status();
  }

  *statuses(): Iterable<IngestStatus> {
    for (const record of this.#m.ledger.all()) yield record.status();
  }

  abort(ref: string): Promise<void> {
    return new Promise((resolve) => {
      const { ledger, catalog } = this.#m;
      const record = ledger.get(ref);
      const held = record?.held;
      if (record !== undefined) ledger.drop(record);
      if (held !== undefined) catalog.abandon(held);
      resolve();
    });
  }

  /** Hashes the ingests found at start, in the background, until done or the signal fires. */
  rehash(signal: AbortSignal): Promise<void> {
    return this.#m.ledger.rehash(signal);
  }
}
