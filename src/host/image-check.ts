import { createHash } from 'node:crypto';
import type { RunProgram } from './run-program.ts';

/** Most namespaces and images that are looked at; a host has a handful of the one and some hundreds of the other. */
const NAMESPACES_MAX = 64;
const IMAGES_MAX = 512;
/** Longest time for one answer of `ctr`, in ms. */
const CTR_DEADLINE_MS = 60_000;

/** A client of one containerd socket: runs `ctr` with these arguments. */
export type Ctr = (args: readonly string[], signal: AbortSignal) => ReturnType<RunProgram>;

/** `ctr` of this containerd, speaking to its socket. */
export function ctrOf(run: RunProgram, binary: string, socket: string): Ctr {
  return (args, signal) =>
    run([binary, '--address', socket, ...args], { signal, deadline_ms: CTR_DEADLINE_MS });
}

/** What containerd can say about its images: by `namespace name`, the digest and how complete it is. */
export type ImageSnapshot = ReadonlyMap<string, string>;

/**
 * Every image that containerd knows, with the answer of `ctr images check` (all its blobs are there) and whether the bytes
 * behind its digest were really read and are right. Bounded; empty where there is no image.
 */
export async function snapshotImages(ctr: Ctr, signal: AbortSignal): Promise<ImageSnapshot> {
  const found = new Map<string, string>();
  const { stdout } = await ctr(['namespaces', 'ls', '-q'], signal);
  const namespaces = stdout.split('\n').filter((line) => line.trim() !== '');
  for (const namespace of namespaces.slice(0, NAMESPACES_MAX)) {
    const checked = await ctr(['-n', namespace, 'images', 'check'], signal);
    for (const image of parseImages(checked.stdout)) {
      if (found.size >= IMAGES_MAX) return found;
      const { name, digest, status } = image;
      const read = await isReadable(ctr, namespace, digest, signal);
      found.set(`${namespace} ${name}`, `${digest} ${status}${read ? ' readable' : ''}`);
    }
  }
  return found;
}

/** Images of the first snapshot that are worse off in the second one. Those that came or went are no matter. */
export function imagesLost(before: ImageSnapshot, after: ImageSnapshot): readonly string[] {
  return [...before].flatMap(([name, state]) => {
    const now = after.get(name);
    // A tag may have moved meanwhile: only what became unreadable or incomplete counts.
    const worse =
      now === undefined ||
      (state.endsWith(' readable') && !now.endsWith(' readable')) ||
      (/ complete /.test(state) && !/ complete /.test(now));
    return worse && state.endsWith(' readable') ? [name] : [];
  });
}

/** Rows of `ctr images check`: REF TYPE DIGEST STATUS SIZE UNPACKED. */
export function parseImages(
  output: string,
): readonly { readonly name: string; readonly digest: string; readonly status: string }[] {
  return output.split('\n').flatMap((line) => {
    const row = /^(\S+)\s+\S+\s+(sha\d+:[0-9a-f]+)\s+([a-z]+ \(\d+\/\d+\)|[a-z]+)/.exec(line);
    const [, name, digest, status] = row ?? [];
    return name === undefined || digest === undefined || status === undefined
      ? []
      : [{ name, digest, status }];
  });
}

/** Content plugins of `ctr plugins ls`: id and status. */
export function parseContentPlugins(
  output: string,
): readonly { readonly id: string; readonly status: string }[] {
  return output.split('\n').flatMap((line) => {
    const [type, id, ...rest] = line.trim().split(/\s+/);
    return type === 'io.containerd.content.v1' && id !== undefined
      ? [{ id, status: rest.at(-1) ?? '' }]
      : [];
  });
}

async function isReadable(
  ctr: Ctr,
  namespace: string,
  digest: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { code, stdout } = await ctr(['-n', namespace, 'content', 'get', digest], signal);
  const [algorithm = '', hex] = digest.split(':');
  if (code !== 0 || !['sha256', 'sha512'].includes(algorithm)) return false;
  return createHash(algorithm).update(stdout).digest('hex') === hex;
}
