import { DaemonError } from '../../base/errors.ts';
import { algorithmOf, type Digest } from '../../oci/digest.ts';
import { type LocalCatalog, missing } from '../blobs/blob-catalog.ts';
import { NO_LABELS } from '../blobs/blob-index.ts';
import { type Labels, updatedLabels } from '../blobs/labels.ts';
import type { BlobInfo } from '../blob-store.ts';
import type { IngestLedger, IngestRecord } from './ingest-ledger.ts';

/** What the committer says; 0 and '' mean "not said". */
export type CommitWant = {
  readonly size_bytes: number;
  readonly expected: Digest | '';
  readonly labels: Labels;
};

type Modules = {
  readonly catalog: LocalCatalog;
  readonly ledger: IngestLedger;
  /** Hashes in the algorithm of `expected`, and if that agrees publishes the ingest's own bytes. The digest found. */
  readonly publish: (expected: Digest | '') => Promise<Digest>;
  /** The same for an ingest that is published under another algorithm: the only commit that reads bytes again. */
  readonly publishAnew: (expected: Digest) => Promise<Digest>;
  readonly empty: () => Promise<void>;
};

/**
 * The commit of an ingest; errors and effects as `Ingest.commit` says. containerd's transaction waits for it: what has reached its
 * announced total or digest was published before, so that this is memory and one rename of the empty ingest.
 */
export async function commitIngest(
  m: Modules,
  record: IngestRecord,
  want: CommitWant,
): Promise<BlobInfo> {
  const labels = updatedLabels(NO_LABELS, want.labels, 'replace');
  const { offset_bytes } = record.status();
  if (want.size_bytes > 0 && want.size_bytes !== offset_bytes) {
    throw new DaemonError(
      'failed_precondition',
      `unexpected commit size ${offset_bytes}, expected ${want.size_bytes}`,
      { ref: record.ref },
    );
  }
  const isHeld = record.held !== undefined;
  const digest = await contentDigest(m, record, want.expected);
  if (want.expected !== '' && want.expected !== digest) {
    // With all of its bytes there, a puller would commit the same wrong bytes at every retry. A writer that never said
    // how much it would write is no puller: like containerd's store we keep its bytes.
    if (isHeld || record.total_bytes > 0) await m.empty();
    throw new DaemonError(
      'failed_precondition',
      `unexpected commit digest ${digest}, expected ${want.expected}`,
      { ref: record.ref },
    );
  }
  const entry = record.held;
  if (entry === undefined || m.catalog.intact(digest) !== entry) return missing(digest);
  if (entry.state === 'owned') {
    m.ledger.drop(record);
    throw new DaemonError('already_exists', `content ${digest}: already exists`, { digest });
  }
  // Owned before the pin goes: it must not leave `blobs/` in between.
  const info = m.catalog.own(entry);
  m.ledger.drop(record);
  return Object.keys(labels).length === 0
    ? info
    : await m.catalog.update(digest, labels, 'replace');
}

async function contentDigest(
  m: Modules,
  record: IngestRecord,
  expected: Digest | '',
): Promise<Digest> {
  const held = record.held?.digest;
  if (held === undefined) return await m.publish(expected);
  if (expected === '' || algorithmOf(expected) === algorithmOf(held)) return held;
  return await m.publishAnew(expected);
}
