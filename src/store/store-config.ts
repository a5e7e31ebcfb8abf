import { join } from 'node:path';

/** What the store needs to know. Paths are absolute; sizes are bytes. */
export type StoreConfig = {
  /** containerd's own `io.containerd.content.v1.content`; its layout is kept exactly. */
  readonly content_directory: string;
  /** Ours alone: labels, cache marks, piece lists. */
  readonly state_directory: string;
  /** Staging and quarantine; on the file system of `content_directory`, because blobs move by rename. */
  readonly work_directory: string;
  /** Where containerd keeps its metadata; looked at (never opened) to tell whether it worked while we were away. */
  readonly metadata_file: string;
  /** Blobs that containerd has deleted are kept for peers up to this sum; 0 = not at all. */
  readonly cache_max_bytes: number;
  /** Free bytes below which nothing is cached, staged or announced. containerd's own writes are still tried. */
  readonly disk_floor_bytes: number;
  /** Blob file handles kept open. */
  readonly open_files_max: number;
  /** Working copies of the pull room at a time. */
  readonly staged_max: number;
  /** Reading rate of the background pass over blobs without a piece list; 0 = unlimited. */
  readonly backfill_bytes_per_second: number;
  /** Make `content_directory` when it is missing. Otherwise that is an error: containerd makes it. */
  readonly create_content_directory: boolean;
};

type Given = Pick<
  StoreConfig,
  'content_directory' | 'state_directory' | 'cache_max_bytes' | 'disk_floor_bytes'
>;

/** The configuration with every number that was not given. */
export function storeConfig(given: Given & Partial<StoreConfig>): StoreConfig {
  return {
    work_directory: join(given.content_directory, '.layerswarm'),
    metadata_file: join(given.content_directory, '../io.containerd.metadata.v1.bolt/meta.db'),
    // A tenth of the soft limit most distributions give; sockets need the rest.
    open_files_max: 256,
    // Images with more layers than this wait for a free place; each costs one file handle and a hash.
    staged_max: 64,
    // Half of what a slow SSD reads: a first start on a full host stays unnoticed.
    backfill_bytes_per_second: 128 * 1024 * 1024,
    create_content_directory: false,
    ...given,
  };
}
