import { DaemonError, hasCode } from '../../base/errors.ts';
import type { BlobDoor } from '../doctor/context.ts';
import { parseTree } from '../doctor/image-tree.ts';
import type { ContainerdDoor } from './containerd-door.ts';

/** Images followed in one namespace, and blobs in one image. */
const IMAGES_MAX = 1_000;
const BLOBS_MAX = 4_096;
const MANIFEST_MAX_BYTES = 4 * 1024 * 1024;

type Modules = {
  readonly containerd: Pick<ContainerdDoor, 'images'>;
  readonly door: Pick<BlobDoor, 'read'>;
};

/** Which images of a namespace are made of a blob: as far as their indexes and manifests can still be read. */
export class LostImages {
  readonly #m: Modules;
  /** What each index or manifest leads to. */
  readonly #children = new Map<string, Promise<readonly string[]>>();

  constructor(modules: Modules) {
    this.#m = modules;
  }

  /** Names of the images, by digest of what they lost. */
  async using(
    namespace: string,
    lost: readonly string[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, readonly string[]>> {
    const found = new Map<string, string[]>(lost.map((digest) => [digest, []]));
    const images = await this.#m.containerd.images(namespace, signal);
    for (const { name, target } of images.slice(0, IMAGES_MAX)) {
      for (const digest of await this.#blobsOf(target, signal)) found.get(digest)?.push(name);
    }
    return found;
  }

  async #blobsOf(target: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
    const seen = new Set([target]);
    for (const digest of seen) {
      if (seen.size > BLOBS_MAX) break;
      for (const child of await this.#childrenOf(digest, signal)) seen.add(child);
    }
    return seen;
  }

  #childrenOf(digest: string, signal: AbortSignal): Promise<readonly string[]> {
    const known = this.#children.get(digest);
    if (known !== undefined) return known;
    const children = this.#read(digest, signal);
    this.#children.set(digest, children);
    return children;
  }

  async #read(digest: string, signal: AbortSignal): Promise<readonly string[]> {
    let bytes: Uint8Array;
    try {
      bytes = await this.#m.door.read(digest, MANIFEST_MAX_BYTES, signal);
    } catch (error) {
      // A lost manifest names nothing any more, and layers are larger than any manifest.
      if (error instanceof DaemonError && !hasCode(error, 'unavailable', 'cancelled')) return [];
      throw error;
    }
    const node = parseTree(bytes);
    if (node.kind === 'other') return [];
    const blobs = node.kind === 'index' ? node.entries : node.blobs;
    // Layers lead nowhere: they are named here and never read.
    for (const { role, digest: leaf } of blobs) {
      if (role === 'layer' || role === 'config') this.#children.set(leaf, Promise.resolve([]));
    }
    return blobs.map((blob) => blob.digest);
  }
}
