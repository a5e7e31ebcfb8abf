import { type Digest, isDigest } from './digest.ts';

/** What a puller's ref says about the blob it is going to write. */
export type PullRef = {
  readonly digest: Digest;
  /** The descriptor kind in front of the digest. Kinds other than these are a caller's own prefix. */
  readonly kind: 'index' | 'manifest' | 'layer' | 'config' | 'attestation' | 'other';
  /** containerd's namespace, the first segment of a backend ref; used for display only. */
  readonly namespace: string;
};

const KINDS = new Set(['index', 'manifest', 'layer', 'config', 'attestation']);

/** Longest ref we accept, in UTF-16 units; refs name directories by hash, so this bounds memory only. */
export const MAX_REF_LENGTH = 4096;

/**
 * Reads a backend ref `<namespace>/<seq>/<kind>-[<name>@]<alg>:<hex>` as containerd's puller makes it
 * (remotes MakeRefKey inside metadata's createKey). Undefined for every other ref: those are plain writes and must
 * start at offset 0. A ref that merely contains a digest somewhere (`convert-uncompress-from-…`, `tar-blobs/…`) does not match.
 */
export function parsePullRef(ref: string): PullRef | undefined {
  if (ref.length > MAX_REF_LENGTH) return undefined;
  const first = ref.indexOf('/');
  const second = ref.indexOf('/', first + 1);
  if (first <= 0 || second < 0) return undefined;
  const match =
    /^(?<kind>[a-z0-9._]+)-(?:[^/@]*(?:\/[^/@]*)*@)?(?<digest>[a-z0-9]+:[0-9a-f]+)$/.exec(
      ref.slice(second + 1),
    );
  const digest = match?.groups?.['digest'];
  const kind = match?.groups?.['kind'];
  if (digest === undefined || kind === undefined || !isDigest(digest)) return undefined;
  return {
    digest,
    kind: KINDS.has(kind) ? (kind as PullRef['kind']) : 'other',
    namespace: ref.slice(0, first),
  };
}
