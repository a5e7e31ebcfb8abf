import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../../base/errors.ts';
import { isDigest } from '../../oci/digest.ts';
import type { BlobDoor, BlobProbe } from './context.ts';
import { chooseEntries, hostPlatform, parseTree, type TreeBlob } from './image-tree.ts';

/** Largest manifest that is read, as registries and containerd have it. */
const MANIFEST_MAX_BYTES = 4 * 1024 * 1024;
/** Indexes within indexes; one level is usual. */
const DEPTH_MAX = 3;

/** An image as containerd lists it. */
export type ImageRow = {
  readonly namespace: string;
  readonly name: string;
  readonly target: string;
  /** containerd's own verdict (`ctr images check`), such as `complete (7/7)` or `error`. */
  readonly status: string;
};

/** A blob that cannot be read as it should. */
type BlobProblem = {
  readonly role: string;
  readonly digest: string;
  readonly problem: string;
};

/** What walking one image gave. */
export type WalkedImage = ImageRow & {
  readonly problems: readonly BlobProblem[];
  /** Layers containerd has no record of: it discarded them after unpacking, or never fetched them. */
  readonly discarded: number;
  /** Nothing for this host's platform is here. */
  readonly is_foreign: boolean;
};

/** A blob that containerd knows it does not have: a pull fetches it. */
export const NO_RECORD = 'containerd has no record of it';

/** Length of a blob's file in the content directory, or why there is none. */
type OnDisk = number | 'missing' | `unreadable: ${string}`;

/**
 * Follows images from their target to the last layer: every blob containerd has a record of is asked for at the
 * daemon's content door, its last byte read, and its file looked at. Each blob once, however many images share it.
 */
export class ImageWalk {
  readonly #door: BlobDoor;
  readonly #content_directory: string;
  readonly #problems = new Map<string, Promise<string | undefined>>();

  constructor(modules: { door: BlobDoor }, config: { content_directory: string }) {
    this.#door = modules.door;
    this.#content_directory = config.content_directory;
  }

  /** Blobs looked at so far. */
  get blobs(): number {
    return this.#problems.size;
  }

  /** Walks one image; `known` are the digests containerd has a record of in its namespace. */
  async walk(row: ImageRow, known: ReadonlySet<string>, signal: AbortSignal): Promise<WalkedImage> {
    const found = { problems: [] as BlobProblem[], discarded: 0, manifests: 0, own: 0 };
    const add = ({ role, digest }: TreeBlob, problem: string): void => {
      found.problems.push({ role, digest, problem });
    };
    const visit = async (blob: TreeBlob, depth: number): Promise<void> => {
      signal.throwIfAborted();
      if (!known.has(blob.digest)) {
        if (blob.role === 'layer') found.discarded += 1;
        else add(blob, NO_RECORD);
        return;
      }
      const problem = await this.#problemOf(blob, signal);
      if (problem !== undefined) {
        add(blob, problem);
        return;
      }
      if (blob.role === 'layer' || blob.role === 'config') return;
      const node = parseTree(await this.#door.read(blob.digest, MANIFEST_MAX_BYTES, signal));
      if (node.kind === 'manifest') {
        found.manifests += 1;
        for (const part of node.blobs) await visit(part, depth + 1);
      }
      if (node.kind !== 'index' || depth >= DEPTH_MAX) return;
      const chosen = chooseEntries(node.entries, hostPlatform(), (digest) => known.has(digest));
      const own = chosen.filter((entry) => entry.platform === hostPlatform());
      // An index whose entries name no platform is for whoever takes it.
      if (own.length > 0 || chosen.some((entry) => entry.platform === '')) found.own += 1;
      else found.own -= 1;
      for (const entry of chosen) await visit(entry, depth + 1);
    };
    // Its size is not told by the list; what the store says is taken.
    await visit({ role: 'manifest', digest: row.target, size_bytes: -1 }, 0);
    const { problems, discarded, own } = found;
    return { ...row, problems, discarded, is_foreign: own < 0 };
  }

  #problemOf(blob: TreeBlob, signal: AbortSignal): Promise<string | undefined> {
    const seen = this.#problems.get(blob.digest);
    if (seen !== undefined) return seen;
    const looked = Promise.all([
      this.#door.probe(blob.digest, signal),
      onDisk(this.#content_directory, blob.digest),
    ]).then(([probe, disk]) => blobProblem(blob.size_bytes, probe, disk));
    this.#problems.set(blob.digest, looked);
    return looked;
  }
}

/** Why a blob cannot be used, or undefined; `size_bytes` -1 = not known. */
export function blobProblem(
  size_bytes: number,
  probe: BlobProbe,
  disk: OnDisk,
): string | undefined {
  if (probe.kind === 'missing') return 'the daemon does not have it';
  if (probe.kind === 'unreadable') return `the daemon cannot read it (${probe.why})`;
  if (size_bytes >= 0 && probe.size_bytes !== size_bytes) {
    return `it has ${probe.size_bytes} bytes in place of ${size_bytes}`;
  }
  if (disk === 'missing') return 'its file is gone from the content directory';
  if (typeof disk === 'string') return `its file is ${disk}`;
  if (disk !== probe.size_bytes)
    return `its file has ${disk} bytes in place of ${probe.size_bytes}`;
  return undefined;
}

async function onDisk(content_directory: string, digest: string): Promise<OnDisk> {
  if (!isDigest(digest)) return 'missing';
  try {
    return (await stat(join(content_directory, 'blobs', digest.replace(':', '/')))).size;
  } catch (error) {
    const errno = errnoOf(error) ?? 'unknown';
    return errno === 'ENOENT' ? 'missing' : `unreadable: ${errno}`;
  }
}

/** Rows of `ctr images check`: REF TYPE DIGEST STATUS SIZE UNPACKED; names have no spaces. */
export function parseImages(output: string, namespace: string): ImageRow[] {
  return output
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const found =
        /^(\S+)\s+\S+\s+((?:sha256|sha384|sha512):[0-9a-f]+)\s+(\S+(?: \([^)]*\))?)/.exec(line);
      const [, name, target, status] = found ?? [];
      if (name === undefined || target === undefined || status === undefined) return [];
      return isDigest(target) ? [{ namespace, name, target, status }] : [];
    });
}
