import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DaemonError, hasCode } from '../../base/errors.ts';
import { isRegistryHost } from '../../oci/reference.ts';
import { readSmallFile } from '../ground/small-file.ts';
import { type ClientPair, defaultEndpoint, type Endpoint } from './endpoint.ts';
import { parseHostsFile } from './hosts-file.ts';

/** Most entries of one directory that are looked at. */
const MAX_ENTRIES = 1024;

/** Where a registry is to be asked, best first, and what stood in the way of finding out. */
export type Endpoints = {
  /** The directory that decides; undefined = none has the registry. */
  readonly directory: string | undefined;
  readonly endpoints: readonly Endpoint[];
  /** Whole sentences, for people; a file that cannot be used is passed over as containerd does. */
  readonly problems: readonly string[];
};

/**
 * The endpoints of a registry by containerd's rules: in each root in turn `host_port_`, `host:port` and `_default`, the first directory
 * that is there decides, nothing is merged. In it `hosts.toml`, else Docker's certificate files. Read anew each time: containerd does so too.
 */
export async function endpointsOf(roots: readonly string[], registry: string): Promise<Endpoints> {
  if (!isRegistryHost(registry)) {
    throw new DaemonError('invalid_argument', `"${registry.slice(0, 120)}" is no registry`);
  }
  const directory = await directoryOf(roots, registry);
  if (directory === undefined) {
    const told_by = 'no hosts.toml names it';
    return { directory, endpoints: [defaultEndpoint(registry, told_by)], problems: [] };
  }
  const file = join(directory, 'hosts.toml');
  const problems: string[] = [];
  try {
    const text = await readSmallFile(file);
    if (text !== undefined && text !== '') {
      return { directory, endpoints: parseHostsFile(text, file, registry), problems };
    }
  } catch (error) {
    if (!hasCode(error, 'config_invalid', 'permission_denied')) throw error;
    problems.push(error.message);
  }
  const tls = certificatesOf(directory, await names(directory));
  return { directory, endpoints: [defaultEndpoint(registry, directory, tls)], problems };
}

/** The registries that the roots have directories for: `host:port_` or `host:port` tells a port that an image's label does not. */
export async function registriesOf(roots: readonly string[]): Promise<readonly string[]> {
  const found = new Set<string>();
  for (const root of roots) {
    for (const name of await names(root)) {
      const registry = name.replace(/_(\d{1,5})_$/, ':$1');
      if (name !== '_default' && isRegistryHost(registry)) found.add(registry);
    }
  }
  return [...found];
}

async function directoryOf(
  roots: readonly string[],
  registry: string,
): Promise<string | undefined> {
  const colon = registry.lastIndexOf(':');
  // An IPv6 address without a port has colons too, and containerd reads the last one as a port's.
  const underscored =
    colon > 0 ? `${registry.slice(0, colon)}_${registry.slice(colon + 1)}_` : registry;
  for (const root of roots) {
    for (const name of [...new Set([underscored, registry]), '_default']) {
      const path = join(root, name);
      const is_there = await stat(path).then(
        (s) => s.isDirectory(),
        () => false,
      );
      if (is_there) return path;
    }
  }
  return undefined;
}

/** Docker's layout: `*.crt` are trusted, `x.cert` with `x.key` is ours. */
function certificatesOf(
  directory: string,
  files: readonly string[],
): { readonly ca: readonly string[]; readonly client: readonly ClientPair[] } {
  const path = (name: string): string => join(directory, name);
  const ca = files.filter((name) => name.endsWith('.crt')).map(path);
  const client = files
    .filter((name) => name.endsWith('.cert') && files.includes(name.replace(/cert$/, 'key')))
    .map((name) => ({ cert: path(name), key: path(name.replace(/cert$/, 'key')) }));
  return { ca, client };
}

/** Sorted, as containerd reads a directory; none where it cannot be read. */
async function names(directory: string): Promise<readonly string[]> {
  const found = await readdir(directory).catch(() => []);
  return found.sort().slice(0, MAX_ENTRIES);
}
