import { isDeepStrictEqual } from 'node:util';
import { DaemonError } from '../base/errors.ts';
import {
  BUILTIN_CONTENT,
  type ContainerdTable,
  PROXY_NAME,
  stringList,
} from './containerd-config.ts';
import { type CriRegistries, criRegistries } from './cri-registries.ts';

/** The plugin whose table holds `content_sharing_policy`. */
export const METADATA_PLUGIN = 'io.containerd.metadata.v1.bolt';

/** What `containerd config dump` says about content stores. */
export type DumpFacts = {
  /** containerd's root directory, its database and content below it. */
  readonly root: string;
  /** Its gRPC socket. */
  readonly socket: string;
  readonly builtin_disabled: boolean;
  /** True when containerd will not start without the built-in content plugin. */
  readonly builtin_required: boolean;
  /** Proxy plugins of type content: name and address. */
  readonly content_proxies: readonly { readonly name: string; readonly address: string }[];
  /** `isolated`: a namespace that has not brought the bytes of a blob must not get them from another one. */
  readonly sharing_policy: SharingPolicy;
  readonly cri_registries: CriRegistries;
};

/** containerd's `content_sharing_policy`. */
export type SharingPolicy = 'shared' | 'isolated';

/** Reads the facts that setup needs out of a parsed dump. */
export function dumpFacts(dump: ContainerdTable): DumpFacts {
  // Version 4 (containerd 2.3 writes every dump so) has made a plugin of the server.
  const server = tableOf(tableOf(dump['plugins'])['io.containerd.server.v1.grpc']);
  const socket = textOf(server['address'], textOf(tableOf(dump['grpc'])['address'], ''));
  return {
    root: textOf(dump['root'], '/var/lib/containerd'),
    socket: textOf(socket, '/run/containerd/containerd.sock'),
    builtin_disabled: stringList(dump, 'disabled_plugins').includes(BUILTIN_CONTENT),
    builtin_required: stringList(dump, 'required_plugins').includes(BUILTIN_CONTENT),
    content_proxies: Object.entries(tableOf(dump['proxy_plugins'])).flatMap(([name, plugin]) => {
      const { type, address } = tableOf(plugin);
      return type === 'content' ? [{ name, address: textOf(address, '') }] : [];
    }),
    sharing_policy:
      tableOf(tableOf(dump['plugins'])[METADATA_PLUGIN])['content_sharing_policy'] === 'isolated'
        ? 'isolated'
        : 'shared',
    cri_registries: criRegistries(dump),
  };
}

/** True when a dump says that content comes from our socket, and from there alone. */
export function isWired(facts: DumpFacts, socket_path: string): boolean {
  const [proxy, ...others] = facts.content_proxies;
  return (
    facts.builtin_disabled &&
    others.length === 0 &&
    proxy?.name === PROXY_NAME &&
    proxy.address.replace(/^unix:\/\//, '') === socket_path
  );
}

/**
 * Compares what containerd makes of its configuration before and after. Only our own wiring and the list of imported
 * files may differ; `failed_precondition` names every other setting that would.
 */
export function requireSameButWiring(
  before: ContainerdTable,
  after: ContainerdTable,
  file: string,
): void {
  const differences = differing(withoutWiring(before), withoutWiring(after), '');
  if (differences.length === 0) return;
  const named = differences.slice(0, 8).join('; ');
  throw new DaemonError(
    'failed_precondition',
    `with the change to ${file} containerd would read other settings differently too: ${named}. Nothing was changed. Files in the imported directory that did not count so far may be the reason: move them away or mend them, and run this again`,
    { file },
  );
}

function withoutWiring(dump: ContainerdTable): ContainerdTable {
  const proxies = Object.fromEntries(
    Object.entries(tableOf(dump['proxy_plugins'])).filter(([name]) => name !== PROXY_NAME),
  );
  return {
    ...dump,
    imports: [],
    proxy_plugins: proxies,
    // A set: 2.x drops repeated entries, and the order says nothing. `cri` alone is the name of version 1.
    disabled_plugins: [
      ...new Set(
        stringList(dump, 'disabled_plugins')
          .filter((name) => name !== BUILTIN_CONTENT)
          .map(versionTwoName),
      ),
    ].sort(),
    required_plugins: stringList(dump, 'required_plugins').map(versionTwoName).sort(),
  };
}

function versionTwoName(name: string): string {
  if (name.includes('.')) return name;
  return name === 'cri' ? 'io.containerd.grpc.v1.cri' : `io.containerd.snapshotter.v1.${name}`;
}

function differing(before: unknown, after: unknown, path: string): string[] {
  if (isDeepStrictEqual(before, after)) return [];
  if (!isTable(before) || !isTable(after)) return [`${path} (${short(before)} -> ${short(after)})`];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys.flatMap((key) =>
    differing(before[key], after[key], path === '' ? key : `${path}.${key}`),
  );
}

function short(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = typeof value === 'bigint' ? String(value) : JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function isTable(value: unknown): value is ContainerdTable {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function tableOf(value: unknown): ContainerdTable {
  return isTable(value) ? value : {};
}

function textOf(value: unknown, otherwise: string): string {
  return typeof value === 'string' && value !== '' ? value : otherwise;
}
