import { DaemonError } from '../base/errors.ts';
import type { BlobInfo, IngestStatus } from '../store/blob-store.ts';
import type { FieldReader } from './filter.ts';
import {
  type InfoMessage,
  type Labels,
  type StatusMessage,
  toTimestamp,
  type UpdateRequest,
} from './messages.ts';

const LABEL_PATH = 'labels.';

/** A blob as containerd wants to see it. */
export function toInfoMessage(info: BlobInfo): InfoMessage {
  return {
    digest: info.digest,
    size: info.size_bytes,
    createdAt: toTimestamp(info.created_ns),
    updatedAt: toTimestamp(info.updated_ns),
    labels: info.labels,
  };
}

/** An ingest as containerd wants to see it; `progress_bytes` of a waiting pull count as if they were there. */
export function toStatusMessage(status: IngestStatus, progress_bytes: number): StatusMessage {
  const seen = status.total_bytes > 0 ? Math.min(progress_bytes, status.total_bytes) : 0;
  return {
    startedAt: toTimestamp(status.started_ns),
    updatedAt: toTimestamp(status.updated_ns),
    ref: status.ref,
    offset: Math.max(status.offset_bytes, seen),
    total: status.total_bytes,
    expected: status.expected,
  };
}

/** What filters may ask of a blob: `digest`, `size` and `labels.<key>`, whose key may hold dots. */
export function infoFields(info: BlobInfo): FieldReader {
  return ([first, ...rest]) => {
    if (first === 'labels') {
      const key = rest.join('.');
      return Object.hasOwn(info.labels, key) ? info.labels[key] : undefined;
    }
    if (rest.length > 0) return undefined;
    if (first === 'digest') return info.digest;
    return first === 'size' ? String(info.size_bytes) : undefined;
  };
}

/** What filters may ask of an ingest: `ref`. */
export function statusFields(status: IngestStatus): FieldReader {
  return (path) => (path.length === 1 && path[0] === 'ref' ? status.ref : undefined);
}

/**
 * The label change a field mask asks for: none or `labels` replaces them all, `labels.<key>` sets one, or removes it when the
 * request has no value for it. `invalid_argument` for any other path, since nothing else of a blob can change.
 */
export function labelChange(
  labels: Labels,
  updateMask: UpdateRequest['updateMask'],
  digest: string,
): { readonly labels: Labels; readonly mode: 'replace' | 'merge' } {
  const paths = updateMask?.paths ?? [];
  const picked = new Map<string, string>();
  let all = paths.length === 0;
  for (const path of paths) {
    if (path === 'labels') all = true;
    else if (path.startsWith(LABEL_PATH)) {
      const key = path.slice(LABEL_PATH.length);
      picked.set(key, Object.hasOwn(labels, key) ? (labels[key] ?? '') : '');
    } else {
      throw new DaemonError(
        'invalid_argument',
        `cannot update ${JSON.stringify(path.slice(0, 80))} field on content info ${JSON.stringify(digest)}`,
      );
    }
  }
  return all ? { labels, mode: 'replace' } : { labels: Object.fromEntries(picked), mode: 'merge' };
}
