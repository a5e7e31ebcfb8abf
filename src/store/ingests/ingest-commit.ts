import * as fs from 'node:fs';
import { DaemonError } from '../../base/errors.ts';
import {
  algorithmOf,
  createHasher,
  type Digest,
  EMPTY_SHA256,
  runningDigest,
} from '../../oci/digest.ts';
import { missing } from '../blobs/blob-catalog.ts';
import { type BlobEntry, NO_LABELS } from '../blobs/blob-index.ts';
import type { BlobInfo } from '../blob-store.ts';
import { breathe, closeFile, readAt } from '../disk/descriptor.ts';
import type { IngestModules, LocalIngests } from './ingest-area.ts';
import type { IngestRecord } from './ingest-record.ts';
import { type Labels, updatedLabels } from '../blobs/labels.ts';
import { HASH_SLICE_BYTES } from '../disk/prefix-hash.ts';

/** What the committer says; 0 and '' mean "not said". */
export type CommitWant = {
  readonly size_bytes: number;
  readonly expected: Digest | '';
  readonly labels: Labels;
};

type Modules = Pick<IngestModules, 'catalog' | 'chores' | 'index' | 'placement'> & {
  readonly ingests: LocalIngests;
  /** Brings the data to the disk, unless it is there. */
  readonly sync: () => Promise<void>;
  readonly empty: () => Promise<void>;
};

/** The commit of an ingest; errors and effects as `Ingest.commit` says. */
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
  const adopted = record.adopted;
  const digest = adopted?.digest ?? (await contentDigest(record, want.expected));
  if (want.expected !== '' && want.expected !== digest) {
    // With all of its bytes there, a puller would commit the same wrong bytes at every retry. A writer that never said
    // how much it would write is no puller: like containerd's store we keep its bytes.
    if (adopted !== undefined || record.total_bytes > 0) await m.empty();
    throw new DaemonError(
      'failed_precondition',
      `unexpected commit digest ${digest}, expected ${want.expected}`,
      { ref: record.ref },
    );
  }
  const present = m.catalog.intact(digest);
  if (present !== undefined) return await commitPresent(m, record, present, labels);
  if (adopted !== undefined) return missing(digest);
  await m.sync();
  const pieces = record.hash?.pieceDigests();
  const { durable } = m.placement.place(record.data, digest);
  m.chores.start('name of a committed blob not synced', () => durable);
  m.ingests.drop(record);
  return await m.catalog.enter({
    digest,
    size_bytes: offset_bytes,
    state: 'owned',
    labels,
    pieces,
  });
}

/** The blob is here already: a cache blob becomes owned, and of an owned one containerd wants to be told. */
async function commitPresent(
  m: Modules,
  record: IngestRecord,
  present: BlobEntry,
  labels: Labels,
): Promise<BlobInfo> {
  const wasOwned = present.state === 'owned';
  // Owned before the pin goes: nothing may evict it in between.
  const info = wasOwned ? undefined : m.catalog.adopt(present.digest);
  m.ingests.drop(record);
  if (info !== undefined) return await m.catalog.promote(present, 'owned', labels);
  throw new DaemonError('already_exists', `content ${present.digest}: already exists`, {
    digest: present.digest,
  });
}

/** sha256 comes from the running hash. Other algorithms are hashed here, as containerd does: no digest is known before. */
async function contentDigest(record: IngestRecord, expected: Digest | ''): Promise<Digest> {
  await record.catchUp();
  if (expected === '' || algorithmOf(expected) === 'sha256') {
    return record.offset_bytes === 0 ? EMPTY_SHA256 : (record.hash?.digest() ?? EMPTY_SHA256);
  }
  const hasher = createHasher(algorithmOf(expected));
  const fd = fs.openSync(record.data, 'r');
  try {
    for (let at = 0; at < record.offset_bytes; ) {
      const bytes = await readAt(fd, Math.min(HASH_SLICE_BYTES, record.offset_bytes - at), at);
      if (bytes.length === 0) break;
      hasher.update(bytes);
      at += bytes.length;
      await breathe();
    }
  } finally {
    await closeFile(fd);
  }
  return runningDigest(algorithmOf(expected), hasher);
}
