import { DaemonError } from '../base/errors.ts';
import { type Digest, isDigest } from './digest.ts';

/** Largest manifest we read: 4 MiB, the limit registries and containerd keep (distribution spec, "Pushing Manifests"). */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/** Most layers we follow; overlayfs and containerd stop far below. */
const MAX_LAYERS = 512;

/** Largest blob a descriptor may name, in bytes; the same bound as for pieces. */
const MAX_SIZE_BYTES = 2 ** 40;

/** A blob a manifest names. */
type Descriptor = {
  readonly role: 'config' | 'layer';
  readonly digest: Digest;
  readonly size_bytes: number;
};

/** What a committed manifest leads to: blobs of one image, or an index that names further manifests. */
export type Manifest =
  | { readonly kind: 'image'; readonly blobs: readonly Descriptor[] }
  | { readonly kind: 'index' };

/**
 * Reads an OCI image manifest or index (image spec 1.1) or their Docker schema 2 forms. An image's blobs come in pull order, config first, without
 * repetitions, without empty ones and without layers that registries may not hand out (foreign, non-distributable, or
 * with `urls`). Throws `invalid_argument` for anything else: no JSON, no schema 2, a size or count beyond the limits.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw bad(`it has ${bytes.length} bytes`);
  const top = parseJson(bytes);
  if (!isRecord(top) || top['schemaVersion'] !== 2) throw bad('it is not of schema version 2');
  if (Array.isArray(top['manifests'])) return { kind: 'index' };
  const { config, layers } = top as { config?: unknown; layers?: unknown };
  if (!Array.isArray(layers)) throw bad('it has no layers');
  if (layers.length > MAX_LAYERS) throw bad(`it has ${layers.length} layers`);
  const blobs = new Map<Digest, Descriptor>();
  const add = (descriptor: Descriptor | undefined): void => {
    if (descriptor !== undefined && !blobs.has(descriptor.digest)) {
      blobs.set(descriptor.digest, descriptor);
    }
  };
  add(parseDescriptor(config, 'config'));
  for (const layer of layers as unknown[]) add(parseDescriptor(layer, 'layer'));
  return { kind: 'image', blobs: [...blobs.values()] };
}

function parseDescriptor(value: unknown, role: Descriptor['role']): Descriptor | undefined {
  if (!isRecord(value)) throw bad(`its ${role} descriptor is not an object`);
  const { digest, size, mediaType, urls } = value;
  if (typeof digest !== 'string' || !isDigest(digest)) throw bad(`a ${role} has no valid digest`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw bad(`a ${role} has no valid size`);
  }
  if (size > MAX_SIZE_BYTES) throw bad(`a ${role} has ${size} bytes`);
  const foreign = typeof mediaType === 'string' && /foreign|nondistributable/.test(mediaType);
  if (foreign || (Array.isArray(urls) && urls.length > 0) || size === 0) return undefined;
  // Pieces can be checked one by one with sha256 only; the rare others are pulled as they always were.
  return digest.startsWith('sha256:') ? { role, digest, size_bytes: size } : undefined;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw bad('it is not JSON in UTF-8', cause);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function bad(what: string, cause?: unknown): DaemonError {
  const message = `the manifest cannot be used: ${what}; its layers are not fetched ahead`;
  return new DaemonError('invalid_argument', message, {}, { cause });
}
