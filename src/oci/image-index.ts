import { DaemonError } from '../base/errors.ts';
import { type Digest, isDigest } from './digest.ts';
import { MAX_MANIFEST_BYTES } from './manifest.ts';

/** Most manifests of an index that are looked at; the largest public ones have some dozens. */
const MAX_ENTRIES = 1024;

/** A processor and operating system, as an index names them. */
export type Platform = {
  readonly os: string;
  readonly architecture: string;
  /** Of the architecture: `v8`; undefined = any. */
  readonly variant: string | undefined;
};

/** A manifest that an index names. */
export type IndexEntry = {
  readonly digest: Digest;
  readonly size_bytes: number;
  readonly platform: Platform | undefined;
};

/** Node's names of processors in Go's words. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };

/** The platform this program runs on. */
export function ownPlatform(): Platform {
  const { arch } = process;
  return { os: 'linux', architecture: ARCHITECTURES[arch] ?? arch, variant: undefined };
}

/** Reads `os/architecture[/variant]`. `invalid_argument` for anything else. */
export function parsePlatform(text: string): Platform {
  const match = /^([a-z0-9]{1,32})\/([a-z0-9_]{1,32})(?:\/([a-z0-9.]{1,32}))?$/.exec(text);
  const [, os, architecture, variant] = match ?? [];
  if (os === undefined || architecture === undefined) {
    throw new DaemonError(
      'invalid_argument',
      `"${text.slice(0, 80)}" is no platform; expected OS/ARCHITECTURE[/VARIANT], such as linux/amd64`,
    );
  }
  return { os, architecture, variant };
}

/** The platform in the words of `parsePlatform`. */
export function renderPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
}

/**
 * Reads an OCI image index (or Docker manifest list). Entries without a valid digest and size are left out: they name nothing that could
 * be fetched. `invalid_argument` when it is no index at all.
 */
export function parseIndex(bytes: Uint8Array): readonly IndexEntry[] {
  const manifests = bytes.length > MAX_MANIFEST_BYTES ? undefined : fieldsOf(bytes)['manifests'];
  if (!Array.isArray(manifests)) {
    throw new DaemonError('invalid_argument', 'this is no image index: it names no manifests');
  }
  return (manifests as unknown[]).slice(0, MAX_ENTRIES).flatMap((value) => {
    if (!isRecord(value)) return [];
    const { digest, size, platform } = value;
    if (typeof digest !== 'string' || !isDigest(digest)) return [];
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return [];
    return [{ digest, size_bytes: size, platform: platformOf(platform) }];
  });
}

/** The first entry for a platform; a variant counts only where one is asked for. */
export function chooseEntry(
  entries: readonly IndexEntry[],
  { os, architecture, variant }: Platform,
): IndexEntry | undefined {
  return entries.find(
    ({ platform: p }) =>
      p?.os === os &&
      p.architecture === architecture &&
      (variant === undefined || p.variant === variant),
  );
}

function platformOf(value: unknown): Platform | undefined {
  if (!isRecord(value)) return undefined;
  const { os, architecture, variant } = value;
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined;
  return { os, architecture, variant: typeof variant === 'string' ? variant : undefined };
}

function fieldsOf(bytes: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    return isRecord(value) ? value : {};
  } catch {
    // No JSON: no index either, which the caller says.
    return {};
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
