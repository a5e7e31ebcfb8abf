import type { ContainerdTable } from './containerd-config.ts';

/** The plugins that hold CRI's registries: of 2.x, and of 1.x. */
const PLUGINS = ['io.containerd.cri.v1.images', 'io.containerd.grpc.v1.cri'];
/** What 2.2 and later take for an empty `config_path`; a dump does not show it. */
const DEFAULT_LIST = '/etc/containerd/certs.d:/etc/docker/certs.d';

/** How containerd's CRI plugin finds registries, as a dump has it. */
export type CriRegistries = {
  /** `config_path` as it stands there, a list with colons as the case may be; '' when there is none. */
  readonly config_path: string;
  /** The deprecated way, which rules out the other. */
  readonly has_mirrors: boolean;
  /** It pulls by itself, as before 2.1, and not through the transfer service. */
  readonly pulls_locally: boolean;
};

/** Reads `config dump`. */
export function criRegistries(dump: ContainerdTable): CriRegistries {
  const plugins = tableOf(dump['plugins']);
  const plugin = tableOf(PLUGINS.map((name) => plugins[name]).find((p) => p !== undefined));
  const { config_path, mirrors, configs, auths } = tableOf(plugin['registry']);
  const is_filled = (table: unknown): boolean => Object.keys(tableOf(table)).length > 0;
  // Settings that the transfer service does not know make it pull locally (CheckLocalImagePullConfigs of internal/cri/config).
  const { max_concurrent_downloads, disable_snapshot_annotations } = plugin;
  return {
    config_path: typeof config_path === 'string' ? config_path : '',
    has_mirrors: is_filled(mirrors),
    pulls_locally:
      ['use_local_image_pull', 'discard_unpacked_layers', 'image_pull_with_sync_fs'].some(
        (key) => plugin[key] === true,
      ) ||
      disable_snapshot_annotations === false ||
      Number(max_concurrent_downloads ?? 3) !== 3 ||
      [mirrors, configs, auths].some(is_filled),
  };
}

/** The `config_path` in force: since 2.2 an empty one stands for a list. */
export function effectiveConfigPath(
  { config_path, has_mirrors }: CriRegistries,
  version: string | undefined,
): string {
  const has_default = isAtLeast(version, 2, 2) && config_path === '' && !has_mirrors;
  return has_default ? DEFAULT_LIST : config_path;
}

/** The directories of a `config_path`. */
export function rootsOf(config_path: string): readonly string[] {
  return config_path.split(':').filter((path) => path.startsWith('/'));
}

/**
 * True when the whole of a `config_path` is taken for one directory: the transfer service, by which CRI pulls since 2.1, does not know lists.
 * Measured on 2.1 and 2.3; in 2.4's source still.
 */
export function isTakenWhole(registries: CriRegistries, version: string | undefined): boolean {
  const is_list = effectiveConfigPath(registries, version).includes(':');
  return is_list && isAtLeast(version, 2, 1) && !registries.pulls_locally;
}

function isAtLeast(version: string | undefined, major: number, minor: number): boolean {
  const [a = 0, b = 0] = (version ?? '').split('.').map(Number);
  return a > major || (a === major && b >= minor);
}

function tableOf(value: unknown): ContainerdTable {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as ContainerdTable)
    : {};
}
