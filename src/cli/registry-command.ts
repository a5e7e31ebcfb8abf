import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import type { Config } from '../config/schema.ts';
import { effectiveConfigPath, rootsOf } from '../host/cri-registries.ts';
import type { ContainerdProbe } from '../host/doctor/containerd-process.ts';
import type { ContainerdDoor } from '../host/repair/containerd-door.ts';
import { isDigest } from '../oci/digest.ts';
import { ownPlatform, parsePlatform, type Platform } from '../oci/image-index.ts';
import { parseReference, renderReference } from '../oci/reference.ts';
import { type CheckReport, checkRegistry, type CheckWish } from '../registry/check.ts';
import type { RegistryConfig } from '../registry/config.ts';
import { knownRegistries, originsOf } from '../registry/origins.ts';
import type { RegistryClient } from '../registry/registry-client.ts';
import { STATUS } from '../rpc/status.ts';
import type { Output } from './output.ts';
import { renderCheck } from './registry-render.ts';

/** What the command needs of this host; main.ts gives the real one. */
export type RegistryWorld = {
  readonly openClient: (config: RegistryConfig) => RegistryClient;
  /** The running containerd: its socket, and the roots of hosts.toml that its configuration names. Undefined when none runs. */
  readonly containerd: (
    config_file: string | undefined,
    signal: AbortSignal,
  ) => Promise<{ address: string; certs_directories: readonly string[] } | undefined>;
  readonly openContainerd: (address: string) => Promise<ContainerdDoor>;
};

export type RegistryOptions = {
  readonly json?: boolean;
  readonly platform?: string;
  readonly containerdConfig?: string;
};

type Modules = {
  readonly output: Output;
  readonly clock: Clock;
  readonly world: RegistryWorld;
  readonly config: Config['registry'];
};

/** Namespaces of containerd that are looked through for an image's labels. */
const NAMESPACES_MAX = 64;

/**
 * `layerswarm registry check`: where an image would be asked for, with which credentials, and one request of each kind. Prints the report and resolves
 * to the exit code of its failure, 0 when there is none. `invalid_argument` for a name or platform that is none.
 */
export async function runRegistryCheck(
  modules: Modules,
  image: string,
  options: RegistryOptions,
  signal: AbortSignal,
): Promise<number> {
  const { output, clock, world } = modules;
  const platform = options.platform === undefined ? ownPlatform() : parsePlatform(options.platform);
  const reference = isDigest(image) ? undefined : parseReference(image);
  const containerd = await world.containerd(options.containerdConfig, signal);
  const config: RegistryConfig = {
    ...modules.config,
    certs_directories: [
      ...new Set([...(containerd?.certs_directories ?? []), ...modules.config.certs_directories]),
    ],
  };
  await using client = world.openClient(config);
  const wish =
    reference === undefined
      ? await wishOf(image, { world, config, platform, address: containerd?.address }, signal)
      : {
          origins: [{ registry: reference.registry, repository: reference.repository }],
          target: reference.digest ?? reference.tag ?? 'latest',
          platform,
        };
  const report = await checkRegistry({ clock, client }, wish, signal);
  const name = reference === undefined ? image : renderReference(reference);
  print(output, name, report, options.json === true);
  return report.failure === undefined ? 0 : STATUS[report.failure.code].exit;
}

function print(output: Output, image: string, report: CheckReport, json: boolean): void {
  if (json) {
    output.out(`${JSON.stringify({ image, ...report }, null, 2)}\n`);
    return;
  }
  output.out(renderCheck(image, report));
  if (report.failure !== undefined) output.err(`layerswarm: ${report.failure.message}\n`);
}

type Labelled = {
  readonly world: RegistryWorld;
  readonly config: RegistryConfig;
  readonly platform: Platform;
  readonly address: string | undefined;
};

/** A digest has no name: containerd's labels say where it came from, as the daemon learns it. */
async function wishOf(
  digest: string,
  { world, config, platform, address }: Labelled,
  signal: AbortSignal,
): Promise<CheckWish> {
  if (address === undefined) {
    const message =
      'no containerd runs here that could say where this digest came from; name the image instead';
    throw new DaemonError('unavailable', message);
  }
  using containerd = await world.openContainerd(address);
  const labels: Record<string, string> = {};
  const names: string[] = [];
  for (const namespace of (await containerd.namespaces(signal)).slice(0, NAMESPACES_MAX)) {
    names.push(...(await containerd.images(namespace, signal)).map(({ name }) => name));
    const blob = await containerd.blob(namespace, digest, signal);
    for (const [key, value] of Object.entries(blob?.labels ?? {})) {
      labels[key] = [labels[key] ?? [], value].flat().join(',');
    }
  }
  const origins = originsOf(labels, await knownRegistries(config, names));
  if (origins.length > 0) return { origins, target: digest, platform };
  const message = `containerd does not say where ${digest} came from: it has no label containerd.io/distribution.source for it`;
  throw new DaemonError('not_found', message, { digest });
}

/** What a look at containerd says about registries: CRI's `config_path` may be a list with colons, which is meant as one even where it is not read so. */
export function containerdPlaces(
  probe: ContainerdProbe,
): { address: string; certs_directories: readonly string[] } | undefined {
  if (probe.kind === 'absent') return undefined;
  const { address, effective, version } = probe;
  if ('failure' in effective) return { address, certs_directories: [] };
  const config_path = effectiveConfigPath(effective.cri_registries, version);
  return { address, certs_directories: rootsOf(config_path) };
}
