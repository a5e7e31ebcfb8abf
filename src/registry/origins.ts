import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { hostnameOf, isRegistryHost, isRepository, parseReference } from '../oci/reference.ts';
import type { RegistryConfig } from './config.ts';
import { readSmallFile } from './ground/small-file.ts';
import { registriesOf } from './places/host-directories.ts';

/** containerd's label on what it fetched: the key ends in the host without its port, the value lists repositories. */
const SOURCE_LABEL = 'containerd.io/distribution.source.';
/** Most places one manifest leads to: each is a request when it is wrong. */
const MAX_ORIGINS = 16;
/** Most intents that are read: the kubelet keeps one per image on its way. */
const MAX_INTENTS = 64;

/** A repository that may hold an image. */
export type Origin = { readonly registry: string; readonly repository: string };

/**
 * Where an image may have come from, by the labels of its manifest. The label has no port and one key for all ports of a host, so every
 * known registry of that name is meant, and where none is known the host itself (443). Nothing says which of several is right: each
 * is a guess, which the digest makes harmless. Bounded.
 */
export function originsOf(
  labels: Readonly<Record<string, string>>,
  known: readonly string[],
): readonly Origin[] {
  const origins = Object.entries(labels).flatMap(([key, value]) => {
    if (!key.startsWith(SOURCE_LABEL)) return [];
    const host = key.slice(SOURCE_LABEL.length);
    const bare = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
    if (!isRegistryHost(bare)) return [];
    const named = known.filter((registry) => hostnameOf(registry) === hostnameOf(bare));
    const registries = new Set(named.length === 0 ? [bare] : named);
    const repositories = value.split(',').filter(isRepository);
    return repositories.flatMap((repository) =>
      [...registries].map((registry) => ({ registry, repository })),
    );
  });
  return origins.slice(0, MAX_ORIGINS);
}

/**
 * Every registry that something on this host names: the configuration, directories of hosts.toml, images that containerd has, pulls of the
 * kubelet. Files and directories that cannot be read name none.
 */
export async function knownRegistries(
  config: Pick<RegistryConfig, 'hosts' | 'certs_directories' | 'kubelet_directory'>,
  image_names: readonly string[],
): Promise<readonly string[]> {
  const in_directories = await registriesOf(config.certs_directories);
  const intents = await kubeletIntents(config.kubelet_directory);
  const in_names = registriesInNames([...image_names, ...intents]);
  return [...new Set([...config.hosts, ...in_directories, ...in_names])];
}

/** The registries in names of images; what is no such name (a digest, a local name) is left out. */
function registriesInNames(names: readonly string[]): readonly string[] {
  const found = names.flatMap((name) => {
    try {
      return [parseReference(name).registry];
    } catch {
      // Names in containerd may be anything.
      return [];
    }
  });
  return [...new Set(found)];
}

/** Names of images that the kubelet is pulling right now: its intents (kubelet 1.33 and later) hold them with port and tag. */
async function kubeletIntents(kubelet_directory: string): Promise<readonly string[]> {
  const directory = join(kubelet_directory, 'image_manager/pulling');
  const files = (await readdir(directory).catch(() => [])).filter((f) => f.startsWith('sha256-'));
  const names: string[] = [];
  for (const file of files.slice(0, MAX_INTENTS)) {
    try {
      const intent: unknown = JSON.parse((await readSmallFile(join(directory, file))) ?? '{}');
      if (typeof intent !== 'object' || intent === null || !('image' in intent)) continue;
      if (typeof intent.image === 'string') names.push(intent.image);
    } catch {
      // An intent that is being written, or of another kubelet's making, tells nothing.
    }
  }
  return names;
}
