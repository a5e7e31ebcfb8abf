import { isDigest } from '../../oci/digest.ts';

/** Most entries of an index or layers of a manifest that are followed. */
const ENTRIES_MAX = 1_024;

/** A blob that an image names. */
export type TreeBlob = {
  readonly role: 'index' | 'manifest' | 'config' | 'layer';
  readonly digest: string;
  readonly size_bytes: number;
};

/** An entry of an index with the platform it is for, as `linux/arm64`; '' when it names none. */
export type IndexEntry = TreeBlob & { readonly platform: string };

/** What a manifest or an index leads to; `other` for forms that name no blobs, such as schema 1. */
export type TreeNode =
  | { readonly kind: 'index'; readonly entries: readonly IndexEntry[] }
  | { readonly kind: 'manifest'; readonly blobs: readonly TreeBlob[] }
  | { readonly kind: 'other' };

/** Reads an OCI or Docker schema 2 manifest or index. Entries without a valid digest are left out: containerd cannot hold them. */
export function parseTree(bytes: Uint8Array): TreeNode {
  let top: unknown;
  try {
    top = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return { kind: 'other' };
  }
  if (!isRecord(top)) return { kind: 'other' };
  if (Array.isArray(top['manifests'])) {
    const entries = (top['manifests'] as unknown[]).slice(0, ENTRIES_MAX).flatMap((entry) => {
      const blob = blobOf(entry, 'manifest');
      return blob === undefined ? [] : [{ ...blob, platform: platformOf(entry) }];
    });
    return { kind: 'index', entries };
  }
  if (!Array.isArray(top['layers'])) return { kind: 'other' };
  const config = blobOf(top['config'], 'config');
  const layers = (top['layers'] as unknown[])
    .slice(0, ENTRIES_MAX)
    .flatMap((layer) => blobOf(layer, 'layer') ?? []);
  return { kind: 'manifest', blobs: config === undefined ? layers : [config, ...layers] };
}

/** The platform of this machine in the words of the image spec. */
export function hostPlatform(arch: string = process.arch): string {
  const names: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };
  return `linux/${names[arch] ?? arch}`;
}

/**
 * The entries of an index that this host uses: those for its platform that containerd has a record of; where it has
 * none (pulled for another platform), every entry it has a record of.
 */
export function chooseEntries(
  entries: readonly IndexEntry[],
  platform: string,
  is_known: (digest: string) => boolean,
): readonly IndexEntry[] {
  const known = entries.filter((entry) => is_known(entry.digest));
  const own = known.filter((entry) => entry.platform === platform);
  return own.length > 0 ? own : known;
}

function blobOf(value: unknown, role: TreeBlob['role']): TreeBlob | undefined {
  if (!isRecord(value)) return undefined;
  const { digest, size, mediaType } = value;
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined;
  const is_index = typeof mediaType === 'string' && /index|manifest\.list/.test(mediaType);
  return { role: role === 'manifest' && is_index ? 'index' : role, digest, size_bytes: size };
}

function platformOf(entry: unknown): string {
  const platform = isRecord(entry) ? entry['platform'] : undefined;
  if (!isRecord(platform)) return '';
  const { os, architecture } = platform;
  return typeof os === 'string' && typeof architecture === 'string' ? `${os}/${architecture}` : '';
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
