import { DaemonError } from '../../base/errors.ts';

/** A blob's labels, as containerd's content API knows them. */
export type Labels = Readonly<Record<string, string>>;

/** Longest key + value of one label in bytes: containerd's own limit (labels.Validate). */
const MAX_LABEL_BYTES = 4096;
/** Most labels of one blob. containerd sets no bound; ours keeps a label file below 1 MiB. */
const MAX_LABELS = 256;

/**
 * The labels after an update: wholly replaced, or merged key by key. An empty value removes its key in both modes.
 * `invalid_argument` when a label or their number is beyond its limit.
 */
export function updatedLabels(before: Labels, change: Labels, mode: 'replace' | 'merge'): Labels {
  const labels = new Map(mode === 'merge' ? Object.entries(before) : []);
  for (const [key, value] of Object.entries(change)) {
    if (Buffer.byteLength(key) + Buffer.byteLength(value) > MAX_LABEL_BYTES) {
      throw new DaemonError(
        'invalid_argument',
        `label key and value length (${Buffer.byteLength(key) + Buffer.byteLength(value)} bytes) greater than maximum size (${MAX_LABEL_BYTES} bytes), key: ${key.slice(0, 64)}`,
      );
    }
    if (value === '') labels.delete(key);
    else labels.set(key, value);
  }
  if (labels.size > MAX_LABELS) {
    throw new DaemonError(
      'invalid_argument',
      `a blob may have at most ${MAX_LABELS} labels, not ${labels.size}; remove some`,
      { labels: labels.size },
    );
  }
  return Object.fromEntries(labels);
}
